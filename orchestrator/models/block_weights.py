"""Read block weights: lists, ranges, presets, lists of other tools.

Recipes, requests of steps and the command line all have this one reader. It needs neither torch nor numpy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.errors import Problem, RecipeError, near_miss
from orchestrator.models import blocks, named_blocks
from orchestrator.models.registry import ARCHITECTURES

if TYPE_CHECKING:
    from orchestrator.models.architecture import Architecture
    from orchestrator.models.registry import ArchitectureName

Presets = Mapping[str, Sequence[float]]
Given = str | Sequence[float] | Mapping[str, float]
"""Text, list, or table of names and ranges."""
_KEY = "block_weights"


@dataclass(frozen=True, slots=True)
class BlockWeights:
    """A weight for each block of an architecture, and for named parts."""

    architecture: ArchitectureName
    values: tuple[float, ...]
    """Weight of each block, in their order."""
    outside: float
    """Weight of the modules outside of all blocks."""
    parts: Mapping[str, float]
    """Weights of parts that differ from the weight of their block."""
    left_out: tuple[str, ...]
    """Blocks that a short list or a table leaves out."""

    def of(self, module: str, block: str | None) -> float:
        """Return the weight of a module.

        Args:
            module: its kohya name.
            block: its block. None: it is outside of all blocks.
        """
        if (part := self.part_of(module)) is not None:
            return self.parts[part]
        return self.outside if block is None else self.values[blocks.names(self.architecture).index(block)]

    def part_of(self, module: str) -> str | None:
        """Return a module's part with a weight of its own, or None."""
        part = blocks.part_of(module, self.architecture) if self.parts else None
        return part if part in self.parts else None

    def by_name(self) -> dict[str, float]:
        """Return the weights by the names of blocks and parts."""
        return {**dict(zip(blocks.names(self.architecture), self.values, strict=True)), **self.parts}

    def block_of(self, part: str) -> str:
        """Return the block of a part, or "" outside of all blocks."""
        return ARCHITECTURES[self.architecture].parts[part].block

    def least(self, block: str) -> float:
        """Return the smallest absolute weight of anything in a block."""
        return min(map(abs, self._inside(block)))

    def most(self, block: str) -> float:
        """Return the largest absolute weight of anything in a block."""
        return max(map(abs, self._inside(block)))

    def _inside(self, block: str) -> list[float]:
        inside = [name for name, part in ARCHITECTURES[self.architecture].parts.items() if part.block == block]
        return [self.by_name()[block], *(self.parts[name] for name in inside if name in self.parts)]

    @property
    def preset(self) -> str | None:
        """Return the name of the preset with these weights, or None."""
        return None if self.parts else blocks.preset_name(self.values, self.architecture)

    def plain(self) -> list[float] | dict[str, float]:
        """Return a list for JSON, or a table if parts have their own weights."""
        return self.by_name() if self.parts else list(self.values)

    def text(self) -> str:
        """Return the shortest text that gives these weights again."""
        if self.preset:
            return self.preset
        entry = ARCHITECTURES[self.architecture]
        if self.parts or entry.denoiser != "U-Net":  # lists are usual for U-Nets alone
            return named_blocks.text(self.by_name(), entry)
        return ",".join(map(named_blocks.number, self.values))


def parse(
    weights: Given,
    architecture: ArchitectureName = "sd1",
    *,
    order: str = "",
    presets: Presets | None = None,
    unmapped: float = 1.0,
) -> BlockWeights:
    """Return one weight for each block of the architecture.

    Args:
        weights: a list, a table ``{"D00-D06": 0.5, "S": 0}``, or a text: ``v,v,…``, ``NAME:v,v,…``, ``D00-D06=0.5,S=0``, the
            name of a preset, or ``FILE:NAME``, a preset in a file of the LoRA block weight extension.
        architecture: of the LoRA.
        order: the other tool's order that a list has: a key of the architecture's ``orders``.
        presets: named lists besides those of the architecture.
        unmapped: weight of all that is not given: blocks missing from a short list or a table, modules outside of all blocks.
            1 keeps them as trained, 0 removes them.

    Raises:
        RecipeError: every problem of the weights.

    >>> parse("FACE").values[:6]
    (0.0, 1.0, 1.0, 1.0, 1.0, 1.0)
    >>> parse("BASE=0,D00-D06=0.5", "flux").by_name()["D06"]
    0.5
    """
    entry = ARCHITECTURES[architecture]
    unknown = [_unknown_order(order, entry)] if order and order not in entry.orders else []
    if not math.isfinite(unmapped):
        unknown.append(Problem("unmapped", f"is {unmapped}", "use a finite number"))
    if isinstance(weights, str) and not unknown:
        weights = _from_text(weights, entry, presets or {}, order)
    if order and isinstance(weights, Mapping):
        unordered = Problem(_KEY, f"has names, and so no order; {order} is for a list", "leave the order out")
        raise RecipeError([*(unknown or [unordered]), *named_blocks.problems(weights, entry)])
    if unknown:
        raise RecipeError(unknown)
    if isinstance(weights, Mapping):
        return _of_given(named_blocks.expand(weights, entry), architecture, unmapped, unmapped)
    values = tuple(float(value) for value in weights)
    names = entry.orders[order].names if order else entry.blocks if len(values) == len(entry.blocks) else entry.short_blocks
    problems = [
        Problem(_KEY, f"value {position + 1} is {value}", "use a finite number")
        for position, value in enumerate(values)
        if not math.isfinite(value)
    ]
    if len(values) != len(names):
        problems.append(_wrong_length(values, entry, order))
    if problems:
        raise RecipeError(problems)
    given = dict(zip(names, values, strict=True))
    if not order:
        return _of_given(given, architecture, unmapped, unmapped)
    if entry.orders[order].by_position:
        return _of_given(given, architecture, values[-1], values[0])
    return _of_given(given, architecture, 0.0, unmapped)


