"""Count and split the CLIP tokens of captions and trigger words.

Byte-pair encoding of OpenAI's CLIP, with CLIP's own merges (clip_merges.txt, MIT licence, named in the file).
"""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import groupby, pairwise
from pathlib import Path
from typing import Final

LIMITS: Final = (75, 150, 225)
"""Values of max_token_length: tokens of a caption without its start and end mark."""
_MERGES: Final = Path(__file__).with_name("clip_merges.txt")
END: Final = "</w>"
"""The end of a word's last piece."""
_SHORT: Final = re.compile(
    "air|ant|arm|art|bag|bat|bed|bee|box|boy|bus|cap|car|cat|cow|cup|dog|ear|egg|elf|eye|fan|fly|fox|fur|god|gun|hat|ice|ink|"
    "jet|key|kid|leg|lip|man|map|mug|oak|owl|pen|pie|pig|pin|red|sea|sky|spa|sun|tea|tie|toe|toy|van|wig|zoo"
)
# 's 't … as in English, then runs of letters, single digits, runs of anything else.
_WORDS: Final = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d|[^\W\d_]+|\d|(?:[^\s\w]|_)+", re.IGNORECASE)


def split(text: str) -> list[str]:
    """Return the tokens of ``text`` as pieces.

    The last piece of a word ends in ``</w>``.
    """
    cleaned = " ".join(text.split()).lower()
    return [piece for run in _WORDS.findall(cleaned) for word in _numerals(run) for piece in _pieces(word)]


def count(text: str) -> int:
    """Return the number of tokens of a caption."""
    return len(split(text))


def limit(tokens: int) -> int | None:
    """Return the smallest limit that holds ``tokens``, None if none does."""
    return next((most for most in LIMITS if tokens <= most), None)


def common(piece: str, most: int = 20_000) -> bool:
    """Return True if a piece is a common word.

    Pieces of four letters and more are words if CLIP learned them early. Most early pieces of three letters are endings, so
    the words of three letters are listed.
    """
    word = piece.removesuffix(END)
    return bool(_SHORT.fullmatch(word)) or (len(word) >= 4 and _ranks().get(_last_merge(word + END), most) < most)


def _numerals(word: str) -> list[str]:
    """Split ``a½b`` into letters and numerals.

    CLIP counts ½ and ① as digits, ``re`` as letters.
    """
    if not any(letter.isnumeric() and not letter.isdecimal() and not letter.isalpha() for letter in word):
        return [word]
    runs = [(alphabetic, "".join(run)) for alphabetic, run in groupby(word, str.isalpha)]
    return [part for alphabetic, run in runs for part in ([run] if alphabetic else run)]


@lru_cache(maxsize=65536)
def _pieces(word: str) -> tuple[str, ...]:
    alphabet = byte_characters()
    letters = [alphabet[byte] for byte in word.encode()]
    parts = [*letters[:-1], letters[-1] + END]
    ranks = _ranks()
    while len(parts) > 1:
        best = min(pairwise(parts), key=lambda pair: ranks.get(pair, len(ranks)))
        if best not in ranks:
            break
        merged: list[str] = []
        for part in parts:
            if merged and (merged[-1], part) == best:
                merged[-1] += part
            else:
                merged.append(part)
        parts = merged
    return tuple(parts)


@lru_cache(maxsize=1)
def _ranks() -> dict[tuple[str, str], int]:
    lines = _MERGES.read_text(encoding="utf-8").partition("#version: 0.2\n")[2].splitlines()
    return {(left, right): rank for rank, (left, right) in enumerate(line.split(" ") for line in lines)}


@lru_cache(maxsize=1)
def _by_result() -> dict[str, tuple[str, str]]:
    return {left + right: (left, right) for left, right in _ranks()}


def _last_merge(piece: str) -> tuple[str, str]:
    return _by_result().get(piece, ("", ""))


@lru_cache(maxsize=1)
def byte_characters() -> dict[int, str]:
    """Return a printable character for every byte.

    In the order of CLIP's vocabulary.

    A byte that is printable in Latin-1 stands for itself, each other one for a character from 256 upwards.
    ``engines/sdscripts/write_tokenizer.py`` repeats this, as it runs in sd-scripts' Python without this package.
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + index) for index, byte in enumerate(others)}
