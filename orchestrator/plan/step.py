"""A step: one piece of work with its key."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from orchestrator.system.digests import canonical_json

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SCHEMA = 1
JSON = dict[str, Any]


class StepKind(StrEnum):
    """The six kinds of step."""

    DATASET = "dataset"
    TRAIN = "train"
    MERGE = "merge"
    RESIZE = "resize"
    RENDER = "render"
    RELEASE = "release"


class Lane(StrEnum):
    """Lane of a step: one step at a time per GPU, or beside others on the CPU."""

    GPU = "gpu"
    CPU = "cpu"


@dataclass(frozen=True, slots=True)
class StepSource:
    """A file or folder from outside the plan, with the digest of its content."""

    role: str
    path: Path
    digest: str


@dataclass(frozen=True, slots=True)
class Step:
    """One piece of work with its parameters, sources and outputs.

    ``outputs`` are names or glob patterns below the step's folder. ``recipe`` is empty for steps that recipes share.
    """

    name: str
    kind: StepKind
    owner: str
    params: JSON
    sources: tuple[StepSource, ...]
    needs: tuple[str, ...]
    outputs: tuple[str, ...]
    lane: Lane
    key: str
    recipe: str = ""

    @property
    def folder(self) -> str:
        """Name of the step's folder below its owner's."""
        return f"{self.name.rpartition('/')[2]}-{self.key[:12]}"


def make_step(
    name: str,
    kind: StepKind,
    params: JSON,
    needs: Sequence[Step],
    outputs: tuple[str, ...],
    *,
    lane: Lane = Lane.CPU,
    sources: Sequence[StepSource] = (),
    engine: str = "",
    recipe: str = "",
) -> Step:
    """Make a step and its key, from everything that changes its result.

    Paths and thread counts do not.
    """
    key_fields = {
        "schema": SCHEMA,
        "kind": kind,
        "params": params,
        "engine": engine,
        "sources": sorted([source.role, source.digest] for source in sources),
        "needs": [step.key for step in needs],
    }
    key = hashlib.sha256(canonical_json(key_fields)).hexdigest()
    names = tuple(step.name for step in needs)
    return Step(name, kind, name.rpartition("/")[0], params, tuple(sources), names, outputs, lane, key, recipe)
