"""Recognize the architecture of a LoRA file by the names of its modules.

Each architecture counts the modules that belong to its layers. A module belongs to a layer of the same name whose numbers are
not beyond the architecture's, so that smaller models of the same structure belong too. No architecture is a default.
"""

from __future__ import annotations

import difflib
import functools
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.models import counterparts, names, unet_names
from orchestrator.models.layers import layers
from orchestrator.models.registry import ARCHITECTURES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from orchestrator.models.architecture import DepthVariant
    from orchestrator.models.layers import ModelLayer
    from orchestrator.models.registry import ArchitectureName

SHOWN = 3
_NUMBER = re.compile(r"(?<=_)[0-9]{1,6}(?=_|$)")
_NORM = re.compile(r"(?:[a-z0-9]+_)?(?:layer_?)?norm\w*|ln\w*|in_layers_0|out_layers_0")
_TEXT = re.compile(r"text_model_(?:embeddings_(?:token|position)_embedding|final_layer_norm)|text_projection")
# Conventions that are named, though their modules are not read.
_FOREIGN = (
    (re.compile(r"transformer\.single_transformer_blocks\."), "names of diffusers for a transformer of FLUX's structure"),
    (re.compile(r"transformer\."), "names of diffusers for a transformer (FLUX, SD3, Lumina and others)"),
    (re.compile(r"base_model\.model\.model\.(?:layers|decoder|encoder)\."), "names of PEFT for a language model"),
)


@dataclass(frozen=True, slots=True)
class Recognition:
    """The architecture of a file's modules, and the modules beside it."""

    architecture: ArchitectureName | None
    """None: the modules belong to no architecture."""
    nearest: ArchitectureName
    """The architecture itself, or the one with the most, or the most similar, names."""
    modules: int
    unknown: tuple[str, ...]
    """Modules that belong to no layer of ``nearest``, by their names in the file."""

    @property
    def title(self) -> str:
        """Title of the architecture for messages, or unknown."""
        return "unknown architecture" if self.architecture is None else ARCHITECTURES[self.architecture].title

    @property
    def deeper(self) -> DepthVariant | None:
        """Variant with inserted blocks that has all unknown modules, or None."""
        if self.architecture is None or not self.unknown:
            return None
        numbers = [_block_beyond(module, self.architecture) for module in self.unknown]
        largest = max(-1 if number is None else number for number in numbers)
        variants = ARCHITECTURES[self.architecture].variants
        return None if None in numbers else next((each for each in variants if largest < each.blocks), None)

    def to_json(self) -> dict[str, Any]:
        """Return the doubt about the file as plain JSON."""
        return {"nearest": self.nearest, "unknown": list(self.unknown), "explanation": self.explain()}

    def explain(self) -> str:
        """Return the doubt about a file in one sentence, or ""."""
        if not self.unknown:
            return ""
        shown = ", ".join(self.unknown[:SHOWN]) + (" …" if len(self.unknown) > SHOWN else "")
        title = ARCHITECTURES[self.nearest].title
        if (variant := self.deeper) is not None:
            blocks = f"{variant.title}, a variant of {title} with {variant.blocks} blocks"
            return (
                f"{len(self.unknown)} of {self.modules} modules are in blocks that {title} lacks: {shown}; it is for {blocks}"
            )
        if self.architecture is not None:
            return f"{len(self.unknown)} of {self.modules} modules belong to no layer of {title}: {shown}"
        foreign = next((what for pattern, what in _FOREIGN if pattern.match(self.unknown[0])), "")
        nearest = f"the nearest is {title}, with layers for {self.modules - len(self.unknown)} of {self.modules} modules"
        return f"unknown architecture: {shown}{f' ({foreign})' if foreign else ''}; {nearest}"


