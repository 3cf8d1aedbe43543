"""The card of the base model: how it was made, how it learned."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.errors import Problem, RecipeError
from tools.demo_world import vocabulary as words
from tools.demo_world.base_parts import LATENT, PICTURE, UNET, VAE

if TYPE_CHECKING:
    from collections.abc import Sequence

_BEGAN = """
FOLDER is the base that the rows above the last one tell of: its VAE is still the one here, and the weights of its text
encoder and U-Net are where the last row began. Without `--start` the same command makes all parts from nothing.
"""
_BARS = "▁▂▃▄▅▆▇█"


def spark(values: Sequence[float]) -> str:
    """Draw a curve in one line of text, at most 60 characters."""
    step = max(1, len(values) // 60)
    means = [sum(values[at : at + step]) / len(values[at : at + step]) for at in range(0, len(values), step)]
    low, high = min(means), max(means)
    return "".join(_BARS[min(7, int(8 * (value - low) / (high - low or 1.0)))] for value in means)


@dataclass(frozen=True, slots=True)
class Course:
    """How one part learned: minutes of wall clock, and (step, loss) now and then."""

    minutes: float
    log: list[tuple[int, float]]

    def row(self, name: str) -> str:
        """Return the row of the card's table."""
        losses = [loss for _, loss in self.log]
        return (
            f"| {name} | {self.log[-1][0]:,} | {self.minutes:.0f} | {losses[0]:.3f} | {losses[-1]:.3f} | `{spark(losses)}` |"
        )


def table_of(folder: Path) -> tuple[str, ...]:
    """Return the rows in which the card of a base says how its parts learned.

    Raises:
        RecipeError: the folder has no such card.
    """
    file = folder / "README.md"
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    rows = tuple(line for line in lines if line.startswith(("| VAE |", "| text encoder")))
    if not rows:
        raise RecipeError(Problem(str(file), "does not say how this base was made", "a folder that `base --out` has written"))
    return rows


def with_row(folder: Path, row: str) -> None:
    """Add a row to the table of a base's card, below the others; one of the same part is replaced."""
    file = folder / "README.md"
    part = row.split("|")[1]
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if not line.startswith(f"|{part}|")]
    last = max(number for number, line in enumerate(lines) if line in table_of(folder))
    file.write_text("\n".join([*lines[: last + 1], row, *lines[last + 1 :], ""]), encoding="utf-8")


def card(seed: int, planned: float, rows: Sequence[str], *, started: bool) -> str:
    """Return the model card as Markdown; ``rows`` are of its table; ``started``: the last began from another base."""
    place = Path(__file__).with_name("card.md")
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
    return place.read_text(encoding="utf-8").format(
        picture=PICTURE,
        latent=LATENT,
        unet="/".join(str(width) for width in UNET["block_out_channels"]),
        vae="/".join(str(width) for width in VAE["block_out_channels"]),
        seed=seed,
        minutes=f"{planned:.0f}",
        start=" --start FOLDER" if started else "",
        began=_BEGAN if started else "",
        courses="\n".join(rows),
        words="\n".join(f"| {name} | {said} |" for name, said in tags.items()),
    )


def _each(first: Sequence[str], second: str) -> str:
    return ", ".join(f"{word} {second}" for word in first)
