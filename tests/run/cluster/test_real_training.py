"""Real trainings of the embedded engine on a cluster of two nodes, one of which is killed while it trains."""

from __future__ import annotations

import json
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
# Long enough that a kill after the first uploaded state comes before the end, on a quick machine too.
SMALL = harness.BASE.replace("base.safetensors", "embedded").replace("steps = 20", "steps = 120\nstate_every_n_steps = 5")
SMALL = SMALL.replace("originals = false", "originals = false\nrepeats = 3")  # no dataset that the nodes keep of other tests
SMALL = SMALL.replace('[training.options]\nbehave = ""\n', "").replace("[render.prompts.front]", "[render.prompts.none]")
SMALL = SMALL.partition("[render]")[0] + '[training.options]\n[release]\ncollection = "cats"\n'


@pytest.fixture
def cats(tmp_path: Path) -> harness.Project:
    from PIL import Image  # noqa: PLC0415

    project = harness.Project(tmp_path / "project")
    project.write("_base/base", SMALL)
    project.recipe("cat-lora", "lora")
    project.recipe("cat-other", "other", "[training]\nseed = 2\n")
    (project.root / "data" / "cat").mkdir(parents=True)
    for index, shade in enumerate(((200, 30, 30), (30, 30, 200))):
        Image.new("RGB", (96, 96), shade).save(project.root / "data" / "cat" / f"f0{index}.png")
    return project


def records(runs: Path) -> dict[str, dict[str, Any]]:
    all_records = [json.loads(path.read_text("utf-8")) for path in runs.glob("*/*/record.json")]
    return {record["name"]: record for record in all_records}


def test_a_killed_node_changes_nothing_in_the_results(
    cats: harness.Project, real: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numpy = pytest.importorskip("safetensors.numpy", reason="needs safetensors and torch")
    pytest.importorskip("lycoris", reason="needs the embedded engine")
    runs = cats.root / "runs"
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(cats.run, "all", cluster=True, storage=f"file://{tmp_path / 'depot'}")
        while not saved(tmp_path):
            assert not running.done(), running.result()
            time.sleep(0.05)
        real.kill(real.training())
        outcomes = running.result()
    real.add(f"new-{time.monotonic_ns()}")
    assert {outcome.status for outcome in outcomes.values()} == {Status.DONE}, [
        outcome.problem for outcome in outcomes.values()
    ]
    assert any("its node is gone" in text for text in cats.observer.messages)
    made = records(runs)
    assert any(record["resumed_from"] for record in made.values() if record["kind"] == "train")

    monkeypatch.setenv("KRNK_RUNS", str(tmp_path / "local"))
    cats.run("all", inline=True)
    local = records(tmp_path / "local")
    assert {name: record["key"] for name, record in local.items()} == {name: record["key"] for name, record in made.items()}
    for name in ("cat-lora", "cat-other"):
        here = numpy.load_file(cats.root / "runs" / name / "latest" / f"{name}.safetensors")
        there = numpy.load_file(tmp_path / "local" / name / "latest" / f"{name}.safetensors")
        assert here.keys() == there.keys()
        assert all(abs(here[key] - there[key]).max() < 2e-3 for key in here)
        assert any(abs(here[key]).max() > 2e-3 for key in here if "up" in key)
