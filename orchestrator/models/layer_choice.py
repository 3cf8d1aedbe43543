"""Arguments of sd-scripts' network modules for layers and ranks.

Source: create_network of networks/lora_*.py, sd-scripts v0.10.1.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from orchestrator.models.layers import ModelLayer

_RANGE = re.compile(r"([A-Z]+)(\d+)(?:-(?:([A-Z]+))?(\d+))?")


@dataclass(frozen=True, slots=True)
class LayerChoice:
    """Arguments of a network module for some layers, or other ranks."""

    block_arguments: Mapping[str, str] = field(default_factory=dict)
    """Letters of blocks -> argument with the numbers of those to train, as "0-3,7" or "none"."""
    block_patterns: Mapping[str, str] = field(default_factory=dict)
    """Letters of blocks -> pattern of their layers, {} for the numbers, where only patterns choose blocks."""
    patterns: Literal["", "search", "whole"] = ""
    """How a pattern is compared: searched in lora_unet_…, or with the whole dotted name. Empty: patterns are not taken."""
    excludes: bool = False
    """exclude_patterns and include_patterns are taken."""
    dims: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Argument with a rank -> words that stand in the names of its layers. The first match counts."""
    text_rates: bool = False
    """Each text encoder has a learning rate. False: the trainer takes the first of a list in silence."""
    numbers: tuple[str, ...] = ()
    """Further arguments that take a number."""

    @property
    def by_block(self) -> tuple[str, ...]:
        """Return the letters of the blocks that can be chosen."""
        return (*self.block_arguments, *self.block_patterns)

    def matches(self, pattern: str, layer: ModelLayer) -> bool:
        """Return whether the network module applies a pattern to a layer."""
        if self.patterns == "whole":
            return re.fullmatch(pattern, layer.dotted) is not None
        return re.search(pattern, layer.name) is not None

    def arguments(self, chosen: frozenset[str], all_blocks: Iterable[str]) -> tuple[dict[str, str], dict[str, int]]:
        """Return arguments and rank-0 patterns that train ``chosen`` blocks only."""
        arguments: dict[str, str] = {}
        patterns: dict[str, int] = {}
        for letter in self.by_block:
            numbers = [int(name[len(letter) :]) for name in all_blocks if _letter(name) == letter]
            inside = [number for number in numbers if f"{letter}{number:02}" in chosen]
            outside = [number for number in numbers if number not in inside]
            if letter in self.block_arguments and outside:
                arguments[self.block_arguments[letter]] = _ranges(inside) or "none"
            elif outside:
                patterns[self.block_patterns[letter].format("|".join(map(str, outside)))] = 0
        return arguments, patterns


ALL_LAYERS = LayerChoice()
"""The choice of a network module that takes no such arguments."""


def expand(texts: Iterable[str], all_blocks: tuple[str, ...]) -> frozenset[str]:
    """Return the blocks that a list of names and ranges states.

    Raises:
        ValueError: a text is neither the name of a block nor a range of one letter.

    >>> sorted(expand(["D00-D02", "S01"], ("BASE", "D00", "D01", "D02", "S00", "S01")))
    ['D00', 'D01', 'D02', 'S01']
    """
    chosen: set[str] = set()
    for text in texts:
        match = _RANGE.fullmatch(text)
        if match is None or (match[3] or match[1]) != match[1]:
            raise ValueError(text)
        first, last = int(match[2]), int(match[4] or match[2])
        names = [f"{match[1]}{number:02}" for number in range(first, min(last, len(all_blocks)) + 1)]
        if not names or not set(names) <= set(all_blocks):
            raise ValueError(text)
        chosen.update(names)
    return frozenset(chosen)


def _letter(name: str) -> str:
    return name.rstrip("0123456789")


def _ranges(numbers: list[int]) -> str:
    """Return ascending numbers as 0-3,7."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and parts[-1][-1] == number - 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ",".join(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts)
