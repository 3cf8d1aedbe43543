"""Recognize the architecture of a LoRA file by the names of its modules.

Each architecture counts the modules that belong to its layers. A module belongs to a layer of the same name whose numbers are
not beyond the architecture's, so that smaller models of the same structure belong too; but not a module of a real model's size
that its layer does not have. No architecture is a default.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.errors import counted
from orchestrator.models import counterparts, known_layers, names, relatives
from orchestrator.models.registry import ARCHITECTURES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from orchestrator.models.architecture import DepthVariant
    from orchestrator.models.layers import ModelLayer
    from orchestrator.models.registry import ArchitectureName

SHOWN = 3
_REAL = 512
"""Smaller side from which a module is of a real model, and not of a small one for tests."""
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
    other: str = ""
    """Clause about another model that the file is for, or may be for."""
    misfit: str = ""
    """A module of another size than its layer, with both sizes."""

    @property
    def title(self) -> str:
        """Title of the architecture for messages, or unknown."""
        return "unknown architecture" if self.architecture is None else ARCHITECTURES[self.architecture].title

    @property
    def deeper(self) -> DepthVariant | None:
        """Variant with inserted blocks that has all unknown modules, or None."""
        if self.architecture is None or not self.unknown:
            return None
        numbers: list[int] = []
        for module in self.unknown:
            if (number := _block_beyond(module, self.architecture)) is None:
                return None
            numbers.append(number)
        return next((each for each in ARCHITECTURES[self.architecture].variants if max(numbers) < each.blocks), None)

    def to_json(self) -> dict[str, Any]:
        """Return the doubt about the file as plain JSON."""
        return {"nearest": self.nearest, "unknown": list(self.unknown), "explanation": self.explain()}

    def explain(self) -> str:
        """Return the doubt about a file in one sentence, or ""."""
        if not self.unknown:
            return ""
        shown = ", ".join(self.unknown[:SHOWN]) + (" …" if len(self.unknown) > SHOWN else "")
        title = ARCHITECTURES[self.nearest].title
        if self.other:
            return f"unknown architecture: {shown}; {self.other}"
        sizes = f"; {self.misfit}" if self.misfit else ""
        if (variant := self.deeper) is not None:
            blocks = f"{variant.title}, a variant of {title} with {variant.blocks} blocks"
            outside = f"{len(self.unknown)} of {counted(self.modules, 'module', 'are')} in blocks that {title} lacks"
            return f"{outside}: {shown}; it is for {blocks}"
        if self.architecture is not None:
            return f"{len(self.unknown)} of {counted(self.modules, 'module', 'belong')} to no layer of {title}: {shown}{sizes}"
        foreign = next((what for pattern, what in _FOREIGN if pattern.match(self.unknown[0])), "")
        nearest = (
            f"the nearest is {title}, with layers for {self.modules - len(self.unknown)} of {counted(self.modules, 'module')}"
        )
        return f"unknown architecture: {shown}{f' ({foreign})' if foreign else ''}; {nearest}{sizes}"


def _block_beyond(module: str, architecture: ArchitectureName) -> int | None:
    """Return the block of a module beyond the architecture's last, or None."""
    name = names.kohya(module, architecture)
    match = re.match(r"lora_unet_blocks_([0-9]{1,4})_", name)
    return int(match[1]) if match and known_layers.beyond(name, architecture) else None


def canonical(module: str, architecture: ArchitectureName | None) -> str:
    """Return a module's kohya name without wrappers of LyCORIS."""
    return names.kohya(module, architecture)


def recognize(
    modules: Iterable[str],
    *,
    sizes: Mapping[str, tuple[int, int]] | None = None,
    metadata: Mapping[str, str] | None = None,
    before: str = "",
) -> Recognition:
    """Return the architecture to which the most modules of a file belong.

    More than half of the modules must belong to it, text encoders, which architectures share, aside. Equal counts are decided
    by the sizes of the modules, then by the metadata, then by the names that need no translation.

    Args:
        modules: names in the file.
        sizes: (outputs, inputs) of their weights by module, as far as they are known.
        metadata: of the file.
        before: the architecture by which an earlier conversion named the modules, or "".
    """
    modules, sizes, metadata = list(modules), sizes or {}, metadata or {}
    plain = {module: canonical(module, None) for module in modules}
    possible = known_layers.possible(plain.values())
    first = max(possible, key=possible.__getitem__)
    members = {first: _members(first, modules, sizes)}
    best: ArchitectureName = next(iter(ARCHITECTURES))
    score, held = (-1, 0, 0, 0, False), set[str]()
    for architecture in ARCHITECTURES:
        if possible[architecture] < len(members[first]):
            continue  # without a look at its names
        own = members.get(architecture) or _members(architecture, modules, sizes)
        exact, parts = known_layers.table(architecture).exact, ARCHITECTURES[architecture].diffusers
        fits = sum(_fits(exact.get(name), sizes.get(module), parts) for module, name in own.items())
        native = sum(name == plain[module] for module, name in own.items())
        covered = {name for name, layer in exact.items() if not layer.text} <= set(own.values())
        candidate = (len(own), fits, _stated(architecture, metadata, before), native, covered)
        twin = ARCHITECTURES[architecture].model == ARCHITECTURES[best].model  # FLUX.1-schnell and dev, the usual one
        if candidate > score or (twin and candidate == score):
            best, score, held = architecture, candidate, set(own)
    unknown = tuple(module for module in modules if module not in held)
    network = [module for module in modules if not plain[module].startswith("lora_te")] or modules
    other = _other(best, {module: plain[module] for module in network}, sizes, metadata, whole=not unknown)
    if other and best != before:
        return Recognition(None, best, len(modules), unknown or tuple(network), other)
    enough = 2 * sum(module in held for module in network) > len(network)
    nearest = best if held else _similar(plain.values())
    return Recognition(best if enough else None, nearest, len(modules), unknown, misfit=_misfit(nearest, unknown, sizes))


