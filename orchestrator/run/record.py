"""Records of finished steps, and the reasons for which steps run."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from orchestrator.system import gpu
from orchestrator.system.digests import canonical_json

if TYPE_CHECKING:
    from pathlib import Path


class Why(StrEnum):
    """Kinds of reasons."""

    NEW = "new"
    AGAIN = "starts again"
    RESUME = "resume"
    ADOPT = "still running"
    ENDED = "finished while no orchestrator was running"
    INPUT_CHANGED = "input changed"
    OUTPUT_DAMAGED = "output damaged"
    FORCED = "forced"
    SAME = "the same as"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True)
class Reason:
    """Reason for which a step runs.

    The detail is a step, a file, a difference, or the end of the last attempt.
    """

    why: Why
    detail: str = ""
    done: int = 0
    """Step of the state that a training resumes from."""

    @property
    def links(self) -> bool:
        """Return whether the step is linked to that of another recipe."""
        return self.why is Why.SAME

    def __str__(self) -> str:
        if self.why is Why.RESUME:
            return f"resume at {self.detail}"
        if self.why is Why.SAME:
            return f"{self.why} {self.detail}"
        return f"{self.why}: {self.detail}" if self.detail else str(self.why)


@dataclass(frozen=True, slots=True)
class Record:
    """One finished step: its key, inputs, outputs, command and circumstances."""

    schema: int
    key: str
    kind: str
    name: str
    params: dict[str, Any]
    sources: dict[str, str]
    inputs: dict[str, str]
    outputs: dict[str, dict[str, Any]]
    argv: list[str]
    started: float
    seconds: float
    resumed_from: int | None
    attempts: int
    changes: dict[str, Any]
    engine: str
    host: dict[str, Any]
    lane: str = ""
    slot: str = ""
    """Name of the slot, as "gpu 0", on a cluster with the node's name before it."""
    waited: float = 0.0
    """Seconds between readiness and start."""
    linked: str = ""
    """The step of another recipe that this one is a link to."""

    def to_json(self) -> dict[str, Any]:
        """Return the record as it is written."""
        fields = asdict(self)
        if not self.linked:
            del fields["linked"]
        return fields

    def digest(self) -> str:
        """Return one digest of all outputs, for dependent steps."""
        return hashlib.sha256(canonical_json({name: out["sha256"] for name, out in self.outputs.items()})).hexdigest()


_TEXTS = ("key", "kind", "name", "engine", "lane", "slot", "linked")
_TABLES = ("params", "sources", "inputs", "outputs", "changes", "host")
_NUMBERS = ("started", "seconds", "waited")
_LATEST = 1e12  # seconds since 1970: the year 33658


def load(path: Path) -> Record | None:
    """Return the record in a file, or None without a valid one.

    Records are untrusted: a record with an output outside its folder is invalid.
    """
    try:
        record = Record(**json.loads(path.read_text("utf-8")))
        return record if _is_valid(record) else None
    except (OSError, ValueError, TypeError, RecursionError):
        return None


def _is_valid(record: Record) -> bool:
    """Return whether all fields and output names are valid."""
    plain = all(isinstance(getattr(record, name), str) for name in _TEXTS)
    plain = plain and all(isinstance(getattr(record, name), dict) for name in _TABLES)
    plain = plain and all(_is_number(getattr(record, name)) for name in _NUMBERS)
    counts: tuple[object, ...] = (record.schema, record.attempts, record.resumed_from)
    argv: object = record.argv
    if not plain or not isinstance(argv, list) or not all(isinstance(count, int | None) for count in counts):
        return False
    digests = (*record.sources.values(), *record.inputs.values())
    if not all(isinstance(digest, str) for digest in digests):
        return False
    return all(_is_output(name, out) for name, out in record.outputs.items())


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and abs(value) < _LATEST


def _is_output(name: str, out: object) -> bool:
    parts = PurePosixPath(name).parts
    inside = bool(parts) and ".." not in parts and not name.startswith("/") and "\0" not in name
    return inside and isinstance(out, dict) and isinstance(out.get("sha256"), str) and isinstance(out.get("bytes"), int)


def host() -> dict[str, Any]:
    """Return the description of this machine for a record."""
    name, driver = gpu.name_and_driver()
    system = {"node": platform.node(), "system": platform.platform(), "python": sys.version.split()[0]}
    return {**system, "cpus": os.cpu_count() or 1, "gpu": name, "driver": driver}
