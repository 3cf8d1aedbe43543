"""Steps on a node, through a shared runs folder or a storage, without a cluster."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import shutil
from typing import TYPE_CHECKING

from distant import NOT_THERE, THERE, TOKEN, Distant, planned
from orchestrator.run.cluster import node
from orchestrator.run.cluster.events import EventQueue
from orchestrator.run.cluster.storage import Storage
from orchestrator.run.cluster.task import ModelInput, make_task, store_result
from orchestrator.run.context import Status
from orchestrator.run.runner import run_plan
from orchestrator.system.digests import Digests

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    import harness


def test_steps_of_a_distant_node_are_those_of_this_machine(cats: harness.Project, depot: Storage, tmp_path: Path) -> None:
    cats.recipe("cat-loha", "other")
    context, _ = planned(cats)
    outcomes = run_plan(context, Distant(depot))
    assert {outcome.status for outcome in outcomes} == {Status.DONE}, [outcome.problem for outcome in outcomes]
    assert {outcome.status for outcome in cats.run("all").values()} == {Status.CACHED}
    assert {outcome.status for outcome in cats.run("all", verify=True).values()} == {Status.CACHED}
    assert list((cats.root / "runs").glob("*/.partial/*")) == []
    depot.delete(TOKEN)
    names = [path for path in (tmp_path / "depot").rglob("*") if path.is_file()]
    assert names
    assert all(hashlib.sha256(path.read_bytes()).hexdigest() == path.name for path in names)  # no state is left


def test_content_is_fetched_once_per_node(cats: harness.Project, depot: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[tuple[str, Path]] = []
    download = Storage.download

    def counting(self: Storage, digest: str, target: Path) -> None:
        if not target.is_relative_to(cats.root):  # the driver takes every result
            fetched.append((digest, target))
        download(self, digest, target)

    monkeypatch.setattr(Storage, "download", counting)
    cats.recipe("cat-loha", "other")
    context, _ = planned(cats)
    run_plan(context, Distant(depot))
    assert fetched
    assert len(fetched) == len({digest for digest, _ in fetched})
    base = hashlib.sha256((cats.root / "base.safetensors").read_bytes()).hexdigest()
    # the node finds the base model at the driver's path
    assert base not in {digest for digest, _ in fetched}


def test_a_node_that_lost_its_folder_fetches_results_again(
    cats: harness.Project, depot: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cats.run("cat-lora", only=("dataset", "train"))
    context, plan = planned(cats, "cat-lora")
    step = plan.by_name["cat-lora/merge"]
    result = node.run(make_task(context, step, TOKEN, depot), EventQueue().put, "there")
    assert result.outcome.status is Status.DONE
    shutil.rmtree(tmp_path / "node" / "runs")
    again = node.run(make_task(context, step, TOKEN, depot), EventQueue().put, "there")
    assert again.outcome.status is Status.DONE
    assert again.files.keys() == result.files.keys()


def test_a_model_that_the_node_lacks_is_fetched(
    cats: harness.Project, depot: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cats.run("cat-lora", only=("dataset",))
    context, plan = planned(cats)
    step = plan.by_name["cat-lora/train"]
    task = make_task(context, step, TOKEN, depot)
    models = tuple(dataclasses.replace(model, path="/nowhere/base.safetensors", name="x") for model in task.models)
    lacking = dataclasses.replace(task, models=tuple(dataclasses.replace(model, files={}) for model in models))
    result = node.run(lacking, EventQueue().put, "there")
    assert result.outcome.problem is not None
    assert result.outcome.problem.what == "has no x"
    result = node.run(dataclasses.replace(task, models=models), EventQueue().put, "there")
    assert result.outcome.status is Status.DONE
    kept = tmp_path / "node" / "models" / step.sources[0].digest / "base.safetensors"
    assert kept.read_bytes() == (cats.root / "base.safetensors").read_bytes()


def test_a_model_folder_is_fetched_with_its_paths(cats: harness.Project, depot: Storage, tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere" / "base"
    (folder / "unet").mkdir(parents=True)
    (folder / "unet" / "config.json").write_text("{}", "utf-8")
    (folder / "model_index.json").write_text("[]", "utf-8")
    digests = Digests(tmp_path / "digests.json")
    files = depot.put(folder.parent, [folder])
    assert set(files) == {"base/", "base/unet/config.json", "base/model_index.json"}
    model = ModelInput("checkpoint", digests.of(folder), "/nowhere/base", "base", files)
    assert node._model(model, digests, depot) == tmp_path / "node" / "models" / model.digest / "base"


def test_a_node_without_the_runs_folder_fails_the_step(cats: harness.Project) -> None:
    context, plan = planned(cats)
    result = node.run(make_task(context, plan.by_name["cat/dataset"], NOT_THERE), EventQueue().put, "there")
    assert result.outcome.status is Status.FAILED
    assert result.outcome.problem is not None
    assert "does not see the runs folder" in result.outcome.problem.what
    assert "--storage s3://bucket/krnk" in result.outcome.problem.hint


def test_a_node_is_checked_before_anything_runs(cats: harness.Project, depot: Storage) -> None:
    context, plan = planned(cats)
    models = make_task(context, plan.by_name["cat-lora/train"], "").models
    runs, recipes = str(context.store.root), tuple(context.plan.recipes.values())
    context.store.root.mkdir()
    (context.store.root / THERE).touch()
    query = node.NodeQuery(recipes, {"embedded": "1"}, models, runs, THERE, "", 0)
    assert node.check(query) == []
    assert node.check(dataclasses.replace(query, url=depot.url, token=TOKEN)) == []
    lost = tuple(dataclasses.replace(model, path="/nowhere/x", name="x") for model in models)
    problems = node.check(
        dataclasses.replace(query, models=lost, token=NOT_THERE, disk_bytes=1 << 62, versions={"embedded": "2"})
    )
    texts = "\n".join(str(problem) for problem in problems)
    for text in ("does not see the runs folder", "has no x", "free in", "is 1 on this node; the plan was made for 2"):
        assert text in texts
    stranger = node.check(dataclasses.replace(query, url=depot.url, token=NOT_THERE))
    assert [problem.what for problem in stranger] == ["is not the folder that the driver writes to"]


def test_a_node_with_another_engine_refuses_the_step_and_names_both_versions(cats: harness.Project, depot: Storage) -> None:
    context, plan = planned(cats)
    task = make_task(context, plan.by_name["cat-lora/train"], THERE)
    context.store.root.mkdir(exist_ok=True)
    (context.store.root / THERE).touch()
    result = node.run(dataclasses.replace(task, version="2"), EventQueue().put, "there")
    assert (result.outcome.status, result.files) == (Status.FAILED, {})
    assert result.outcome.problem is not None
    assert "is 1 on this node; the plan was made for 2" in result.outcome.problem.what


def test_a_shared_folder_is_used_as_it_is(cats: harness.Project) -> None:
    context, plan = planned(cats)
    context.store.root.mkdir()
    (context.store.root / THERE).touch()
    result = node.run(make_task(context, plan.by_name["cat/dataset"], THERE), EventQueue().put, "there cpu 1")
    assert (result.outcome.status, result.files) == (Status.DONE, {})
    assert cats.reasons("cat-lora")["cat/dataset"] == "cached"


def test_a_failed_training_resumes_from_its_uploaded_state(cats: harness.Project, depot: Storage, tmp_path: Path) -> None:
    cats.recipe("cat-lora", "lora", '[training.options]\nbehave = "die"\n')
    context, _ = planned(cats, "cat-lora")
    failed = {outcome.step.name: outcome for outcome in run_plan(context, Distant(depot))}["cat-lora/train"]
    assert failed.status is Status.FAILED
    assert failed.problem is not None
    assert str(cats.root / "runs") in failed.problem.hint
    reason = cats.reasons("cat-lora")["cat-lora/train"]
    assert re.fullmatch(r"resume at step 10; the attempt of [\d: -]+ has left no result", reason), reason
    shutil.rmtree(tmp_path / "node")  # another node takes over
    context, _ = planned(cats, "cat-lora")
    outcomes = {outcome.step.name: outcome for outcome in run_plan(context, Distant(depot))}
    assert outcomes["cat-lora/release"].status is Status.DONE
    record = json.loads(next((cats.root / "runs" / "cat-lora").glob("train-*/record.json")).read_text("utf-8"))
    assert record["resumed_from"] == 10


def test_a_node_sends_events_and_uploads_states_while_it_trains(cats: harness.Project, depot: Storage, tmp_path: Path) -> None:
    cats.recipe("cat-lora", "lora", "[training.options]\npause = 0.03\n")
    cats.run("cat-lora", only=("dataset",))
    context, plan = planned(cats, "cat-lora")
    step = plan.by_name["cat-lora/train"]
    queue = EventQueue()
    result = node.run(make_task(context, step, TOKEN, depot), queue.put, "there")
    events = queue.take(stop=False)
    assert events[0][:2] == ("begin", step.name)
    assert [event[2].total for event in events if event[0] == "progress"][-1] == 20
    at, files = depot.state(step)
    assert at in {5, 10, 15}
    depot.get(files, context.store.begin(step))  # as another node does
    assert cats.reasons("cat-lora")["cat-lora/train"].startswith("resume at step ")
    store_result(context, step, result, depot)
    assert depot.state(step) == (0, {})


def test_a_driver_that_stops_gets_the_state_back(cats: harness.Project, depot: Storage) -> None:
    cats.recipe("cat-lora", "lora", "[training]\nsteps = 400\n[training.options]\npause = 0.05\n")
    cats.run("cat-lora", only=("dataset",))
    context, plan = planned(cats, "cat-lora")
    step = plan.by_name["cat-lora/train"]
    result = node.run(make_task(context, step, TOKEN, depot), lambda _: depot.state(step)[0] > 0, "there")
    assert result.outcome.status is Status.STOPPED
    store_result(context, step, result, depot)
    assert cats.reasons("cat-lora")["cat-lora/train"].startswith("resume at step ")
