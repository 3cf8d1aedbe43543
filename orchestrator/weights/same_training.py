"""Check that LoRA files are saved steps of one training."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from orchestrator.errors import Problem, RecipeError
from orchestrator.weights.io import dtypes, metadata, peft
from orchestrator.weights.io.safetensors_io import Body

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from orchestrator.weights.families.adapter import Adapter

CHANGED = "changed by"
"""Entry for the verbs that wrote a file anew."""
_SHOWN = 3
_OF_ONE_STEP = frozenset(
    {
        *("ss_epoch", "ss_steps", "ss_training_finished_at", "ss_output_name"),
        *("ss_session_id", "ss_training_started_at"),  # a resumed training has new ones
    }
)
"""Entries that differ between the saved steps of one training. All other ss_ entries are equal."""
_ALIGNED = 0.5
"""Least cosine between the factors of two files. Trainings of different seeds have one near 0."""


def in_order(loras: list[Adapter]) -> list[Adapter]:
    """Return the files by their step. Where one states none, as they are."""
    steps = [lora.header.metadata.get("ss_steps", "") for lora in loras]
    if not all(step.isdecimal() for step in steps):
        return loras
    return sorted(loras, key=lambda lora: int(lora.header.metadata["ss_steps"]))


def differences(first: Adapter, other: Adapter) -> Iterator[Problem]:
    """Yield a problem for each way in which two files are not of one training."""
    where, against, hint = str(other.header.path), first.header.path, _way(first, other)
    if other.header.path.samefile(against):
        yield Problem(where, "is given twice", "name each saved step once")
    before, after = first.header, other.header
    shapes = [{key: (entry.dtype, entry.shape) for key, entry in header.entries.items()} for header in (before, after)]
    unequal = sorted(key for key in shapes[0].keys() | shapes[1].keys() if shapes[0].get(key) != shapes[1].get(key))
    if unequal:
        what = f"has other tensors than {against}: {_shortened(unequal)} (by name, type or shape)"
        yield Problem(where, what, hint)
    own, theirs = (_stated(header.metadata) for header in (after, before))
    entries = sorted(key for key in own.keys() | theirs.keys() if own.get(key) != theirs.get(key))
    if entries:
        shown = ", ".join(_both(key, own.get(key), theirs.get(key)) for key in entries[:_SHOWN])
        yield Problem(where, f"is of another training than {against}: {shown}{' …' if len(entries) > _SHOWN else ''}", hint)
    if not unequal and (alphas := _unequal_constants(first, other)):
        yield Problem(where, f"has other alphas than {against}: {_shortened(alphas)}", hint)


def _both(key: str, own: str | None, other: str | None) -> str:
    """Return an entry of both files in words."""
    if key == CHANGED:
        return f"{CHANGED} {own or 'no verb'}, the other by {other or 'none'}"
    return f"{key} {'not stated' if own is None else own[:30]} and {'not stated' if other is None else other[:30]}"


def _way(first: Adapter, other: Adapter) -> str:
    names = f"{first.header.path.name}:0.5 {other.header.path.name}:0.5"
    return f"merge {names} OUT adds any files exactly, with a rank that grows"


def _shortened(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (" …" if len(names) > _SHOWN else "")


def _stated(entries: dict[str, str]) -> dict[str, str]:
    """Return the entries that are equal in all saved steps of a training."""
    kept = {key: value for key, value in entries.items() if key.startswith("ss_") and key not in _OF_ONE_STEP}
    changes = ", ".join(str(entry.get("operation")) for entry in metadata.provenance(entries))
    return kept | {key: entries[key] for key in (peft.KEY,) if key in entries} | ({CHANGED: changes} if changes else {})


def _unequal_constants(first: Adapter, other: Adapter) -> list[str]:
    """Return the alphas and switches that differ and have no average."""
    keys = [key for module in first.modules for part, key in module.keys.items() if part in {"alpha", "on_input"}]
    keys += [key for key, entry in first.header.entries.items() if entry.dtype not in (*dtypes.FLOATING, *dtypes.NARROW)]
    with Body(first.header) as body, Body(other.header) as another:
        return sorted(key for key in set(keys) if body.read(key) != another.read(key))


def alignment(loras: list[Adapter], products: list[list[tuple[float, float]]]) -> float:
    """Return the smallest cosine of factors of the first file and another.

    Raises:
        RecipeError: the factors of a file point elsewhere, as those of another training.
    """
    sums = [[sum(module[file][which] for module in products) for which in (0, 1)] for file in range(len(loras))]
    lowest, problems = 1.0, []
    for lora, (inner, norm) in zip(loras[1:], sums[1:], strict=True):
        size = math.sqrt(norm * sums[0][1])
        cosine = inner / size if size else 1.0
        lowest = min(lowest, cosine)
        if cosine < _ALIGNED:
            what = f"is of another training than {loras[0].header.path}: the cosine between their factors is {cosine:.2f}"
            problems.append(Problem(str(lora.header.path), what, _way(loras[0], lora)))
    if problems:
        raise RecipeError(problems)
    return lowest
