"""The Ray executor on a real cluster of two nodes.

Shared runs folder or storage, a node killed mid-run, ^C.
"""

from __future__ import annotations

import _thread
import json
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

import harness
from nodes import saved
from orchestrator.run.context import Status

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.ray,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def cats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cluster: Any) -> harness.Project:
    return harness.make(tmp_path / "project", monkeypatch)


def records(project: harness.Project) -> dict[str, dict[str, Any]]:
    all_records = [json.loads(path.read_text("utf-8")) for path in (project.root / "runs").glob("*/*/record.json")]
    return {record["name"]: record for record in all_records}


def url(through: str, folder: Path) -> str:
    """Return the storage of a test, "" for a shared runs folder."""
    return f"file://{folder / 'depot'}" if through == "storage" else ""


@pytest.mark.parametrize("through", ["shared folder", "storage"])
def test_a_cluster_makes_the_same_results_key_by_key(
    cats: harness.Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, through: str
) -> None:
    repeats = len(through)  # the nodes of all tests keep what they have made: ask for something else
    cats.write("_base/base", harness.BASE.replace("originals = false", f"originals = false\nrepeats = {repeats}"))
    cats.recipe("cat-loha", "other")
    outcomes = cats.run("all", cluster=True, storage=url(through, tmp_path))
    assert {outcome.status for outcome in outcomes.values()} == {Status.DONE}, [o.problem for o in outcomes.values()]
    assert len(cats.observer.begun) == len(outcomes)
    made = records(cats)
    assert all(str(cats.root) not in json.dumps(record["outputs"]) for record in made.values())
    again = cats.run("all")
    assert {outcome.status for outcome in again.values()} == {Status.CACHED}
    assert list((cats.root / "runs").glob("*/.partial/*")) == []
    assert list((cats.root / "runs").glob(".shared-*")) == []
    monkeypatch.setenv("KRNK_RUNS", str(cats.root / "local"))
    cats.run("all")
    local = [json.loads(path.read_text("utf-8")) for path in (cats.root / "local").glob("*/*/record.json")]
    assert {record["name"]: record["key"] for record in local} == {name: record["key"] for name, record in made.items()}
    assert made["cat-lora/train"]["slot"].endswith((" gpu 0", "gpu 0"))


@pytest.mark.parametrize("through", ["shared folder", "storage"])
def test_a_training_of_a_dead_node_resumes_elsewhere_from_its_last_state(
    cats: harness.Project, cluster: Any, tmp_path: Path, through: str
) -> None:
    cats.recipe("cat-lora", "lora", "[training]\nsteps = 40\n[training.options]\npause = 0.25\n")
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(cats.run, "cat-lora", cluster=True, storage=url(through, tmp_path))
        while not saved(tmp_path, 10):
            assert not running.done(), running.result()
            time.sleep(0.05)
        cluster.kill(cluster.training())
        outcomes = running.result()
    cluster.add(f"new-{time.monotonic_ns()}")
    assert outcomes["cat-lora/release"].status is Status.DONE, [outcome.problem for outcome in outcomes.values()]
    assert any("its node is gone" in text for text in cats.observer.messages)
    assert records(cats)["cat-lora/train"]["resumed_from"] >= 10


def test_stopping_keeps_the_state_and_the_same_command_resumes(cats: harness.Project, tmp_path: Path) -> None:
    cats.recipe("cat-lora", "lora", "[training]\nsteps = 60\n[training.options]\npause = 0.2\n")

    def interrupt() -> None:
        while not saved(tmp_path, 5):
            time.sleep(0.05)
        _thread.interrupt_main()

    threading.Thread(target=interrupt, daemon=True).start()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell starts behind "&" ignores ^C
    try:
        outcomes = cats.run("cat-lora", cluster=True, storage=url("storage", tmp_path))
    finally:
        signal.signal(signal.SIGINT, before)
    assert outcomes["cat-lora/train"].status is Status.STOPPED
    assert outcomes["cat-lora/release"].status is Status.STOPPED
    outcomes = cats.run("cat-lora")
    assert outcomes["cat-lora/release"].status is Status.DONE
    assert records(cats)["cat-lora/train"]["resumed_from"] >= 5
