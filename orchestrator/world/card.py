"""The card of the base model: how it was made, how it learned."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.world import vocabulary as words
from orchestrator.world.base_parts import LATENT, PICTURE, UNET, VAE

if TYPE_CHECKING:
    from collections.abc import Sequence

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


def card(seed: int, planned: float, vae: Course, unet: Course) -> str:
    """Return the model card as Markdown."""
    place = Path(__file__).with_name("card.md")
    colours, lengths, eyes, ears = words.HAIR_COLOURS, words.HAIR_LENGTHS, words.EYE_COLOURS, words.EAR_COLOURS
    rows = {
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
        courses="\n".join((vae.row("VAE"), unet.row("text encoder and U-Net"))),
        words="\n".join(f"| {name} | {tags} |" for name, tags in rows.items()),
    )


def _each(first: Sequence[str], second: str) -> str:
    return ", ".join(f"{word} {second}" for word in first)
