"""Blocks of modules, and presets of block weights.

Blocks start with BASE (the text encoders) and follow the network. Neither torch nor numpy is needed.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from orchestrator.errors import Problem, RecipeError
from orchestrator.models.registry import ARCHITECTURES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

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


def part_of(module: str, architecture: ArchitectureName) -> str | None:
    """Return the part of a block, or outside of all, that a module belongs to.

    >>> part_of("lora_te3_encoder_block_0_layer_0_SelfAttention_q", "flux"), part_of("lora_unet_img_in", "flux")
    ('TE3', 'IN')
    """
    parts = ARCHITECTURES[architecture].parts
    return next((name for name, part in parts.items() if re.match(part.modules, module)), None)


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
        reason = getattr(error, "strerror", None) or error
        raise RecipeError(Problem(str(path), f"cannot be read as presets: {reason}", "one NAME:v,v,… a line")) from error
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
