"""Command of a render step: the architecture's script, or render_program.

render_program serves networks that the script cannot read.
"""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from orchestrator.engines.sdscripts import gen_img, inference, launch, parser_options
from orchestrator.models import names
from orchestrator.models.registry import ARCHITECTURES
from orchestrator.models.renderer import GEN_IMG
from orchestrator.recipe import Network
from orchestrator.system import settings
from orchestrator.system.child import REQUEST
from orchestrator.system.process import Command
from orchestrator.weights.families import expected_tensors

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from orchestrator.engines.protocol import RenderItem
    from orchestrator.models.renderer import Renderer
    from orchestrator.recipe import Recipe
    from orchestrator.recipe.base import Conflict

PROGRAM = "orchestrator.engines.sdscripts.render_program"
TEMPORARY = "temporary"
_OWNED = {
    "negative_prompt": "render.negative",
    "guidance": "render.guidance",
    "seed": "render.seed",
    "sampler": "render.sampler",
    "batch_size": "render.batch_size",
    "clip_skip": "base.clip_skip",
    **dict.fromkeys(("prompt", "from_file"), "render.prompts"),
    **dict.fromkeys(("steps", "infer_steps"), "render.steps"),
    **dict.fromkeys(("scale", "cfg_scale", "guidance_scale"), "render.scale"),
    **dict.fromkeys(("flow_shift", "discrete_flow_shift"), "render.flow_shift"),
    **dict.fromkeys(
        ("W", "H", "width", "height", "image_width", "image_height", "image_size"), "render.width and render.height"
    ),
    **dict.fromkeys(("v1", "v2", "sdxl", "model_type"), "base.architecture"),
    **dict.fromkeys(("v_parameterization", "zero_terminal_snr"), "training.options"),
    **dict.fromkeys(("interactive", "output_type", "latent_path", "save_merged_model", "lycoris"), ""),
    **dict.fromkeys(("network_module", "images_per_prompt", "n_iter", "sequential_file_name", "use_original_file_name"), ""),
    **dict.fromkeys(("tokenizer_cache_dir", "console_log_simple", "max_embeddings_multiples", "sdpa"), ""),
}
"""Options of all scripts with a recipe key of their own, and options that are set here (empty)."""
_DTYPES = {"no": "F32", "fp16": "F16", "bf16": "BF16"}


class LoraDelivery(StrEnum):
    """Form in which a network reaches the script.

    As it is, folded into a plain LoRA, or baked into the base model.
    """

    DIRECT = "direct"
    FOLD = "fold"
    BAKE = "bake"


def delivery(recipe: Recipe, inputs: Mapping[str, Path] | None = None) -> LoraDelivery:
    """Return how the recipe's network reaches the script.

    networks.lora reads plain LoRA files. It reads a LoCon only without the modules that it does not know (conv_in, conv_out,
    time_embedding, which LyCORIS trains by default), because it skips unknown keys in silence. The network modules of other
    architectures refuse a file with unknown keys.

    Args:
        recipe: its ``network`` table is used.
        inputs: model files by their key. A text encoder in a folder takes no LoRA in some scripts.
    """
    network, entry = recipe.network, ARCHITECTURES[recipe.base.architecture]
    renderer = entry.renderer
    if renderer.drops_text_lora and recipe.training.train != "unet":
        encoders = [file.option for file in entry.files if file.lora_prefix]
        if any(inputs[name].is_dir() for name in encoders if inputs and name in inputs):
            return LoraDelivery.BAKE
    if network.family == "lora":
        return LoraDelivery.DIRECT
    if network.family != "locon" or any(network.args.get(name) for name in ("dora_wd", "train_norm")):
        return LoraDelivery.BAKE
    if _by_gen_img(recipe):
        preset = network.preset
        readable = preset is not None and not preset.unet_target_name and not preset.text_encoder_target_name
        plain = not network.tucker
    else:
        trained = {layer.name for layer in expected_tensors.modules(recipe, entry.model)}
        own = {names.kohya(name, recipe.base.architecture) for name in trained}
        readable = renderer.merges or own <= _modules_of_script(recipe)
        plain = own == trained
    if not readable:
        return LoraDelivery.BAKE
    return LoraDelivery.DIRECT if plain else LoraDelivery.FOLD


def _modules_of_script(recipe: Recipe) -> set[str]:
    """Return all modules that sd-scripts' own network can have."""
    model = ARCHITECTURES[recipe.base.architecture].model
    whole = Network(family="lora", dim=1, alpha=1, args=dict.fromkeys(model.targets.optional, True))
    own = recipe.model_copy(update={"network": whole, "training": recipe.training.model_copy(update={"train": "both"})})
    return {layer.name for layer in expected_tensors.modules(own, model)}


