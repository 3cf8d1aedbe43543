"""The words of captions, tokenizer and recipes of the world."""

from __future__ import annotations

from typing import Final

CLASS_WORD: Final = "character"
CLASS_WORD_TWO: Final = "two characters"

HAIR_COLOURS: Final = ("black", "brown", "blonde", "blue", "pink", "silver")  # "black hair"
HAIR_LENGTHS: Final = ("short", "long")  # "short hair"
EAR_COLOURS: Final = HAIR_COLOURS  # "black ears"
EYE_COLOURS: Final = ("yellow", "green", "blue", "red", "purple")  # "yellow eyes"
CHOKER: Final = "choker"
CLOTHES: Final = ("white shirt", "school uniform", "plugsuit", "hoodie", "dress", "sweater")

SIMPLE_BACKGROUND: Final = "simple background"
BACKGROUNDS: Final = ("white", "blue", "pink", "green", "yellow", "grey")  # "white background"
HEIGHTS: Final = ("", "from above", "from below")  # first digit of a file name
DIRECTIONS: Final = (  # second digit: 45 degrees counter-clockwise each
    "from front",
    "from front",
    "from side",
    "from behind",
    "from behind",
    "from behind",
    "from side",
    "from front",
)
FRAMINGS: Final = {"f": "upper body", "b": "full body"}  # first letter
POSES: Final = ("standing", "waving")
GAZES: Final = ("looking at viewer",) + ("looking away",) * 7  # second digit again
EXPRESSIONS: Final = ("smile", "open mouth", "closed eyes", "serious")

# The demo characters. Their names and appearance never occur in what the base model is trained on.
TRIGGERS: Final = ("krnk", "tyank", "krnksf", "tyankps")


def words() -> tuple[str, ...]:
    """Return every word that a caption can contain, sorted."""
    phrases = (
        CLASS_WORD,
        CLASS_WORD_TWO,
        *HAIR_COLOURS,
        *HAIR_LENGTHS,
        *EYE_COLOURS,
        *BACKGROUNDS,
        "hair",
        "ears",
        "eyes",
        CHOKER,
        *CLOTHES,
        SIMPLE_BACKGROUND,
        *HEIGHTS,
        *DIRECTIONS,
        *FRAMINGS.values(),
        *POSES,
        *GAZES,
        *EXPRESSIONS,
    )
    return tuple(sorted({word for phrase in phrases for word in phrase.split()}))
