"""Timeline of finished steps, from their records.

Chrome's about:tracing, Perfetto and Speedscope read that JSON.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.run.record import load

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Span:
    """One step in its slot.

    ``started`` is in seconds since the epoch, ``waited`` the seconds it was ready before.
    """

    name: str
    kind: str
    lane: str
    slot: str
    node: str
    started: float
    seconds: float
    waited: float = 0.0

    @property
    def ended(self) -> float:
        """Return the end in seconds since the epoch."""
        return self.started + self.seconds


def spans(records: Iterable[Path]) -> list[Span]:
    """Return a span for each valid record file, by start."""
    result: list[Span] = []
    for path in {path.resolve() for path in records}:  # `latest` is a second path to a release
        record = load(path)
        if record is None:
            continue
        node, slot = str(record.host.get("node", "")), record.slot or record.lane or record.kind
        span = Span(record.name, record.kind, record.lane, slot, node, record.started, record.seconds, record.waited)
        result.append(span)
    return sorted(result, key=lambda span: (span.started, span.name))


def rows(timeline: Sequence[Span]) -> list[dict[str, Any]]:
    """Return one row per slot, GPUs first.

    A row has ``name``, ``lane``, ``busy`` (the share of the time) and ``bars``.

    A bar has ``name``, ``kind``, ``start``, ``seconds`` and ``waited``. ``start`` counts in seconds from the first span.
    """
    if not timeline:
        return []
    first = min(span.started for span in timeline)
    whole = max(span.ended for span in timeline) - first
    slots = sorted({(span.lane != "gpu", span.node, span.slot) for span in timeline})
    nodes = len({span.node for span in timeline})
    result: list[dict[str, Any]] = []
    for other, node, slot in slots:
        mine = [span for span in timeline if (span.lane != "gpu", span.node, span.slot) == (other, node, slot)]
        bars = [
            {
                "name": span.name,
                "kind": span.kind,
                "start": round(span.started - first, 3),
                "seconds": span.seconds,
                "waited": span.waited,
            }
            for span in mine
        ]
        busy = sum(span.seconds for span in mine) / whole if whole > 0 else 1.0
        name = f"{node}: {slot}" if nodes > 1 else slot
        result.append({"name": name, "lane": mine[0].lane, "busy": round(min(1.0, busy), 4), "bars": bars})
    return result


def chrome(timeline: Sequence[Span]) -> dict[str, Any]:
    """Return the spans in Chrome's trace-event format.

    Complete events ("X") in microseconds, one process per node.
    """
    events: list[dict[str, Any]] = []
    nodes = {node: number for number, node in enumerate(sorted({span.node for span in timeline}), 1)}
    slots = {
        slot: number
        for number, slot in enumerate(sorted({(span.node, span.lane != "gpu", span.slot) for span in timeline}), 1)
    }
    for node, number in nodes.items():
        events.append({"ph": "M", "name": "process_name", "pid": number, "tid": 0, "args": {"name": node}})
    for (node, _, slot), number in slots.items():
        args = {"name": slot}
        events.append({"ph": "M", "name": "thread_name", "pid": nodes[node], "tid": number, "args": args})
    first = min((span.started for span in timeline), default=0.0)
    for span in timeline:
        event: dict[str, Any] = {"ph": "X", "name": span.name, "cat": span.kind, "pid": nodes[span.node]}
        event |= {"tid": slots[span.node, span.lane != "gpu", span.slot], "args": asdict(span)}
        event |= {"ts": round((span.started - first) * 1e6), "dur": round(span.seconds * 1e6)}
        events.append(event)
    return {"traceEvents": events, "displayTimeUnit": "ms", "otherData": {"epoch_seconds": first}}