class _Table:
    """Names of an architecture's modules, numbers replaced, with the largest."""

    def __init__(self, architecture: ArchitectureName) -> None:
        """Index the layers by name.

        All else is computed when a name is not among them.
        """
        self._architecture = architecture
        self.exact: Mapping[str, ModelLayer] = {layer.name: layer for layer in layers(ARCHITECTURES[architecture].model)}
        self.text = frozenset(encoder.prefix for encoder in ARCHITECTURES[architecture].model.text_encoders)

    @functools.cached_property
    def largest(self) -> Mapping[str, tuple[int, ...]]:
        """Largest numbers in the names of layers."""
        around = {f"lora_unet_{name}" for name in unet_names.ALONE} if names.translates(self._architecture) else set()
        if names.translates(self._architecture) and not ARCHITECTURES[self._architecture].stability_names:
            around = {f"lora_unet_{unet_names.to_diffusers(name.removeprefix('lora_unet_'))}" for name in around}
        around |= {f"lora_unet_{name}" for name in ARCHITECTURES[self._architecture].outside}
        outside = (path for path in ARCHITECTURES[self._architecture].diffusers if "#" not in path)
        return _largest((*self.exact, *around, *(f"lora_unet_{path}".replace(".", "_") for path in outside)))

    @functools.cached_property
    def by_template(self) -> Mapping[str, ModelLayer]:
        """Return the layers by name, numbers replaced."""
        return {_template(name)[0]: layer for name, layer in self.exact.items()}

    @functools.cached_property
    def parents(self) -> Mapping[str, tuple[int, ...]]:
        """Largest numbers in the names of modules around layers."""
        parents = set()
        for layer in self.exact.values():
            prefix = layer.name.removesuffix(layer.dotted.replace(".", "_")).rstrip("_")
            words = layer.dotted.split(".")
            parents |= {f"{prefix}_{'_'.join(words[:count])}" if count else prefix for count in range(len(words))}
        return _largest(parents)

    def holds(self, name: str) -> bool:
        """Return whether a module of this name belongs to the architecture."""
        if name in self.exact or _within(name, self.largest):
            return True
        prefix = next((prefix for prefix in self.text if name.startswith(f"{prefix}_")), None)
        if prefix and _TEXT.fullmatch(name.removeprefix(f"{prefix}_")):
            return True
        words = name.split("_")
        return any(
            _NORM.fullmatch("_".join(words[-count:])) and _within("_".join(words[:-count]), self.parents)
            for count in range(1, min(5, len(words)))
        )


def _template(name: str) -> tuple[str, tuple[int, ...]]:
    return _NUMBER.sub("#", name), tuple(map(int, _NUMBER.findall(name)))


def _within(name: str, largest: Mapping[str, tuple[int, ...]]) -> bool:
    template, numbers = _template(name)
    limits = largest.get(template)
    if limits is None or len(limits) != len(numbers):  # a name in a file may hold the sign of a number itself
        return False
    return all(number <= limit for number, limit in zip(numbers, limits, strict=True))


def _largest(all_names: Iterable[str]) -> dict[str, tuple[int, ...]]:
    largest: dict[str, tuple[int, ...]] = {}
    for name in all_names:
        template, numbers = _template(name)
        largest[template] = tuple(map(max, numbers, largest.get(template, numbers)))
    return largest


_table = functools.cache(_Table)


@functools.cache
def _roots() -> Mapping[str, frozenset[ArchitectureName]]:
    """Return the architectures with layers below each first name."""
    roots: dict[str, set[ArchitectureName]] = {}
    for architecture, entry in ARCHITECTURES.items():
        for layer in entry.model.unet_layers(entry.model):
            roots.setdefault(layer.dotted.partition(".")[0], set()).add(architecture)
    for architecture, entry in ARCHITECTURES.items():
        for root, found in roots.items():
            if any(f"{name}_".startswith(f"{root}_") for name in entry.outside):
                found.add(architecture)
        for path, layer_ in entry.diffusers.items():
            for name in (path, *counterparts.paths(layer_)):
                roots.setdefault(name.partition(".")[0], set()).add(architecture)
        if names.translates(architecture):
            for name in (*unet_names.ALONE, *unet_names.ALONE.values()):
                roots.setdefault(name, set()).add(architecture)
    translated = {architecture for architecture in ARCHITECTURES if names.translates(architecture)}
    return {
        root: frozenset(found | translated if found & translated else found)
        for root, found in roots.items()
        if not _NORM.fullmatch(root)  # a norm may belong to any
    }


def _possible(plain: Iterable[str]) -> dict[ArchitectureName, int]:
    """Count the modules of each architecture by their first names.

    A text encoder's module, and one below a name of no architecture, may belong to any.
    """
    roots = re.compile(rf"lora_unet_({'|'.join(sorted(_roots(), key=len, reverse=True))})(?:_|$)")
    counts = Counter(match[1] if (match := roots.match(name)) else "" for name in plain)
    return {
        architecture: sum(count for root, count in counts.items() if not root or architecture in _roots()[root])
        for architecture in ARCHITECTURES
    }


def layer(name: str, architecture: ArchitectureName) -> ModelLayer | None:
    """Return the layer with this kohya name, in a smaller model too, or None.

    >>> layer("lora_unet_double_blocks_0_img_mlp_0", "flux").dotted
    'double_blocks.0.img_mlp.0'
    """
    table = _table(architecture)
    if name in table.exact:
        return table.exact[name]
    return table.by_template.get(_template(name)[0]) if _within(name, table.largest) else None


