"""Traces of a real run: spans, lanes and times from its records."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

import harness
from orchestrator.run import trace
from orchestrator.run.trace import Span

if TYPE_CHECKING:
    from pathlib import Path

SPANS = [
    Span("a/dataset", "dataset", "cpu", "cpu 0", "here", 100.0, 10.0),
    Span("a/train", "train", "gpu", "gpu 0", "here", 110.0, 60.0, 0.5),
    Span("b/dataset", "dataset", "cpu", "cpu 0", "here", 112.0, 10.0),
    Span("a/merge", "merge", "cpu", "cpu 1", "here", 170.0, 30.0),
]


def test_a_run_leaves_a_span_per_step_in_its_lane(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cats = harness.make(tmp_path, monkeypatch)
    cats.run("cat-lora")
    spans = trace.spans((tmp_path / "runs").glob("*/*/record.json"))
    assert [span.kind for span in spans] == ["dataset", "train", "merge", "render", "release"]
    assert [span.lane for span in spans] == ["cpu", "gpu", "cpu", "gpu", "cpu"]
    assert all(span.slot.startswith(("cpu ", "trainer ", "gpu ")) for span in spans)
    assert all(earlier.started <= later.started for earlier, later in pairwise(spans))
    assert all(0 <= span.waited < 60 for span in spans)


def test_rows_have_gpus_first_and_their_busy_share() -> None:
    rows = trace.rows(SPANS)
    assert [(row["name"], row["busy"]) for row in rows] == [("gpu 0", 0.6), ("cpu 0", 0.2), ("cpu 1", 0.3)]
    assert rows[0]["bars"] == [{"name": "a/train", "kind": "train", "start": 10.0, "seconds": 60.0, "waited": 0.5}]
    assert trace.rows([]) == []


def test_rows_of_several_nodes_name_the_node() -> None:
    rows = trace.rows([*SPANS, Span("c/train", "train", "gpu", "gpu 0", "there", 110.0, 60.0)])
    assert [row["name"] for row in rows if row["lane"] == "gpu"] == ["here: gpu 0", "there: gpu 0"]


def test_chrome_events_are_complete_and_in_microseconds() -> None:
    made = json.loads(json.dumps(trace.chrome(SPANS)))
    events = [event for event in made["traceEvents"] if event["ph"] == "X"]
    assert [(event["name"], event["ts"], event["dur"]) for event in events][1] == ("a/train", 10_000_000, 60_000_000)
    threads = {event["tid"]: event["args"]["name"] for event in made["traceEvents"] if event["name"] == "thread_name"}
    assert [threads[event["tid"]] for event in events] == [span.slot for span in SPANS]
    assert {event["args"]["name"] for event in made["traceEvents"] if event["name"] == "process_name"} == {"here"}


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"name": "x", "kind": "train", "started": "soon", "seconds": 1}', '"\\u0000"']
)
def test_an_invalid_record_is_skipped(tmp_path: Path, text: str) -> None:
    path = tmp_path / "record.json"
    path.write_text(text, "utf-8")
    assert trace.spans([path, tmp_path / "gone.json"]) == []
