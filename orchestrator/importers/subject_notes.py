"""Notes on the values of a new subject's recipes, and advice."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Any, Final

from orchestrator.dataset.lint import clip_tokens
from orchestrator.errors import counted
from orchestrator.models import block_weights
from orchestrator.models.registry import DEFAULT
from orchestrator.recipe import compose

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.importers.inspect_folder import FolderSummary
    from orchestrator.importers.subject_options import NewSubject

_FEW: Final = 8


def effort(subject: NewSubject, kind: str) -> str:
    """Return steps and repeats, and their origin."""
    part = _part(kind)
    steps = f"{subject.steps} steps (--steps)" if subject.steps else f"{part['training']['steps']} steps"
    repeats = subject.repeats or part["dataset"]["repeats"]
    often = {1: "once", 2: "twice"}.get(repeats, f"{repeats} times")
    origin = "of the release" if kind in ("face", "body", "group") else "of recipes/_base"
    return f"{steps}, every image {often} an epoch; the part _base/{kind} {origin} sets the others"


def block_weights_of(kind: str) -> list[str]:
    """Return notes on the blocks that the type leaves out of the file."""
    weights = _part(kind).get("block_weights", {}).get("sd1")
    if weights is None:
        return []
    parsed = block_weights.parse(tuple(weights), DEFAULT)
    notes = [
        f'block weights {parsed.preset} are baked into the file, as in the release; block_weights = "ALL" keeps all blocks'
    ]
    if weights[0] == 0:
        notes.append(
            "BASE = 0 among them leaves out the text encoder's part, though it is trained: the U-Net learns the trigger word"
        )
    return notes


def _part(kind: str) -> dict[str, Any]:
    return tomllib.loads((compose.library() / "_base" / f"{kind}.toml").read_text("utf-8"))


def advice(summaries: Sequence[FolderSummary], triggers: Sequence[str], *, reads_clip: bool) -> list[str]:
    """Return advice on few images, common trigger words, and mirrored images."""
    notes: list[str] = []
    count = sum(len(summary.stems) for summary in summaries)
    if count < _FEW:
        notes.append(f"{counted(count, 'image', 'are')} few: the release's faces have 12 to 15, from all sides")
    notes += [
        f"the trigger word {word!r} has a meaning to CLIP already; an invented word is learned more easily"
        for word in triggers
        if reads_clip and clip_tokens.common(clip_tokens.split(word)[0]) and len(clip_tokens.split(word)) == 1
    ]
    notes.append("flip_aug mirrors half of the images: set  flip = false  in a source whose left and right differ")
    return notes
