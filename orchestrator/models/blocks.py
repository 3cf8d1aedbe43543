"""Block weights: blocks of modules, presets, lists of weights.

A list starts with BASE (the text encoders) and follows the U-Net from IN00 to the last OUT. A short list holds the blocks with
attention only. Recipes are checked with this module, so it needs neither torch nor numpy.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.errors import Problem, RecipeError, near_miss
from orchestrator.models.registry import ARCHITECTURES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestrator.models.registry import ArchitectureName


def names(architecture: ArchitectureName | None) -> tuple[str, ...]:
    """Return the names of all blocks, in the order of a full list of weights.

    An unknown architecture has none.
    """
    return () if architecture is None else ARCHITECTURES[architecture].blocks


def block_of(module: str, architecture: ArchitectureName | None = "sd1") -> str | None:
    """Return the block of a module, or None outside of all blocks.

    Outside are all modules of an unknown architecture, conv_out, and time and label embeddings.

    ``module`` is a kohya name (lora_unet_…), a diffusers path (unet.down_blocks.0…) or a key that starts with either.

    >>> block_of("lora_unet_up_blocks_1_attentions_0_proj_in"), block_of("lora_unet_conv_out")
    ('OUT03', None)
    """
    if architecture is None:
        return None
    name = module.partition(".")[0] if module.startswith("lora_") else module.replace(".", "_")
    entry = ARCHITECTURES[architecture]
    block = entry.block_of(name)
    return block if block in entry.blocks else None


def parse(
    weights: str | Sequence[float],
    architecture: ArchitectureName = "sd1",
    *,
    presets: Mapping[str, Sequence[float]] | None = None,
    unmapped: float = 1.0,
) -> tuple[float, ...]:
    """Return one weight for each block of the architecture.

    Args:
        weights: a list, a text ``v,v,…`` or ``NAME:v,v,…``, the name of a preset, or ``FILE:NAME``, a preset in a file of the
            LoRA block weight extension.
        architecture: of the LoRA.
        presets: named lists besides those of the architecture.
        unmapped: weight of the blocks that a short list leaves out. 1 keeps them as trained (SuperMerger, sd-scripts), 0
            removes them (the extension).

    Raises:
        RecipeError: every problem of the list.

    >>> parse("FACE")[:6]
    (0.0, 1.0, 1.0, 1.0, 1.0, 1.0)
    """
    if isinstance(weights, str):
        weights = _from_text(weights, architecture, presets or {})
    values = tuple(float(value) for value in weights)
    full, short = ARCHITECTURES[architecture].blocks, ARCHITECTURES[architecture].short_blocks
    problems = [
        Problem("block_weights", f"value {position + 1} is {value}", "use a finite number")
        for position, value in enumerate(values)
        if not math.isfinite(value)
    ]
    if len(values) not in (len(full), len(short)):
        problems.append(_wrong_length(values, architecture))
    if problems:
        raise RecipeError(problems)
    if len(values) == len(full):
        return values
    by_name = dict(zip(short, values, strict=True))
    return tuple(by_name.get(name, unmapped) for name in full)


def left_out(
    weights: str | Sequence[float],
    architecture: ArchitectureName = "sd1",
    *,
    presets: Mapping[str, Sequence[float]] | None = None,
) -> tuple[str, ...]:
    """Return the blocks that a short list leaves out.

    >>> left_out([1.0] * 17)[:2]
    ('IN00', 'IN03')
    """
    full = parse(weights, architecture, presets=presets, unmapped=math.nan)
    return tuple(name for name, weight in zip(names(architecture), full, strict=True) if math.isnan(weight))


def preset_name(weights: Sequence[float], architecture: ArchitectureName = "sd1") -> str | None:
    """Return the name of the preset with these weights, or None."""
    values = tuple(float(value) for value in weights)
    return next((name for name, preset in ARCHITECTURES[architecture].presets.items() if preset == values), None)


def read_presets(path: Path) -> dict[str, tuple[float, ...]]:
    """Read a preset file of the LoRA block weight extension.

    It has one ``NAME:v,v,…`` a line. Blank lines and ``#`` are skipped, and lines with random or interpolated values (R, U, X,
    Y, Z), which are not weights.

    Raises:
        RecipeError: the file cannot be read, or a line is not a preset.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(Problem(str(path), f"cannot be read as presets: {error}", "one NAME:v,v,… a line")) from error
    presets: dict[str, tuple[float, ...]] = {}
    problems = []
    for number, line in enumerate(lines, start=1):
        name, colon, numbers = (part.strip() for part in line.partition(":"))
        if not line.strip() or line.lstrip().startswith("#") or re.search(r"(?:^|,)\s*[RUXYZruxyz]\s*(?:,|$)", numbers):
            continue
        try:
            if not (name and colon):
                raise ValueError(line)  # noqa: TRY301 - one message for every line that is not a preset
            presets[name] = tuple(float(number) for number in numbers.split(","))
        except ValueError:
            problems.append(Problem(f"{path}:{number}", f"not a preset: {line.strip()[:60]!r}", "write NAME:v,v,…"))
    if problems:
        raise RecipeError(problems)
    return presets


def _from_text(text: str, architecture: ArchitectureName, presets: Mapping[str, Sequence[float]]) -> Sequence[float]:
    text = text.strip()
    named = {**ARCHITECTURES[architecture].presets, **presets}
    if text in named:
        return named[text]
    head, colon, tail = text.rpartition(":")
    if colon and "," not in tail:
        inside = read_presets(Path(head))
        if tail.strip() in inside:
            return inside[tail.strip()]
        raise RecipeError(Problem("block_weights", f"{head} has no preset {tail.strip()!r}" + near_miss(tail.strip(), inside)))
    numbers = tail if colon else text
    if "," in numbers:
        try:
            return [float(number) for number in numbers.split(",")]
        except ValueError:
            wrong = [number.strip() for number in numbers.split(",") if not _is_number(number)]
            raise RecipeError(
                Problem("block_weights", f"not a number: {', '.join(map(repr, wrong))}", "v,v,… or a preset")
            ) from None
    entry = ARCHITECTURES[architecture]
    counts = " or ".join(map(str, dict.fromkeys((len(entry.blocks), len(entry.short_blocks)))))
    lists = f"{entry.title} takes {counts} values ({entry.blocks[0]} to {entry.blocks[-1]})"
    hint = f"{lists}, or a preset: {', '.join(sorted(named))}"
    others = [other.title for name, other in ARCHITECTURES.items() if name != architecture and text in other.presets]
    hint = f"{text} is a preset of {others[0]}; {hint}" if others else hint
    raise RecipeError(Problem("block_weights", f"no preset is called {text!r}{near_miss(text, named)}", hint))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _wrong_length(values: Sequence[float], architecture: ArchitectureName) -> Problem:
    full, short = ARCHITECTURES[architecture].blocks, ARCHITECTURES[architecture].short_blocks
    lengths = " or ".join(dict.fromkeys((str(len(full)), str(len(short)))))
    message = f"{len(values)} values; {ARCHITECTURES[architecture].title} takes {lengths}"
    others = [entry for name, entry in ARCHITECTURES.items() if name != architecture]
    other = next((entry for entry in others if len(values) in (len(entry.blocks), len(entry.short_blocks))), None)
    hint = f"{len(values)} values are a list of {other.title}" if other else f"in this order: {', '.join(full)}"
    return Problem("block_weights", message, hint)