def beyond(name: str, architecture: ArchitectureName) -> bool:
    """Return whether a layer's number is beyond the architecture."""
    table = _table(architecture)
    return _template(name)[0] in table.by_template and layer(name, architecture) is None


def _block_beyond(module: str, architecture: ArchitectureName) -> int | None:
    """Return the block of a module beyond the architecture's last, or None."""
    name = names.kohya(module, architecture)
    match = re.match(r"lora_unet_blocks_([0-9]{1,4})_", name)
    return int(match[1]) if match and beyond(name, architecture) else None


def canonical(module: str, architecture: ArchitectureName | None) -> str:
    """Return a module's kohya name without wrappers of LyCORIS."""
    return names.kohya(module, architecture)


def recognize(
    modules: Iterable[str],
    *,
    sizes: Mapping[str, tuple[int, int]] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> Recognition:
    """Return the architecture to which the most modules of a file belong.

    More than half of the modules must belong to it, text encoders, which architectures share, aside. Equal counts are decided
    by the sizes of the modules, then by the names that need no translation, then by the metadata.

    Args:
        modules: names in the file.
        sizes: (outputs, inputs) of their weights by module, as far as they are known.
        metadata: of the file.
    """
    modules, sizes, metadata = list(modules), sizes or {}, metadata or {}
    plain = {module: canonical(module, None) for module in modules}
    possible = _possible(plain.values())
    first = max(possible, key=possible.__getitem__)
    members = {first: _members(first, modules)}
    best: ArchitectureName = next(iter(ARCHITECTURES))
    score, held = (-1, 0, 0, 0, False), set[str]()
    for architecture in ARCHITECTURES:
        if possible[architecture] < len(members[first]):
            continue  # without a look at its names
        own = members.get(architecture) or _members(architecture, modules)
        exact, parts = _table(architecture).exact, ARCHITECTURES[architecture].diffusers
        fits = sum(_fits(exact.get(name), sizes.get(module), parts) for module, name in own.items())
        native = sum(name == plain[module] for module, name in own.items())
        covered = {name for name, layer in exact.items() if not layer.text} <= set(own.values())
        candidate = (len(own), fits, native, _stated(architecture, metadata), covered)
        twin = ARCHITECTURES[architecture].model == ARCHITECTURES[best].model  # FLUX.1-schnell and dev, the usual one
        if candidate > score or (twin and candidate == score):
            best, score, held = architecture, candidate, set(own)
    unknown = tuple(module for module in modules if module not in held)
    network = [module for module in modules if not plain[module].startswith("lora_te")] or modules
    enough = 2 * sum(module in held for module in network) > len(network)
    nearest = best if held else _similar(plain.values())
    return Recognition(best if enough else None, nearest, len(modules), unknown)


def _members(architecture: ArchitectureName, modules: Iterable[str]) -> dict[str, str]:
    """Return the modules of an architecture, with their kohya names."""
    table = _table(architecture)
    own = {module: canonical(module, architecture) for module in modules}
    return {module: name for module, name in own.items() if table.holds(name)}


def _fits(layer: ModelLayer | None, size: tuple[int, int] | None, table: counterparts.Table) -> bool:
    """Return whether a module has the size of its layer, or of a part of it."""
    if layer is None or size is None or size[1] != layer.in_ * layer.kernel**2:
        return False
    divided = None if size[0] == layer.out else counterparts.counterpart(table, layer.dotted)
    rows = divided.rows(layer.out) if divided else None
    return size[0] == layer.out or any(size[0] == last - first for first, last in rows or ())


def _stated(architecture: ArchitectureName, metadata: Mapping[str, str]) -> int:
    """Return how many entries of the metadata state the architecture."""
    entry = ARCHITECTURES[architecture]
    stated = (metadata.get("ss_base_model_version"), metadata.get("modelspec.architecture", "").partition("/")[0])
    return sum(text == own for text, own in zip(stated, (entry.base_model_version, entry.modelspec), strict=True))


def _similar(modules: Iterable[str]) -> ArchitectureName:
    """Return the architecture with the most similar module names."""
    first = sorted({_template(module)[0] for module in modules})[:SHOWN]
    best, likeness = next(iter(ARCHITECTURES)), 0.0
    for architecture in ARCHITECTURES:
        for name in _table(architecture).largest:
            for module in first:
                matcher = difflib.SequenceMatcher(None, module, name, autojunk=False)
                if matcher.real_quick_ratio() > likeness and (ratio := matcher.ratio()) > likeness:
                    best, likeness = architecture, ratio
    return best
