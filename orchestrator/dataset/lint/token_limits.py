"""Limits of captions in tokens, and an architecture's own counters.

A text encoder without an exact counter on this machine has no limit here, so that nothing is guessed. ``uncounted`` says so.
"""

from __future__ import annotations

import functools
import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.dataset.lint import clip_tokens
from orchestrator.models.architecture import CLIP_LIMIT
from orchestrator.models.registry import ARCHITECTURES
from orchestrator.system import settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from orchestrator.models.architecture import CaptionLimit
    from orchestrator.models.registry import ArchitectureName
    from orchestrator.recipe import Training


@dataclass(frozen=True, slots=True)
class TokenLimit:
    """The most tokens that a text encoder reads, and their counter."""

    limit: CaptionLimit
    tokens: int
    count: Callable[[str], int]

    def remedy(self, tokens: int) -> str:
        """Return the setting that keeps a caption of ``tokens`` tokens whole."""
        key = f"training.options.{self.limit.option}"
        if self.limit.folder:
            return f"shorten it, or set {key} = {tokens}"
        longer = clip_tokens.limit(tokens)
        return f"{key} = {longer} is long enough" if longer else f"{clip_tokens.LIMITS[-1]} is the limit"


def limits(architecture: ArchitectureName, training: Training | None) -> tuple[TokenLimit, ...]:
    """Return the limits of an architecture whose tokens can be counted here."""
    counted: list[TokenLimit] = []
    for limit in ARCHITECTURES[architecture].caption_limits:
        count = _counter(settings.sd_scripts() / "configs" / limit.folder) if limit.folder else clip_tokens.count
        chosen = training.options.get(limit.option) if training is not None else None
        if count is not None:
            counted.append(TokenLimit(limit, chosen if isinstance(chosen, int) else limit.tokens, count))
    return tuple(counted)


def uncounted(architecture: ArchitectureName) -> Iterator[tuple[str, str]]:
    """Yield (problem, hint) for each text encoder whose tokens cannot be counted."""
    for limit in ARCHITECTURES[architecture].caption_limits:
        file = settings.sd_scripts() / "configs" / limit.folder / "tokenizer.json"
        if limit.folder and _counter(file.parent) is None:
            absent = importlib.util.find_spec("tokenizers") is None
            why = f"{file} cannot be read" if file.is_file() else f"{file} is not there"
            why, hint = (
                ("the package tokenizers is not installed", "pip install tokenizers") if absent else (why, "make setup")
            )
            what = f"tokens of {limit.title} are not counted: {why}"
            yield what, f"{hint}  brings it; the trainer reads the first {limit.tokens}"


def reads_clip(architecture: ArchitectureName) -> bool:
    """Return whether CLIP reads the whole caption, trigger words included."""
    return CLIP_LIMIT in ARCHITECTURES[architecture].caption_limits


@functools.lru_cache(maxsize=4)
def _counter(folder: Path) -> Callable[[str], int] | None:
    """Return the counter of a tokenizer.json with its end marks, or None."""
    file = folder / "tokenizer.json"
    try:
        from tokenizers import Tokenizer  # noqa: PLC0415 - of an extra

        tokenizer = Tokenizer.from_file(str(file)) if file.is_file() else None
    except Exception:  # noqa: BLE001 - the package raises Exception for a file that it cannot read
        return None
    return None if tokenizer is None else lambda text: len(tokenizer.encode(text).ids)
