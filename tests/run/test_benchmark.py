"""Benchmark of a training.

Real trial steps, kept results, and failures with a reason.
"""

from __future__ import annotations

import json
import tomllib
from typing import TYPE_CHECKING

import pytest
from PIL import Image

import harness
from command_line import call
from orchestrator.dataset import largest_bucket
from orchestrator.errors import StepFailed
from orchestrator.run import benchmark, paths
from orchestrator.run.workspace import Selection
from orchestrator.system.terminal import duration

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.system.child import ChildCallbacks, Exit
    from orchestrator.system.process import Command


def planned(cats: harness.Project) -> tuple[object, ...]:
    space = cats.space()
    plan = space.plan(space.load(Selection(("cat-lora",))))
    return plan.recipes["cat-lora"], plan, space


def test_a_benchmark_trains_measures_and_keeps_the_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cats = harness.make(tmp_path / "p", monkeypatch)
    cats.recipe("cat-lora", "lora", "[training.options]\npause = 0.4\n")
    recipe, plan, space = planned(cats)
    with pytest.raises(StepFailed, match="is not built yet"):
        benchmark.measure(recipe, plan, space)  # type: ignore[arg-type]
    cats.run("cat-lora", only=("dataset",))
    assert benchmark.measured_cost(recipe, space) is None  # type: ignore[arg-type]
    cost = benchmark.measure(recipe, plan, space)  # type: ignore[arg-type]
    assert cost.seconds_per_step > 0.1
    assert benchmark.measured_cost(recipe, space) == cost  # type: ignore[arg-type]
    assert not list((cats.root / "runs").glob(".probe-*"))


def test_caches_of_trial_steps_stay_in_their_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cats = harness.make(tmp_path / "p", monkeypatch)
    more = '[training]\ncache_text_encoder_outputs = "disk"\n[training.options]\npause = 0.2\n'
    cats.recipe("cat-lora", "lora", more)
    cats.run("cat-lora", only=("dataset",))
    recipe, plan, space = planned(cats)
    linked: list[int] = []
    run = benchmark.process.run

    def counting(command: Command, folder: Path, callbacks: ChildCallbacks) -> Exit:
        linked.append(len([path for path in (folder / "latents").rglob("*.png") if path.is_symlink()]))
        return run(command, folder, callbacks)

    monkeypatch.setattr(benchmark.process, "run", counting)
    benchmark.measure(recipe, plan, space)  # type: ignore[arg-type]
    assert linked[0] > 0
    built = space.store.folder(plan.by_name["cat/dataset"])  # type: ignore[attr-defined]
    assert not list(built.rglob("*.npz"))


def test_the_estimate_of_all_recipes_uses_the_measurements_of_equal_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cats = harness.make(tmp_path / "p", monkeypatch)
    cats.recipe("cat-lora", "lora", "[training.options]\npause = 0.4\n")
    cats.recipe("cat-twin", "twin", "[training]\nsteps = 60\nseed = 2\n[training.options]\npause = 0.4\n")
    cats.recipe("cat-wide", "wide", "[network]\ndim = 4\n")
    cats.recipe("cat-wider", "wider", "[network]\ndim = 4\nalpha = 2\n")
    cats.recipe("dog-lora", "large", '[dataset]\nname = "dog"\nsizes = [96]\nresolution_classes = [96]\n')
    cats.run("cat-lora", only=("dataset",))
    monkeypatch.chdir(cats.root)
    monkeypatch.delenv("KRNK_RUNS", raising=False)

    def output(*argv: str) -> str:
        assert call(monkeypatch, *argv) == 0
        return capsys.readouterr().out

    assert "training takes" not in output("plan", "all")
    text = output("probe", "cat-lora")
    space = cats.space()
    plan = space.plan(space.load(Selection(("all",))))
    reasons = space.reasons(plan)
    each = benchmark.measured_cost(plan.recipes["cat-twin"], space)
    assert each is not None
    left = benchmark.estimate(plan, reasons, space)
    assert left.seconds == pytest.approx(80 * each.seconds_per_step)
    assert (left.known, left.unknown) == (("cat-lora", "cat-twin"), ("cat-wide", "cat-wider", "dog-lora"))
    assert left.measure == ("cat-wide", "dog-lora")
    line = f"training takes at most {duration(left.seconds)} for 2 recipes, one after the other; "
    line += "not measured: cat-wide, cat-wider, dog-lora;  python -m orchestrator probe cat-wide dog-lora"
    assert text.splitlines()[-1] == f"all recipes: {line}"
    assert output("plan", "all").splitlines()[-1] == line
    assert json.loads(output("plan", "all", "--json"))["left"]["unknown"] == ["cat-wide", "cat-wider", "dog-lora"]
    work = space.store.begin(plan.by_name["cat-twin/train"])
    (work / "step0050-state").mkdir()
    (work / "attempts.jsonl").write_text('{"at": 0}\n', "utf-8")
    reasons = space.reasons(plan)
    assert str(reasons["cat-twin/train"]).startswith("resume at step 50; the attempt of ")
    assert benchmark.estimate(plan, reasons, space).seconds == pytest.approx(30 * each.seconds_per_step)
    reasons["cat-lora/train"] = None
    assert benchmark.estimate(plan, reasons, space).seconds == pytest.approx(10 * each.seconds_per_step)
    for content in ("{", "[]", '{"x": 1}', json.dumps({benchmark.cache_key(plan.recipes["cat-lora"], space): {"peak_mb": 1}})):
        (cats.root / "runs" / paths.BENCHMARKS).write_text(content, "utf-8")
        assert benchmark.estimate(plan, reasons, space).known == ()


def test_only_the_largest_bucket_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cats = harness.make(tmp_path / "p", monkeypatch)
    Image.new("RGB", (192, 96), (1, 2, 3)).save(cats.root / "data" / "cat" / "f04.png")
    Image.new("RGB", (192, 192), (1, 2, 3)).save(cats.root / "data" / "cat" / "f10.png")
    cats.recipe("cat-lora", "lora", "[dataset]\nsizes = [64, 192]\nresolution_classes = [64, 192]\n")
    outcomes = cats.run("cat-lora", only=("dataset",))
    space = cats.space()
    plan = space.plan(space.load(Selection(("cat-lora",))))
    built = space.store.folder(plan.by_name[next(name for name in outcomes if name.endswith("dataset"))])
    (tmp_path / "out").mkdir()
    largest_bucket.link_images(built, tmp_path / "out")
    table = tomllib.loads((tmp_path / "out" / "dataset.toml").read_text("utf-8"))
    ((dataset,),) = (table["datasets"],)
    assert dataset["resolution"] == [192, 192]
    (subset,) = dataset["subsets"]
    names = {path.name for path in (tmp_path / "out" / subset["image_dir"]).iterdir()}
    assert names == {"f10.png", "f10.txt"}
    assert space.inputs.counts(plan.recipes["cat-lora"]).largest == (192, 192, 1)


def test_a_failed_trial_has_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cats = harness.make(tmp_path / "p", monkeypatch)
    cats.recipe("cat-lora", "lora", '[training.options]\nbehave = "fail"\n')
    cats.run("cat-lora", only=("dataset",))
    recipe, plan, space = planned(cats)
    with pytest.raises(StepFailed, match="CUDA out of memory"):
        benchmark.measure(recipe, plan, space)  # type: ignore[arg-type]


def test_memory_that_is_full_spills() -> None:
    assert benchmark.StepCost(1.0, 12200, 12288).spills()
    assert not benchmark.StepCost(1.0, 8000, 12288).spills()
    assert not benchmark.StepCost(1.0, 0, 0).spills()