def _other(
    best: ArchitectureName,
    network: Mapping[str, str],
    sizes: Mapping[str, tuple[int, int]],
    metadata: Mapping[str, str],
    *,
    whole: bool,
) -> str:
    """Return a clause about another model that a file may be for, or "".

    Args:
        best: the architecture with the most modules.
        network: names without a convention by module.
        sizes: of the modules.
        metadata: of the file.
        whole: whether all modules belong to ``best``.
    """
    if _stated(best, metadata):
        return ""
    if stated := relatives.stating(metadata):
        return f"its metadata state {stated.title}, which is not one of those here"
    own = {name.removeprefix("lora_unet_"): sizes.get(module) for module, name in network.items()}
    if not whole:
        other = relatives.of_modules(own)
        return f"it is for {other.title}, which is not one of those here" if other else ""
    alike = relatives.equally(own)
    return (
        f"{ARCHITECTURES[best].title} and {alike.title} both have such layers, and its metadata state neither" if alike else ""
    )


def _misfit(architecture: ArchitectureName, modules: Iterable[str], sizes: Mapping[str, tuple[int, int]]) -> str:
    """Return the first module of another size than its layer, or ""."""
    exact = known_layers.table(architecture).exact
    for module in modules:
        layer, size = exact.get(canonical(module, architecture)), sizes.get(module)
        if layer is not None and size is not None:
            return f"{module} is {size[0]} x {size[1]}, the layer {layer.out} x {layer.in_ * layer.kernel**2}"
    return ""


def _members(architecture: ArchitectureName, modules: Iterable[str], sizes: Mapping[str, tuple[int, int]]) -> dict[str, str]:
    """Return the modules of an architecture, with their kohya names."""
    table = known_layers.table(architecture)
    parts = ARCHITECTURES[architecture].diffusers
    own = {module: canonical(module, architecture) for module in modules}
    return {
        module: name
        for module, name in own.items()
        if table.holds(name) and not _misfits(table.exact.get(name), sizes.get(module), parts)
    }


def _misfits(layer: ModelLayer | None, size: tuple[int, int] | None, table: counterparts.Table) -> bool:
    """Return whether a module of a real model has another size than its layer."""
    if layer is None or layer.text or size is None or min(size) < _REAL:
        return False
    return not _fits(layer, size, table)


def _fits(layer: ModelLayer | None, size: tuple[int, int] | None, table: counterparts.Table) -> bool:
    """Return whether a module has the size of its layer, or of a part of it."""
    if layer is None or size is None or size[1] != layer.in_ * layer.kernel**2:
        return False
    divided = None if size[0] == layer.out else counterparts.counterpart(table, layer.dotted)
    rows = divided.rows(layer.out) if divided else None
    return size[0] == layer.out or any(size[0] == last - first for first, last in rows or ())


def _stated(architecture: ArchitectureName, metadata: Mapping[str, str], before: str = "") -> int:
    """Return how many entries of the metadata state the architecture.

    An earlier conversion was sure of it, and counts more than all.
    """
    entry = ARCHITECTURES[architecture]
    stated = (metadata.get("ss_base_model_version"), metadata.get("modelspec.architecture", "").partition("/")[0])
    agreeing = sum(text == own for text, own in zip(stated, (entry.base_model_version, entry.modelspec), strict=True))
    return agreeing + (len(stated) + 1) * (architecture == before)


def _similar(modules: Iterable[str]) -> ArchitectureName:
    """Return the architecture with the most similar module names."""
    first = sorted({known_layers.template(module)[0] for module in modules})[:SHOWN]
    best, likeness = next(iter(ARCHITECTURES)), 0.0
    for architecture in ARCHITECTURES:
        for name in known_layers.table(architecture).largest:
            for module in first:
                matcher = difflib.SequenceMatcher(None, module, name, autojunk=False)
                if matcher.real_quick_ratio() > likeness and (ratio := matcher.ratio()) > likeness:
                    best, likeness = architecture, ratio
    return best
