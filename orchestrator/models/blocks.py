"""Block weights: which block a module belongs to, the presets of the release, and how lists of weights are read.

A list starts with BASE (the text encoders) and follows the U-Net from IN00 to the last OUT. SD1 has 26 blocks, of which
the 17 with attention are the short form; SDXL has 20 and 12. No torch, no numpy: recipes are checked with this.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from orchestrator.errors import Problem, RecipeError, near_miss

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Architecture = Literal["sd1", "sdxl"]

SD1 = ("BASE", *(f"IN{i:02}" for i in range(12)), "MID", *(f"OUT{i:02}" for i in range(12)))
SD1_SHORT = ("BASE", "IN01", "IN02", "IN04", "IN05", "IN07", "IN08", "MID", *(f"OUT{i:02}" for i in range(3, 12)))
SDXL = ("BASE", *(f"IN{i:02}" for i in range(9)), "MID", *(f"OUT{i:02}" for i in range(9)))
SDXL_SHORT = ("BASE", "IN04", "IN05", "IN07", "IN08", "MID", *(f"OUT{i:02}" for i in range(6)))

_TABLES: dict[Architecture, tuple[tuple[str, ...], tuple[str, ...]]] = {"sd1": (SD1, SD1_SHORT), "sdxl": (SDXL, SDXL_SHORT)}
_TITLES: dict[Architecture, str] = {"sd1": "SD1.5", "sdxl": "SDXL"}


def _weights(text: str) -> tuple[float, ...]:
    return tuple(float(value) for value in text.split(","))


#  BASE, IN00..IN11, MID, OUT00..OUT11
FACE = _weights("0, 1,1,1,1,1,0,0,0,1,0,0,0, 0, 1,0,1,1,1,0,1,1,1,0,0,1")
BODY = _weights("0, 1,1,1,0,1,0,0,0,1,0,0,0, 0, 0,0,1,1,1,1,1,1,1,0,0,1")
BODY_HALF = _weights("0, 0.5,0.5,0.5,0,0,0,0,0,1,0,0,0, 0.5, 0,0,0.5,1,1,0.5,0.5,0.5,0.5,0,0,0.5")

PRESETS: dict[Architecture, dict[str, tuple[float, ...]]] = {
    "sd1": {"FACE": FACE, "BODY": BODY, "BODY_HALF": BODY_HALF, "ALL": (1.0,) * 26},
    "sdxl": {"ALL": (1.0,) * 20},
}
"""FACE and BODY made the release; BODY_HALF is the fractional one that its author wanted and no tool could merge."""

_TEXT_ENCODER = re.compile(r"(?:^|_)(?:lora_te\d?|text_encoder(?:_2)?|te[12]?)_|text_model_|embedders_|transformer_resblocks_")
_DIFFUSERS = re.compile(r"(?:^|_)(up|down)_blocks_(\d+)_(resnets|attentions|upsamplers|downsamplers)_(\d+)(?:_|$)")
_COMPVIS = re.compile(r"(?:^|_)(input|output)_blocks_(\d+)_")
_MIDDLE = re.compile(r"(?:^|_)(?:mid_block|middle_block)_")
_CONV_IN = re.compile(r"(?:^|_)conv_in$")
_SDXL = re.compile(
    r"lora_te[12]_|text_encoder_2_|te[12]_text_model|_(?:input_blocks|output_blocks|middle_block)_\d|label_emb|add_embedding"
    r"|_transformer_blocks_[1-9]"
)


def names(architecture: Architecture) -> tuple[str, ...]:
    """Return the names of all blocks in the order of a full list: 26 on SD1, 20 on SDXL."""
    return _TABLES[architecture][0]


def block_of(module: str, architecture: Architecture = "sd1") -> str | None:
    """Return the block of a module, or None for what belongs to none (conv_out, time and label embeddings).

    ``module`` is a kohya name (lora_unet_…), a diffusers path (unet.down_blocks.0…) or a key that starts with either.
    Source: the table that sd-scripts, sd-webui-lora-block-weight and SuperMerger share.

    >>> block_of("lora_unet_up_blocks_1_attentions_0_proj_in"), block_of("lora_unet_conv_out")
    ('OUT03', None)
    """
    name = module.partition(".")[0] if module.startswith("lora_") else module.replace(".", "_")
    found: str | None = None
    if _TEXT_ENCODER.search(name):
        found = "BASE"
    elif match := _DIFFUSERS.search(name):
        side, level, part, index = match[1], int(match[2]), match[3], int(match[4])
        if side == "down":
            found = f"IN{3 * (level + 1) if part == 'downsamplers' else 3 * level + index + 1:02}"
        else:
            found = f"OUT{3 * level + 2 if part == 'upsamplers' else 3 * level + index:02}"
    elif match := _COMPVIS.search(name):
        found = f"{'IN' if match[1] == 'input' else 'OUT'}{int(match[2]):02}"
    elif _MIDDLE.search(name):
        found = "MID"
    elif _CONV_IN.search(name):
        found = "IN00"
    return found if found in _TABLES[architecture][0] else None


def architecture_of(modules: Iterable[str]) -> Architecture:
    """Tell SDXL from SD1 by its module names: two text encoders, compvis names, or deep transformers."""
    return "sdxl" if any(_SDXL.search(module.replace(".", "_")) for module in modules) else "sd1"


def parse(
    weights: str | Sequence[float],
    architecture: Architecture = "sd1",
    *,
    presets: Mapping[str, Sequence[float]] | None = None,
    unmapped: float = 1.0,
) -> tuple[float, ...]:
    """Return one weight per block: 26 on SD1, 20 on SDXL.

    ``weights`` is a list; a text ``v,v,…`` or ``NAME:v,v,…``; the name of a preset; or ``FILE:NAME``, a preset in a file of
    the LoRA block weight extension. Short lists (17 on SD1, 12 on SDXL) name the blocks with attention; the others become
    ``unmapped``: 1 leaves them as trained (SuperMerger, sd-scripts), 0 removes them (the extension).

    Raises RecipeError with every problem of the list.

    >>> parse("FACE")[:6]
    (0.0, 1.0, 1.0, 1.0, 1.0, 1.0)
    """
    if isinstance(weights, str):
        weights = _from_text(weights, architecture, presets or {})
    values = tuple(float(value) for value in weights)
    full, short = _TABLES[architecture]
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
    given = dict(zip(short, values, strict=True))
    return tuple(given.get(name, unmapped) for name in full)


def left_out(
    weights: str | Sequence[float], architecture: Architecture = "sd1", *, presets: Mapping[str, Sequence[float]] | None = None
) -> tuple[str, ...]:
    """Return the blocks that a short list leaves out, so that ``unmapped`` is their weight; none for a full list.

    >>> left_out([1.0] * 17)[:2]
    ('IN00', 'IN03')
    """
    full = parse(weights, architecture, presets=presets, unmapped=math.nan)
    return tuple(name for name, weight in zip(names(architecture), full, strict=True) if math.isnan(weight))


def preset_name(weights: Sequence[float], architecture: Architecture = "sd1") -> str | None:
    """Return the preset that these weights are, if any."""
    values = tuple(float(value) for value in weights)
    return next((name for name, preset in PRESETS[architecture].items() if preset == values), None)


def read_presets(path: Path) -> dict[str, tuple[float, ...]]:
    """Read a preset file of the LoRA block weight extension: one ``NAME:v,v,…`` a line; blank lines and ``#`` are skipped.

    Lines that hold random or interpolated values (R, U, X, Y, Z) are not weights and are left out. Raises RecipeError where
    the file cannot be read or a line is nothing of that kind.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(Problem(str(path), f"cannot be read as presets: {error}", "one NAME:v,v,… a line")) from error
    found: dict[str, tuple[float, ...]] = {}
    problems = []
    for number, line in enumerate(lines, start=1):
        name, colon, numbers = (part.strip() for part in line.partition(":"))
        if not line.strip() or line.lstrip().startswith("#") or re.search(r"(?:^|,)\s*[RUXYZruxyz]\s*(?:,|$)", numbers):
            continue
        try:
            if not (name and colon):
                raise ValueError(line)  # noqa: TRY301 - one answer to every line that is no preset
            found[name] = tuple(float(number) for number in numbers.split(","))
        except ValueError:
            problems.append(Problem(f"{path}:{number}", f"not a preset: {line.strip()[:60]!r}", "write NAME:v,v,…"))
    if problems:
        raise RecipeError(problems)
    return found


def _from_text(text: str, architecture: Architecture, presets: Mapping[str, Sequence[float]]) -> Sequence[float]:
    text = text.strip()
    known = {**PRESETS[architecture], **presets}
    if text in known:
        return known[text]
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
    elsewhere = [_TITLES[other] for other, table in PRESETS.items() if other != architecture and text in table]
    hint = f"{text} is a preset of {elsewhere[0]}" if elsewhere else f"presets: {', '.join(sorted(known))}"
    raise RecipeError(Problem("block_weights", f"no preset is called {text!r}{near_miss(text, known)}", hint))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _wrong_length(values: Sequence[float], architecture: Architecture) -> Problem:
    full, short = _TABLES[architecture]
    what = f"{len(values)} values; {_TITLES[architecture]} takes {len(full)} or {len(short)}"
    other = next((a for a, tables in _TABLES.items() if a != architecture and len(values) in map(len, tables)), None)
    hint = f"{len(values)} values are a list of {_TITLES[other]}" if other else f"in this order: {', '.join(full)}"
    return Problem("block_weights", what, hint)