def _of_given(given: Mapping[str, float], architecture: ArchitectureName, rest: float, outside: float) -> BlockWeights:
    """Return block weights from those that are given. All others are ``rest``."""
    entry = ARCHITECTURES[architecture]
    parts = {name: weight for name, weight in given.items() if name in entry.parts}
    values, left_out = [], []
    for block in entry.blocks:
        inside = [name for name, part in entry.parts.items() if part.block == block]
        whole = bool(inside) and parts.keys() >= set(inside)
        values.append(given.get(block, parts[inside[0]] if whole else rest))
        left_out += [] if block in given or whole else [block]
    block_weights = {**dict(zip(entry.blocks, values, strict=True)), "": outside}
    parts = {name: weight for name, weight in parts.items() if weight != block_weights[entry.parts[name].block]}
    return BlockWeights(architecture, tuple(values), outside, parts, tuple(left_out))


def _from_text(text: str, entry: Architecture, presets: Presets, order: str) -> Sequence[float] | Mapping[str, float]:
    text = text.strip()
    named = {**entry.presets, **presets}
    if text in named:
        return named[text]
    if "=" in text and not Path(text.rpartition(":")[0]).is_file():
        return named_blocks.read(text, entry)
    head, colon, tail = text.rpartition(":")
    if colon and _is_number(tail) and not Path(head).is_file():
        raise RecipeError(Problem(_KEY, f"{text!r} is not NAME=v", f"write {text.replace(':', '=')}"))
    if colon and "," not in tail:
        inside = blocks.read_presets(Path(head))
        if tail.strip() in inside:
            return inside[tail.strip()]
        raise RecipeError(Problem(_KEY, f"{head} has no preset {tail.strip()!r}" + near_miss(tail.strip(), inside)))
    numbers = tail if colon else text
    if "," in numbers:
        try:
            return [float(number) for number in numbers.split(",")]
        except ValueError:
            wrong = [number.strip() for number in numbers.split(",") if not _is_number(number)]
            raise RecipeError(Problem(_KEY, f"not a number: {', '.join(map(repr, wrong))}", "v,v,… or a preset")) from None
    hint = f"{_takes(entry, order)}, names as {named_blocks.example(entry)}, or a preset: {', '.join(sorted(named))}"
    others = [other.title for other in ARCHITECTURES.values() if other is not entry and text in other.presets]
    hint = f"{text} is a preset of {others[0]}; {hint}" if others else hint
    raise RecipeError(Problem(_KEY, f"no preset is called {text!r}{near_miss(text, named)}", hint))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _takes(entry: Architecture, order: str) -> str:
    """Return the lengths and ends of the lists that an architecture takes."""
    if order:
        names = entry.orders[order].names
        return f"{order} of {entry.title} takes {len(names)} values ({names[0]} to {names[-1]})"
    counts = " or ".join(map(str, dict.fromkeys((len(entry.blocks), len(entry.short_blocks)))))
    return f"{entry.title} takes {counts} values ({entry.blocks[0]} to {entry.blocks[-1]})"


def _unknown_order(order: str, entry: Architecture) -> Problem:
    has = (
        f"{entry.title} has {', '.join(entry.orders)}" if entry.orders else f"{entry.title} has none: no other tool has a list"
    )
    others = [other.title for other in ARCHITECTURES.values() if order in other.orders]
    what = (
        f"{order!r} is an order of {', '.join(others)}"
        if others
        else f"{order!r} is not an order{near_miss(order, entry.orders)}"
    )
    return Problem("order", what, has)


def _wrong_length(values: Sequence[float], entry: Architecture, order: str) -> Problem:
    if order:
        return Problem(
            _KEY, f"{len(values)} values; {_takes(entry, order)}", f"in this order: {', '.join(entry.orders[order].names)}"
        )
    lengths = " or ".join(dict.fromkeys((str(len(entry.blocks)), str(len(entry.short_blocks)))))
    message = f"{len(values)} values; {entry.title} takes {lengths}"
    if orders := [name for name, one in entry.orders.items() if len(one.names) == len(values)]:
        return Problem(_KEY, message, f"a list of another tool? name its order: {' or '.join(orders)}")
    others = [other for other in ARCHITECTURES.values() if other is not entry]
    other = next((other for other in others if len(values) in (len(other.blocks), len(other.short_blocks))), None)
    hint = f"{len(values)} values are a list of {other.title}" if other else f"in this order: {', '.join(entry.blocks)}"
    return Problem(_KEY, message, hint)
