"""Steps on nodes that share nothing with the driver, without a cluster: parcels, carriers, states, what comes back."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import shutil
import socket
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import pytest

import harness
from orchestrator.errors import NotReady, StepFailed
from orchestrator.plan.step import Lane, StepKind
from orchestrator.run.cluster import connect, node, receive
from orchestrator.run.cluster.events import Board
from orchestrator.run.cluster.storage import Folder, Inside, fetch
from orchestrator.run.cluster.task import Answer, Item, Missing, pack, part
from orchestrator.run.context import RunContext, Status
from orchestrator.run.runner import run_plan
from orchestrator.run.slots import Slot

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.plan.planner import Plan
    from orchestrator.run.cluster.storage import Sender


NOT_THERE, THERE = ".shared-not-there", ".shared-x"


@pytest.fixture
def cats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> harness.Project:
    monkeypatch.setenv("KRNK_NODE", str(tmp_path / "node"))
    return harness.make(tmp_path / "project", monkeypatch)


class Distant:
    """Places on one node that does not share the runs folder: everything travels, one step at a time."""

    def __init__(self, sender: Sender, url: str = "") -> None:
        self.sender, self.url = sender, url
        self.board = Board()

    def take(self, lane: Lane, **_: Any) -> Slot:
        return Slot(lane)

    def submit(self, _slot: Slot, _fn: Any, *args: Any) -> Future[Any]:
        job, step = args
        future: Future[Any] = Future()
        parcel = pack(job, step, self.sender, models={source.digest for source in step.sources}, ship=True, token="")
        answer = node.run(dataclasses.replace(parcel, url=self.url), self.board.tell, "there gpu 0")
        assert isinstance(answer, Answer)
        future.set_result(receive.put(job, step, answer))
        return future


def planned(cats: harness.Project, name: str = "all") -> tuple[RunContext, Plan]:
    space = cats.space()
    plan = space.plan(space.load(harness.Selection((name,))))
    return RunContext(plan, space.store, cats.root, harness.RecordingObserver()), plan


@pytest.mark.parametrize("through", ["inside", "folder"])
def test_steps_of_a_distant_node_are_those_of_this_machine(cats: harness.Project, tmp_path: Path, through: str) -> None:
    cats.recipe("cat-loha", "other")
    url = f"file://{tmp_path / 'depot'}" if through == "folder" else ""
    job, _ = planned(cats)
    outcomes = run_plan(job, Distant(Folder(url) if url else Inside(), url))
    assert {outcome.status for outcome in outcomes} == {Status.DONE}, [outcome.problem for outcome in outcomes]
    assert {outcome.status for outcome in cats.run("all").values()} == {Status.CACHED}
    assert {outcome.status for outcome in cats.run("all", verify=True).values()} == {Status.CACHED}
    assert list((cats.root / "runs").glob("*/.partial/*")) == []
    if url:
        names = [path for path in (tmp_path / "depot").rglob("*") if path.is_file()]
        assert names
        assert all(hashlib.sha256(path.read_bytes()).hexdigest() == path.name for path in names)


def test_content_is_fetched_once_per_node(cats: harness.Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[str] = []

    def counting(handle: Any, digest: str, target: Path) -> None:
        fetched.append(digest)
        fetch(handle, digest, target)

    monkeypatch.setattr("orchestrator.run.cluster.bring.fetch", counting)
    cats.recipe("cat-loha", "other")
    job, _ = planned(cats)
    run_plan(job, Distant(Inside()))
    assert len(fetched) == len(set(fetched))
    base = hashlib.sha256((cats.root / "base.safetensors").read_bytes()).hexdigest()
    # the fake trainer needs no base at the driver's path; the node finds it there, and fetches none
    assert base not in fetched


def test_a_model_that_the_node_lacks_is_asked_for_and_then_sent(cats: harness.Project, tmp_path: Path) -> None:
    cats.run("cat-lora", only=("dataset",))
    job, plan = planned(cats)
    step = plan.by_name["cat-lora/train"]
    parcel = pack(job, step, Inside(), models=(), ship=True, token="")
    elsewhere = dataclasses.replace(
        parcel, models=tuple(dataclasses.replace(m, path="/nowhere/x", name="x") for m in parcel.models)
    )
    board = Board()
    assert node.run(elsewhere, board.tell, "there") == Missing((step.sources[0].digest,))
    sent = pack(job, step, Inside(), models={step.sources[0].digest}, ship=True, token="")
    models = tuple(
        dataclasses.replace(model, path="/nowhere/base.safetensors", name="base.safetensors") for model in sent.models
    )
    answer = node.run(dataclasses.replace(sent, models=models), board.tell, "there")
    assert isinstance(answer, Answer)
    assert answer.outcome.status is Status.DONE
    kept = tmp_path / "node" / "models" / step.sources[0].digest / "base.safetensors"
    assert kept.read_bytes() == (cats.root / "base.safetensors").read_bytes()


def test_a_node_that_does_not_see_the_runs_folder_says_so(cats: harness.Project) -> None:
    job, plan = planned(cats)
    parcel = pack(job, plan.by_name["cat/dataset"], Inside(), models=(), ship=False, token=NOT_THERE)
    assert node.run(parcel, Board().tell, "there") == Missing(runs=True)


def test_a_node_with_another_engine_refuses_the_step_and_says_both_versions(cats: harness.Project) -> None:
    job, plan = planned(cats)
    parcel = pack(job, plan.by_name["cat-lora/train"], Inside(), models=(), ship=True, token="")
    answer = node.run(dataclasses.replace(parcel, version="2"), Board().tell, "there")
    assert isinstance(answer, Answer)
    assert (answer.outcome.status, answer.files) == (Status.FAILED, ())
    assert answer.outcome.problem is not None
    assert "is 1 on this node; the plan was made for 2" in answer.outcome.problem.what


def test_a_shared_folder_is_used_as_it_is(cats: harness.Project) -> None:
    job, plan = planned(cats)
    job.store.root.mkdir()
    (job.store.root / ".shared-x").touch()
    parcel = pack(job, plan.by_name["cat/dataset"], Inside(), models=(), ship=False, token=THERE)
    answer = node.run(parcel, Board().tell, "there cpu 1")
    assert isinstance(answer, Answer)
    assert (answer.outcome.status, answer.files) == (Status.DONE, ())
    assert cats.reasons("cat-lora")["cat/dataset"] == "cached"


def test_a_training_that_ended_badly_goes_on_from_the_state_that_was_handed_over(
    cats: harness.Project, tmp_path: Path
) -> None:
    cats.recipe("cat-lora", "lora", '[training.options]\nbehave = "die"\n')
    job, _ = planned(cats, "cat-lora")
    failed = {outcome.step.name: outcome for outcome in run_plan(job, Distant(Inside()))}["cat-lora/train"]
    assert failed.status is Status.FAILED
    assert failed.problem is not None
    assert str(cats.root / "runs") in failed.problem.hint
    reason = cats.reasons("cat-lora")["cat-lora/train"]
    assert re.fullmatch(r"resume at step 10; the attempt of [\d: -]+ has left no result", reason), reason
    shutil.rmtree(tmp_path / "node")  # another node takes over
    job, _ = planned(cats, "cat-lora")
    outcomes = {outcome.step.name: outcome for outcome in run_plan(job, Distant(Inside()))}
    assert outcomes["cat-lora/release"].status is Status.DONE
    record = json.loads(next((cats.root / "runs" / "cat-lora").glob("train-*/record.json")).read_text("utf-8"))
    assert record["resumed_from"] == 10


def test_a_node_tells_what_happens_and_hands_over_states_while_it_trains(cats: harness.Project) -> None:
    cats.recipe("cat-lora", "lora", "[training.options]\npause = 0.03\n")
    cats.run("cat-lora", only=("dataset",))
    job, plan = planned(cats, "cat-lora")
    step = plan.by_name["cat-lora/train"]
    board = Board()
    node.run(pack(job, step, Inside(), models=(), ship=True, token=""), board.tell, "there")
    events = board.take(stop=False)
    assert events[0][:2] == ("begin", step.name)
    assert [event[2].total for event in events if event[0] == "progress"][-1] == 20
    states = [event[2] for event in events if event[0] == "state"]
    assert states
    receive.state(job, step, states[-1])
    assert cats.reasons("cat-lora")["cat-lora/train"].startswith("resume at step ")


def test_a_driver_that_stops_ends_the_step_and_its_state_comes_back(cats: harness.Project) -> None:
    cats.recipe("cat-lora", "lora", "[training]\nsteps = 400\n[training.options]\npause = 0.05\n")
    cats.run("cat-lora", only=("dataset",))
    job, plan = planned(cats, "cat-lora")
    step = plan.by_name["cat-lora/train"]
    seen: list[Any] = []

    def tell(events: list[Any]) -> bool:
        seen.extend(events)
        return any(event[0] == "state" for event in seen)

    answer = node.run(pack(job, step, Inside(), models=(), ship=True, token=""), tell, "there")
    assert isinstance(answer, Answer)
    assert answer.outcome.status is Status.STOPPED
    receive.put(job, step, answer)
    assert cats.reasons("cat-lora")["cat-lora/train"].startswith("resume at step ")


def test_an_address_where_nothing_answers_is_said_at_once() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: nobody else gets it, and nothing answers
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(NotReady, match="nothing answers there"):
            connect.join(address)


def test_a_driver_outside_the_cluster_is_told_to_join_it() -> None:
    with pytest.raises(NotReady, match="ray start --address=HOST:6379"):
        connect.join("ray://192.0.2.1:10001")


def test_a_folder_that_cannot_be_reached_is_said_with_its_address(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", "utf-8")
    folder = Folder(f"file://{tmp_path / 'file'}")
    with pytest.raises(NotReady, match="every node must be able to write there"):
        folder.leave("token")
    good = Folder(f"file://{tmp_path / 'depot'}")
    good.leave("token")
    assert good.sees("token") == []
    assert "is not the folder that the driver writes to" in good.sees("other")[0].what
    good.clear("token")
    assert list((tmp_path / "depot").iterdir()) == []


def test_content_that_changed_on_its_way_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match="arrived with digest"):
        fetch(b"other", hashlib.sha256(b"this").hexdigest(), tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["../outside", "/etc/outside", "a/../../b"])
def test_a_node_cannot_write_outside_the_work_folder(cats: harness.Project, name: str) -> None:
    job, plan = planned(cats)
    step = plan.by_name["cat/dataset"]
    outcome = node.failed(step, node.Problem("x", "y"))
    with pytest.raises(StepFailed, match="handed over a file called"):
        receive.put(job, step, Answer(outcome, "there", (Item(name, "00", b""),)))


def test_a_record_of_another_step_is_refused(cats: harness.Project) -> None:
    cats.run("cat-lora")
    job, plan = planned(cats)
    other, step = plan.by_name["cat-lora/merge"], plan.by_name["cat-lora/train"]
    parcel = pack(job, plan.by_name["cat-lora/render"], Inside(), models=(), ship=True, token="")
    outcome = dataclasses.replace(node.failed(step, node.Problem("x", "y")), status=Status.DONE, problem=None)
    with pytest.raises(StepFailed, match="a record of another step"):
        receive.put(job, step, Answer(outcome, "there", parcel.results[other.name]))


def test_a_part_holds_what_a_step_reads_and_no_more(cats: harness.Project) -> None:
    for name in ("cat-a", "cat-b"):
        cats.recipe(name, name[-1])
    _, plan = planned(cats)
    assert [step.name for step in part(plan, plan.by_name["cat-a/merge"]).steps] == ["cat-a/train", "cat-a/merge"]
    release = part(plan, plan.by_name["cat-a/release"])
    assert {step.name for step in release.steps} == {step.name for step in plan.of("cat-a")}
    assert set(part(plan, plan.by_name["cats/release"]).recipes) == {"cat-a", "cat-b", "cat-lora"}
    dataset = part(plan, plan.by_name["cat/dataset"])
    assert (len(dataset.steps), dataset.steps[0].kind) == (1, StepKind.DATASET)