def command(recipe: Recipe, inputs: Mapping[str, Path], work: Path) -> Command:
    """Return the command that draws the recipe's prompts.

    Args:
        recipe: its ``render`` table is used.
        inputs: "lora", and model files by their key: "checkpoint", "vae", those of ``base.files``.
        work: folder that receives PROMPT.png.
    """
    models = {key: path for key, path in inputs.items() if key != "lora"}
    chosen = delivery(recipe, models)
    if chosen is LoraDelivery.DIRECT:
        return _drawing(recipe, models, inputs["lora"], work)
    work = work.absolute()
    temporary = work / TEMPORARY
    request = {
        "how": chosen,
        "architecture": recipe.base.architecture,
        "lora": str(inputs["lora"].absolute()),
        "multiplier": recipe.render.multiplier,
        "temporary": str(temporary),
        "dtype": _dtype(recipe),
    }
    if chosen is LoraDelivery.FOLD:
        folded = temporary / "folded.safetensors"
        request["target"] = str(folded)
        drawing = _drawing(recipe, models, folded, work)
    else:
        baked = {key: temporary / key / models[key].name for key in _with_lora(recipe) if key in models}
        request["files"] = [
            {"source": str(models[key].absolute()), "target": str(target), "text_prefix": _with_lora(recipe)[key]}
            for key, target in baked.items()
        ]
        drawing = _drawing(recipe, models | baked, None, work)
    request |= {"argv": list(drawing.argv), "env": drawing.env}
    files = {**drawing.files, REQUEST: json.dumps(request, indent=1, ensure_ascii=False)}
    env = {**drawing.env, "PYTHONPATH": str(settings.ROOT)}
    return Command((sys.executable, "-m", PROGRAM, str(work / REQUEST)), work, env, files)


MOST_TOGETHER: Final = 8
"""LoRAs of one process. Each one costs memory, and time in every layer even at multiplier 0."""


def together(items: Sequence[RenderItem]) -> list[list[int]]:
    """Return the positions of items that one process can draw.

    gen_img.py reads several LoRA files and changes their multipliers from line to line. Networks that it cannot read, and
    other scripts, draw each LoRA in a process of its own.
    """
    groups: list[list[int]] = []
    shared: dict[object, list[int]] = {}
    for number, item in enumerate(items):
        if not _by_gen_img(item.recipe) or (item.lora is not None and delivery(item.recipe) is not LoraDelivery.DIRECT):
            groups.append([number])
            continue
        key = gen_img.settings(item.recipe)
        group = shared.get(key)
        if group is None or len(gen_img.loras([items[member] for member in group])) >= MOST_TOGETHER:
            group = shared[key] = []
            groups.append(group)
        group.append(number)
    return groups


def command_together(items: Sequence[RenderItem], inputs: Mapping[str, Path], work: Path) -> Command:
    """Return the command that draws items of one of ``together``'s groups.

    Raises:
        ValueError: several items of a script that draws one LoRA only.
    """
    first = items[0].recipe
    if not _by_gen_img(first):
        ((recipe, lora),) = ((item.recipe, item.lora) for item in items)
        prompts = {f"{gen_img.prefix(0)}{name}": prompt for name, prompt in recipe.render.prompts.items()}
        named = recipe.model_copy(update={"render": recipe.render.model_copy(update={"prompts": prompts})})
        return _drawing(named, inputs, lora, work)
    argv = gen_img.arguments(first, inputs["checkpoint"], inputs.get("vae"), gen_img.loras(items), work)
    files = {gen_img.PROMPTS: gen_img.lines_together(items)}
    return launch.command(gen_img.SCRIPT, argv + launch.tokenizer_options(), work, files)


def _dtype(recipe: Recipe) -> str:
    """Return the safetensors type of folded and baked tensors."""
    if ARCHITECTURES[recipe.base.architecture].renderer.merges:
        return "BF16"  # these scripts draw in nothing else
    return "F32" if _by_gen_img(recipe) else _DTYPES[recipe.render.precision]


def _by_gen_img(recipe: Recipe) -> bool:
    return ARCHITECTURES[recipe.base.architecture].renderer.script == GEN_IMG.script


def _with_lora(recipe: Recipe) -> dict[str, str]:
    """Return the keys of model files that may have LoRA modules.

    The value is a text encoder's prefix in LoRA files, "" for the checkpoint.
    """
    entry = ARCHITECTURES[recipe.base.architecture]
    return {"checkpoint": "", **{file.option: file.lora_prefix for file in entry.files if file.lora_prefix}}


def _drawing(recipe: Recipe, models: Mapping[str, Path], lora: Path | None, work: Path) -> Command:
    if not _by_gen_img(recipe):
        return inference.command(recipe, models, lora, work)
    argv = gen_img.arguments(recipe, models["checkpoint"], models.get("vae"), [lora] if lora is not None else [], work)
    files = {gen_img.PROMPTS: gen_img.lines(recipe, names=True)}
    return launch.command(gen_img.SCRIPT, argv + launch.tokenizer_options(), work, files)


def problems(recipe: Recipe) -> Iterator[Conflict]:
    """Yield (dotted key, problem) of the render table."""
    renderer = ARCHITECTURES[recipe.base.architecture].renderer
    yield from (gen_img if _by_gen_img(recipe) else inference).problems(recipe)
    if recipe.render.options:
        options, program = parser_options.of(renderer.script), f"sd-scripts' {renderer.script}"
        yield from parser_options.problems(options, recipe.render.options, "render.options", _owned(renderer), program)


def _owned(renderer: Renderer) -> dict[str, str]:
    """Return options of a script with a recipe key of their own.

    Those that are set here have none.
    """
    words = {word for chosen in renderer.precisions.values() for word in chosen if word.startswith("--")}
    owned = _OWNED | {word.removeprefix("--"): "render.precision" for word in words}
    owned |= {word.removeprefix("--"): "" for word in renderer.switches if word.removeprefix("--") not in owned}
    owned |= {renderer.output: "", renderer.lora: ""} | (
        {renderer.multiplier: "render.multiplier"} if renderer.multiplier else {}
    )
    return owned | {
        name: f"base.{key}" if key in ("checkpoint", "vae") else f"base.files.{key}" for key, name in renderer.models.items()
    }
