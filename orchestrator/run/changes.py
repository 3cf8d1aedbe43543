"""The differences between a step and its newest record with another key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from orchestrator import engines
from orchestrator.run import paths
from orchestrator.run.record import Reason, Record, Why, load

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from orchestrator.plan.plan import Plan
    from orchestrator.plan.step import Step

_SHOWN: Final = 3
_LONGEST: Final = 40


def reason(owner: Path, step: Step, plan: Plan) -> Reason:
    """Return why a step without work runs: it is new, or these things changed.

    Args:
        owner: the folder of its owner below ``runs/``.
        step: the step.
        plan: its plan.
    """
    record = newest(owner, step)
    if record is None:
        return Reason(Why.NEW)
    texts = list(differences(record, step, plan))
    if not texts:
        return Reason(Why.NEW, f"{', '.join(step.needs)} changed" if step.needs else "")
    more = len(texts) - _SHOWN
    return Reason(Why.CHANGED, "; ".join(texts[:_SHOWN]) + (f"; and {more} more" if more > 0 else ""))


def newest(owner: Path, step: Step) -> Record | None:
    """Return the newest valid record of a step with another key."""
    kind = step.folder.rpartition("-")[0]
    records = [load(path) for path in owner.glob(f"{kind}-*/{paths.RECORD}")]
    others = [record for record in records if record is not None and record.key != step.key]
    return max(others, key=lambda record: record.started, default=None)


def differences(record: Record, step: Step, plan: Plan) -> Iterator[str]:
    """Yield the differences to a record: engine, sources, settings."""
    yield from _engine(record.engine, engine_version(step, plan))
    now = {source.role: source.digest for source in step.sources}
    yield from (f"{role} removed" for role in record.sources if role not in now)
    yield from (f"{role} added" for role in now if role not in record.sources)
    yield from (f"{role} is another file" for role, digest in now.items() if record.sources.get(role, digest) != digest)
    before, after = dict(_leaves(record.params)), dict(_leaves(step.params))
    for key in dict.fromkeys([*before, *after]):
        old, new = before.get(key), after.get(key)
        if old != new:
            yield f"{key} {_text(old)} -> {_text(new)}"


def engine_version(step: Step, plan: Plan) -> str:
    """Return name and version of the engine of a step's recipe, or ""."""
    engine = plan.recipes[step.recipe].engine if step.recipe else ""
    return f"{engine} {engines.get(engine).version()}" if engine else ""


def _engine(before: str, after: str) -> Iterator[str]:
    """Yield the packages and commits of an engine that differ."""
    engine, _, version = before.partition(" ")
    other, _, new_version = after.partition(" ")
    if engine != other:
        yield f"engine {engine or 'none'} -> {other or 'none'}"
        return
    old, new = (dict(_package(part, engine) for part in text.split(", ")) for text in (version, new_version))
    for name in dict.fromkeys([*old, *new]):
        if old.get(name) != new.get(name):
            yield f"{name} {_text(old.get(name))[:12]} -> {_text(new.get(name))[:12]}"


def _package(part: str, engine: str) -> tuple[str, str]:
    """Return name and version. A commit alone is the engine's."""
    name, _, version = part.rpartition(" ")
    return name or engine, version


def _leaves(table: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def _text(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
