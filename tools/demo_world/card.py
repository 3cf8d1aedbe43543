"""The model card of the base, with the learning curves of its parts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.errors import Problem, RecipeError
from tools.demo_world import vocabulary as words
from tools.demo_world.base_parts import IMAGE_SIZE, LATENT_SIZE, UNET, VAE

if TYPE_CHECKING:
    from collections.abc import Sequence

_BEGAN = """
FOLDER is the base of the rows above the last one. Its VAE is unchanged here, and its text encoder and U-Net were the start
of the last row. Without `--start` the same command trains all parts from random weights.
"""
_BARS = "▁▂▃▄▅▆▇█"


def spark(values: Sequence[float]) -> str:
    """Draw a curve in one line of text, at most 60 characters."""
    step = max(1, len(values) // 60)
    means = [sum(values[at : at + step]) / len(values[at : at + step]) for at in range(0, len(values), step)]
    low, high = min(means), max(means)
    return "".join(_BARS[min(7, int(8 * (value - low) / (high - low or 1.0)))] for value in means)


@dataclass(frozen=True, slots=True)
class LearningCurve:
    """The training of one part: minutes, and (step, loss) at intervals."""

    minutes: float
    log: list[tuple[int, float]]

    def row(self, name: str) -> str:
        """Return the row of the card's table."""
        losses = [loss for _, loss in self.log]
        return (
            f"| {name} | {self.log[-1][0]:,} | {self.minutes:.0f} | {losses[0]:.3f} | {losses[-1]:.3f} | `{spark(losses)}` |"
        )


def table_of(folder: Path) -> tuple[str, ...]:
    """Return the rows of a base's card that describe its training.

    Raises:
        RecipeError: the folder has no such card.
    """
    file = folder / "README.md"
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    rows = tuple(line for line in lines if line.startswith(("| VAE |", "| text encoder")))
    if not rows:
        raise RecipeError(
            Problem(str(file), "does not describe the training of this base", "a folder that `base --out` has written")
        )
    return rows


def with_row(folder: Path, row: str) -> None:
    """Add a row to a base's card, or replace that of the same part."""
    file = folder / "README.md"
    part = row.split("|")[1]
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if not line.startswith(f"|{part}|")]
    last = max(number for number, line in enumerate(lines) if line in table_of(folder))
    file.write_text("\n".join([*lines[: last + 1], row, *lines[last + 1 :], ""]), encoding="utf-8")


def card(seed: int, planned: float, rows: Sequence[str], *, started: bool) -> str:
    """Return the model card as Markdown.

    Args:
        seed: of the training.
        planned: minutes.
        rows: of its table.
        started: the last row began from another base.
    """
    text = Path(__file__).with_name("card.md").read_text(encoding="utf-8")
    colours, lengths, eyes, ears = words.HAIR_COLOURS, words.HAIR_LENGTHS, words.EYE_COLOURS, words.EAR_COLOURS
    tags = {
        "class": f"{words.CLASS_WORD}; {words.CLASS_WORD_TWO}",
        "hair": f"{_each(colours, 'hair')}; {_each(lengths, 'hair')}",
        "eyes": _each(eyes, "eyes"),
        "ears": _each(ears, "ears"),
        "neck": words.CHOKER,
        "clothes": ", ".join(words.CLOTHES),
        "background": f"{words.SIMPLE_BACKGROUND}, {_each(words.BACKGROUNDS, 'background')}",
        "height, direction": f"{', '.join(filter(None, words.HEIGHTS))}; {', '.join(dict.fromkeys(words.DIRECTIONS))}",
        "framing": ", ".join(words.FRAMINGS.values()),
        "pose, gaze": f"{', '.join(words.POSES)}; {', '.join(dict.fromkeys(words.GAZES))}",
        "expression": ", ".join(words.EXPRESSIONS),
    }
    return text.format(
        image=IMAGE_SIZE,
        latent=LATENT_SIZE,
        unet="/".join(str(width) for width in UNET["block_out_channels"]),
        vae="/".join(str(width) for width in VAE["block_out_channels"]),
        seed=seed,
        minutes=f"{planned:.0f}",
        start=" --start FOLDER" if started else "",
        began=_BEGAN if started else "",
        courses="\n".join(rows),
        words="\n".join(f"| {name} | {values} |" for name, values in tags.items()),
    )


def _each(first: Sequence[str], second: str) -> str:
    return ", ".join(f"{word} {second}" for word in first)
