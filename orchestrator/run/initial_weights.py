"""Check the LoRA that a training starts from against its network.

sd-scripts loads it after it has encoded the images (train_network.py line 711, v0.10.1). A tensor of another shape stops it
there. A module that the network lacks is dropped. An alpha of the file replaces the recipe's in the saved file only.
"""

from __future__ import annotations

import math
import shlex
from collections import Counter
from typing import TYPE_CHECKING

from orchestrator.errors import OrchestratorError, Problem, counted
from orchestrator.models import conventions, layers, registry
from orchestrator.models.registry import ARCHITECTURES
from orchestrator.weights.families import expected_tensors, kinds, layer_ranks
from orchestrator.weights.families.adapter import adapter
from orchestrator.weights.io import scalar
from orchestrator.weights.io.safetensors_io import Body, read_header

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from orchestrator.models.layers import Model, ModelLayer
    from orchestrator.recipe import Recipe
    from orchestrator.weights.families.adapter import Adapter, AdapterModule
    from orchestrator.weights.io.safetensors_io import Header

_RANKED = ("lora", "locon", "dylora", "loha")
"""Families whose modules have the recipe's rank."""
_SCALED = ("lora", "locon", "loha")
"""Families whose modules have the recipe's alpha."""
_CLOSE = 2**-7  # an alpha in bf16


def problems(where: str, path: Path, recipe: Recipe, model: Model) -> list[Problem]:
    """Return the problems of a sound file as the start of a training.

    Args:
        where: for the message: key and name.
        path: a file in safetensors.
        recipe: the recipe that starts from it.
        model: the base model that it trains.
    """
    header = read_header(path)
    if (kind := registry.of_tensors(header.entries)) is not None:
        what = f"is a checkpoint of {ARCHITECTURES[kind].checkpoint_title}, not a LoRA"
        return [Problem(where, what, "name a LoRA, or leave network.weights out")]
    try:
        lora = adapter(header)
    except OrchestratorError as error:
        return [Problem(where, f"{problem.where}: {problem.what}", problem.hint) for problem in error.problems]
    if (other := _another_model(where, lora, recipe, model) or _another_form(where, lora)) is not None:
        return [other]
    trained = _trained(recipe, model)
    if trained is None:  # a network without a formula
        return []
    wrong = [*_dropped(where, lora, recipe, trained), *_tensors(where, lora, recipe, trained)]
    return [*wrong, *_alphas(where, header, lora, recipe, trained)]


def continued(path: Path, recipe: Recipe, model: Model) -> str:
    """Return the number of modules that start from a file, in words, or ""."""
    trained = _trained(recipe, model)
    if trained is None:
        return ""
    started = sum(module.name in trained for module in adapter(read_header(path)).modules)
    return f"; {started} of {len(trained)} modules start from it" + (", the others anew" if started < len(trained) else "")


def _trained(recipe: Recipe, model: Model) -> dict[str, ModelLayer] | None:
    """Return the trained layers by name, or None without a formula."""
    if expected_tensors.predict(recipe, model) is None:
        return None
    return {layer.name: layer for layer in expected_tensors.modules(recipe, model)}


def _another_model(where: str, lora: Adapter, recipe: Recipe, model: Model) -> Problem | None:
    """Return the problem of a LoRA of another base model, or None.

    Some models share layers, and FLUX.1-dev and schnell all of them.
    """
    own, kind = {layer.name: layer for layer in layers.layers(model)}, lora.architecture
    if all(_belongs(module, own.get(module.kohya)) for module in lora.modules):
        return None
    title = ARCHITECTURES[recipe.base.architecture].title
    if kind is None:
        return Problem(where, lora.recognition.explain(), f"name a LoRA of {title}")
    if kind == recipe.base.architecture or ARCHITECTURES[kind].model == model:
        return None
    what = f"is a LoRA of {ARCHITECTURES[kind].title}, but the recipe trains {title}"
    return Problem(where, what, f'name a LoRA of {title}, or set base.architecture = "{kind}"')


def _belongs(module: AdapterModule, layer: ModelLayer | None) -> bool:
    """Return whether a module may be of a layer.

    The kind may not tell its size.
    """
    size = kinds.extent(module.kind, module.shapes)
    return layer is not None and size in (None, (layer.out, layer.in_ * layer.kernel**2))


def _another_form(where: str, lora: Adapter) -> Problem | None:
    """Return the problem of module names of another convention, or None."""
    network = (module for module in lora.modules if not module.name.startswith("lora_te"))  # LyCORIS has prefixes of its own
    renamed = next((module for module in network if module.name != module.kohya), None)
    if renamed is None:
        return None
    hint = f"python -m orchestrator convert {shlex.quote(str(lora.header.path))} OUT --to kohya"
    what = f"has the names of {conventions.TITLES[lora.naming]}" if lora.naming != "kohya" else f"has {renamed.name}"
    return Problem(where, f"{what}, which the trainer ignores", hint)


