"""Names of the layers of each architecture, for modules of LoRA files."""

from __future__ import annotations

import functools
import re
from collections import Counter
from typing import TYPE_CHECKING

from orchestrator.models import counterparts, names, unet_names
from orchestrator.models.layers import layers
from orchestrator.models.registry import ARCHITECTURES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from orchestrator.models.layers import ModelLayer
    from orchestrator.models.registry import ArchitectureName

_NUMBER = re.compile(r"(?<=_)[0-9]{1,6}(?=_)")  # one at the end belongs to the layer's name, as in mlp_2
_NORM = re.compile(r"(?:[a-z][a-z0-9]*_)?(?:layer_?)?norm\w*|ln\w*|in_layers_0|out_layers_0")
_TEXT = re.compile(r"text_model_(?:embeddings_(?:token|position)_embedding|final_layer_norm)|text_projection")


class Table:
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
        """Return the largest numbers in the names of layers."""
        around = {f"lora_unet_{name}" for name in unet_names.ALONE} if names.translates(self._architecture) else set()
        if names.translates(self._architecture) and not ARCHITECTURES[self._architecture].stability_names:
            around = {f"lora_unet_{unet_names.to_diffusers(name.removeprefix('lora_unet_'))}" for name in around}
        around |= {f"lora_unet_{name}" for name in ARCHITECTURES[self._architecture].outside}
        outside = (path for path in ARCHITECTURES[self._architecture].diffusers if "#" not in path)
        return _largest((*self.exact, *around, *(f"lora_unet_{path}".replace(".", "_") for path in outside)))

    @functools.cached_property
    def by_template(self) -> Mapping[str, ModelLayer]:
        """Return the layers by name, numbers replaced."""
        return {template(name)[0]: layer for name, layer in self.exact.items()}

    @functools.cached_property
    def parents(self) -> Mapping[str, tuple[int, ...]]:
        """Return the largest numbers in the names of modules around layers.

        Each name ends in _.
        """
        parents = set()
        for layer in self.exact.values():
            prefix = layer.name.removesuffix(layer.dotted.replace(".", "_")).rstrip("_")
            words = layer.dotted.split(".")
            parents |= {f"{prefix}_{'_'.join(words[:count])}_" if count else f"{prefix}_" for count in range(len(words))}
        return _largest(parents)

    def holds(self, name: str) -> bool:
        """Return whether a module of this name belongs to the architecture."""
        if name in self.exact or within(name, self.largest):
            return True
        prefix = next((prefix for prefix in self.text if name.startswith(f"{prefix}_")), None)
        if prefix and _TEXT.fullmatch(name.removeprefix(f"{prefix}_")):
            return True
        words = name.split("_")
        return any(
            _NORM.fullmatch("_".join(words[-count:])) and within(f"{'_'.join(words[:-count])}_", self.parents)
            for count in range(1, min(5, len(words)))
        )


def template(name: str) -> tuple[str, tuple[int, ...]]:
    """Return a name with # for each number inside it, and the numbers."""
    return _NUMBER.sub("#", name), tuple(map(int, _NUMBER.findall(name)))


def within(name: str, largest: Mapping[str, tuple[int, ...]]) -> bool:
    """Return whether no number of a name is above its largest."""
    pattern, numbers = template(name)
    limits = largest.get(pattern)
    if limits is None or len(limits) != len(numbers):  # a name in a file may hold the sign of a number itself
        return False
    return all(number <= limit for number, limit in zip(numbers, limits, strict=True))


def _largest(all_names: Iterable[str]) -> dict[str, tuple[int, ...]]:
    largest: dict[str, tuple[int, ...]] = {}
    for name in all_names:
        pattern, numbers = template(name)
        largest[pattern] = tuple(map(max, numbers, largest.get(pattern, numbers)))
    return largest


table = functools.cache(Table)
"""Return the table of an architecture."""


@functools.cache
def _roots() -> Mapping[str, frozenset[ArchitectureName]]:
    """Return the architectures with layers below each first name."""
    roots: dict[str, set[ArchitectureName]] = {}
    for architecture, entry in ARCHITECTURES.items():
        for layer in entry.model.unet_layers(entry.model):
            roots.setdefault(layer.dotted.partition(".")[0], set()).add(architecture)
    for architecture, entry in ARCHITECTURES.items():
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


def possible(plain: Iterable[str]) -> dict[ArchitectureName, int]:
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
    own = table(architecture)
    if name in own.exact:
        return own.exact[name]
    return own.by_template.get(template(name)[0]) if within(name, own.largest) else None


def beyond(name: str, architecture: ArchitectureName) -> bool:
    """Return whether a layer's number is beyond the architecture."""
    return template(name)[0] in table(architecture).by_template and layer(name, architecture) is None
