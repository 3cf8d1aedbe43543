"""Tasks of steps, and their results in the driver's store."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import pytest

from distant import TOKEN, Distant, planned
from orchestrator.errors import StepFailed
from orchestrator.plan.step import StepKind
from orchestrator.run.cluster import node
from orchestrator.run.cluster.task import TaskResult, make_task, store_result, sub_plan
from orchestrator.run.context import Status
from orchestrator.run.runner import run_plan

if TYPE_CHECKING:
    import harness
    from orchestrator.run.cluster.storage import Storage


def test_a_state_of_this_machine_is_uploaded_and_resumed(cats: harness.Project, depot: Storage) -> None:
    cats.recipe("cat-lora", "lora", '[training.options]\nbehave = "die"\n')
    cats.run("cat-lora")
    context, plan = planned(cats, "cat-lora")
    step = plan.by_name["cat-lora/train"]
    make_task(context, step, TOKEN, depot)
    assert depot.state(step)[0] == 10
    outcomes = {outcome.step.name: outcome for outcome in run_plan(context, Distant(depot))}
    assert outcomes["cat-lora/release"].status is Status.DONE
    record = json.loads(next((cats.root / "runs" / "cat-lora").glob("train-*/record.json")).read_text("utf-8"))
    assert record["resumed_from"] == 10


@pytest.mark.parametrize("name", ["../outside", "/etc/outside", "a/../../b"])
def test_a_node_cannot_write_outside_the_work_folder(cats: harness.Project, depot: Storage, name: str) -> None:
    context, plan = planned(cats)
    step = plan.by_name["cat/dataset"]
    outcome = node.failed(step, node.Problem("x", "y"))
    with pytest.raises(StepFailed, match="handed over a file called"):
        store_result(context, step, TaskResult(outcome, "there", {name: "00"}), depot)


def test_a_record_of_another_step_is_refused(cats: harness.Project, depot: Storage) -> None:
    cats.run("cat-lora")
    context, plan = planned(cats)
    other, step = plan.by_name["cat-lora/merge"], plan.by_name["cat-lora/train"]
    task = make_task(context, plan.by_name["cat-lora/render"], TOKEN, depot)
    outcome = dataclasses.replace(node.failed(step, node.Problem("x", "y")), status=Status.DONE, problem=None)
    with pytest.raises(StepFailed, match="a record of another step"):
        store_result(context, step, TaskResult(outcome, "there", task.results[other.name]), depot)


def test_a_result_without_an_output_of_its_record_is_refused(cats: harness.Project, depot: Storage) -> None:
    cats.run("cat-lora")
    context, plan = planned(cats)
    step = plan.by_name["cat-lora/merge"]
    files = make_task(context, plan.by_name["cat-lora/render"], TOKEN, depot).results[step.name]
    outcome = dataclasses.replace(node.failed(step, node.Problem("x", "y")), status=Status.DONE, problem=None)
    files = {name: digest for name, digest in files.items() if not name.endswith(".safetensors")}
    with pytest.raises(StepFailed, match=r"has not handed over .* with the digest of its record"):
        store_result(context, step, TaskResult(outcome, "there", files), depot)


def test_a_sub_plan_holds_the_steps_that_a_step_reads(cats: harness.Project) -> None:
    for name in ("cat-a", "cat-b"):
        cats.recipe(name, name[-1])
    _, plan = planned(cats)
    assert [step.name for step in sub_plan(plan, plan.by_name["cat-a/merge"]).steps] == ["cat-a/train", "cat-a/merge"]
    release = sub_plan(plan, plan.by_name["cat-a/release"])
    assert {step.name for step in release.steps} == {step.name for step in plan.of("cat-a")}
    assert set(sub_plan(plan, plan.by_name["cats/release"]).recipes) == {"cat-a", "cat-b", "cat-lora"}
    dataset = sub_plan(plan, plan.by_name["cat/dataset"])
    assert (len(dataset.steps), dataset.steps[0].kind) == (1, StepKind.DATASET)
