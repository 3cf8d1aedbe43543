"""What ran where and when: read from the records of finished steps, as spans, lanes for a picture, and Chrome-trace JSON.

Chrome's about:tracing, Perfetto and Speedscope read the last.
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
    """One step in its lane. Times are seconds since the epoch; ``waited`` is how long it was ready before it started."""

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
        """Return when it ended, in seconds since the epoch."""
        return self.started + self.seconds


def spans(records: Iterable[Path]) -> list[Span]:
    """Return a span for each record file that can be read, in order of their starts; others are passed over."""
    found: list[Span] = []
    for path in {path.resolve() for path in records}:  # `latest` is a second way to a release
        said = load(path)
        if said is None:
            continue
        node = str(said.host.get("node", ""))
        span = Span(
            said.name, said.kind, said.lane, said.slot or said.lane or said.kind, node, said.started, said.seconds, said.waited
        )
        found.append(span)
    return sorted(found, key=lambda span: (span.started, span.name))


def lanes(found: Sequence[Span]) -> list[dict[str, Any]]:
    """Return one entry per place (GPUs first): its name, the share of the time it was busy, and its bars.

    A bar has ``name``, ``kind``, ``start``, ``seconds``, ``waited``; ``start`` counts in seconds from the first span.
    """
    if not found:
        return []
    first = min(span.started for span in found)
    whole = max(span.ended for span in found) - first
    places = sorted({(span.lane != "gpu", span.node, span.slot) for span in found})
    nodes = len({span.node for span in found})
    rows: list[dict[str, Any]] = []
    for other, node, slot in places:
        mine = [span for span in found if (span.lane != "gpu", span.node, span.slot) == (other, node, slot)]
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
        rows.append({"name": name, "lane": mine[0].lane, "busy": round(min(1.0, busy), 4), "bars": bars})
    return rows


def chrome(found: Sequence[Span]) -> dict[str, Any]:
    """Return the spans in Chrome's trace-event format: complete events ("X") in microseconds, one process per node."""
    events: list[dict[str, Any]] = []
    nodes = {node: number for number, node in enumerate(sorted({span.node for span in found}), 1)}
    slots = {
        place: number for number, place in enumerate(sorted({(span.node, span.lane != "gpu", span.slot) for span in found}), 1)
    }
    for node, number in nodes.items():
        events.append({"ph": "M", "name": "process_name", "pid": number, "tid": 0, "args": {"name": node}})
    for (node, _, slot), number in slots.items():
        args = {"name": slot}
        events.append({"ph": "M", "name": "thread_name", "pid": nodes[node], "tid": number, "args": args})
    first = min((span.started for span in found), default=0.0)
    for span in found:
        event: dict[str, Any] = {"ph": "X", "name": span.name, "cat": span.kind, "pid": nodes[span.node]}
        event |= {"tid": slots[span.node, span.lane != "gpu", span.slot], "args": asdict(span)}
        event |= {"ts": round((span.started - first) * 1e6), "dur": round(span.seconds * 1e6)}
        events.append(event)
    return {"traceEvents": events, "displayTimeUnit": "ms", "otherData": {"epoch_seconds": first}}