def _dropped(where: str, lora: Adapter, recipe: Recipe, trained: Mapping[str, ModelLayer]) -> Iterator[Problem]:
    """Yield modules of the file that the network lacks."""
    extra = [module.name for module in lora.modules if module.name not in trained]
    text = [name for name in extra if name.startswith("lora_te")]
    both = 'set training.train = "both"' if recipe.training.train == "unet" else "name them in training.text_encoders"
    rest = [name for name in extra if name not in text]
    for names, title, way in ((text, "of text encoders", both), (rest, "that the recipe does not train", "train them too")):
        if names:
            what = f"has {counted(len(names), 'module')} {title}, as {names[0]}: sd-scripts drops them in silence"
            yield Problem(where, what, f"{way}, or name a LoRA without them")


def _tensors(where: str, lora: Adapter, recipe: Recipe, trained: Mapping[str, ModelLayer]) -> Iterator[Problem]:
    """Yield other families, ranks and shapes of modules that are trained."""
    ranks: Counter[tuple[str, int, int]] = Counter()
    families, shapes = Counter[str](), list[str]()
    rank_of = layer_ranks.ranks(recipe)
    for module in lora.modules:
        layer = trained.get(module.name)
        expected = expected_tensors.of_layer(recipe, layer) if layer is not None else None
        if layer is None or expected is None:
            continue
        conv = recipe.network.conv_dim if layer.kernel > 1 else None
        if module.parts - {"alpha"} != expected.keys() - {"alpha"}:
            families[str(module.kind)] += 1
        elif recipe.network.family in _RANKED and module.rank != (conv or rank_of(layer)):
            ranks["network.conv_dim" if conv else "network.dim", module.rank or 0, conv or rank_of(layer)] += 1
        elif any(not _fits(recipe, module.shapes[part], shape) for part, shape in expected.items() if part in module.shapes):
            shapes.append(module.name)
    if families:
        kinds_ = ", ".join(f"{counted(count, 'module')} of {kind}" for kind, count in families.items())
        what = f"has {kinds_}, with other tensors than network.family = {recipe.network.family} of the recipe trains"
        yield Problem(where, what, f"set network.family and its options to the file's ({lora.family}), or name another LoRA")
    yield from _ranks(where, lora, ranks)
    if shapes:
        what = f"has {counted(len(shapes), 'module')} of other shapes than the recipe's, as {shapes[0]}: sd-scripts would stop"
        yield Problem(where, what, "name a LoRA that was trained with the recipe's network")


def _ranks(where: str, lora: Adapter, ranks: Mapping[tuple[str, int, int], int]) -> Iterator[Problem]:
    """Yield ranks by recipe key that are not the recipe's."""
    for key in dict.fromkeys(key for key, _, _ in ranks):
        own = sorted({rank for name, rank, _ in ranks if name == key})
        trained = sorted({rank for name, _, rank in ranks if name == key})
        what = f"has rank {', '.join(map(str, own))}; {key} trains {', '.join(map(str, trained))}: sd-scripts would stop"
        way = [f"set {key} = {own[0]}"] if len(own) == 1 else []
        if own[-1] > trained[0] or len(own) > 1:
            way.append(f"python -m orchestrator resize {shlex.quote(str(lora.header.path))} OUT --new-rank {trained[0]}")
        yield Problem(where, what, "; or  ".join(way))


def _fits(recipe: Recipe, own: tuple[int, ...], expected: tuple[int, ...]) -> bool:
    """Return whether a tensor fits.

    Predicted shapes of other families than lora may be flat.
    """
    return own == expected if recipe.network.family == "lora" else math.prod(own) == math.prod(expected)


def _alphas(where: str, header: Header, lora: Adapter, recipe: Recipe, trained: Mapping[str, ModelLayer]) -> Iterator[Problem]:
    """Yield alphas that are not the recipe's."""
    network = recipe.network
    if network.family not in _SCALED or network.args.get("rs_lora"):
        return
    modules_by_alpha: Counter[tuple[str, float, float]] = Counter()
    with Body(header) as body:
        for module in lora.modules:
            layer, name = trained.get(module.name), module.keys.get("alpha", "")
            large = layer is not None and layer.kernel > 1
            expected = network.conv_alpha if large else network.alpha
            if layer is None or not name or expected is None:
                continue
            alpha = scalar.read(body, name)
            if alpha and not math.isclose(alpha, expected, rel_tol=_CLOSE):
                modules_by_alpha["network.conv_alpha" if large else "network.alpha", alpha, expected] += 1
    for (key, alpha, expected), count in modules_by_alpha.items():
        what = f"has alpha {alpha:g} in {counted(count, 'module')}; {key} is {expected:g}"
        yield Problem(where, f"{what}: the trainer scales by that, and saves the file's", f"set {key} = {alpha:g}")
