"""Records: what is known of a finished step, and why an unfinished one has to run."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from orchestrator.system import gpu
from orchestrator.system.digests import canonical_json

if TYPE_CHECKING:
    from pathlib import Path


class Why(StrEnum):
    """Why a step has to run."""

    NEW = "new"
    AGAIN = "starts again"
    RESUME = "resume"
    ADOPT = "still running"
    ENDED = "ended while nobody watched"
    INPUT_CHANGED = "input changed"
    OUTPUT_DAMAGED = "output damaged"
    FORCED = "forced"


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a step runs, with what says it: a step's name, a file, how the last attempt ended."""

    why: Why
    detail: str = ""
    done: int = 0
    """Of a training that is resumed: the step of the state that it goes on from."""

    def __str__(self) -> str:
        if self.why is Why.RESUME:
            return f"resume at {self.detail}"
        return f"{self.why}: {self.detail}" if self.detail else str(self.why)


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of a finished step."""

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
    """The place in the lane, as "gpu 0"; on a cluster with the node's name before it."""
    waited: float = 0.0
    """Seconds between the time the step could have run and its start."""

    def digest(self) -> str:
        """Return one digest of all outputs: what a step behind this one remembers."""
        return hashlib.sha256(canonical_json({name: out["sha256"] for name, out in self.outputs.items()})).hexdigest()


_TEXTS = ("key", "kind", "name", "engine", "lane", "slot")
_TABLES = ("params", "sources", "inputs", "outputs", "changes", "host")
_NUMBERS = ("started", "seconds", "waited")
_LATEST = 1e12  # seconds since 1970: the year 33658


def load(path: Path) -> Record | None:
    """Return the record in a file; None where there is none, or where it is not what ``write`` has written.

    Whoever holds the folder can write anything there: names of outputs that leave it are no record.
    """
    try:
        record = Record(**json.loads(path.read_text("utf-8")))
        return record if _sound(record) else None
    except (OSError, ValueError, TypeError, RecursionError):
        return None


def _sound(record: Record) -> bool:
    """Return whether every field is of its type."""
    plain = all(isinstance(getattr(record, name), str) for name in _TEXTS)
    plain = plain and all(isinstance(getattr(record, name), dict) for name in _TABLES)
    plain = plain and all(_number(getattr(record, name)) for name in _NUMBERS)
    counts: tuple[object, ...] = (record.schema, record.attempts, record.resumed_from)
    argv: object = record.argv
    if not plain or not isinstance(argv, list) or not all(isinstance(count, int | None) for count in counts):
        return False
    if not all(isinstance(text, str) for said in (record.sources, record.inputs) for text in said.values()):
        return False
    return all(_output(name, out) for name, out in record.outputs.items())


def _number(value: object) -> bool:
    return isinstance(value, int | float) and abs(value) < _LATEST


def _output(name: str, out: object) -> bool:
    parts = PurePosixPath(name).parts
    inside = bool(parts) and ".." not in parts and not name.startswith("/") and "\0" not in name
    return inside and isinstance(out, dict) and isinstance(out.get("sha256"), str) and isinstance(out.get("bytes"), int)


def host() -> dict[str, Any]:
    """Return what a record says of the machine."""
    name, driver = gpu.name_and_driver()
    said = {"node": platform.node(), "system": platform.platform(), "python": sys.version.split()[0]}
    return {**said, "cpus": os.cpu_count() or 1, "gpu": name, "driver": driver}
