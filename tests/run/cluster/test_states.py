"""The newest state of a training in the storage."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import fakes
from distant import planned
from orchestrator.run.cluster.states import TrainingStates

if TYPE_CHECKING:
    import harness
    from orchestrator.run.cluster.storage import Storage


def test_each_state_is_uploaded_once_and_the_newest_is_fetched(
    cats: harness.Project, depot: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, plan = planned(cats, "cat-lora")
    step = plan.by_name["cat-lora/train"]
    work = context.store.work(step)
    states = TrainingStates(depot, step, fakes, work)
    states.upload()
    assert depot.state(step) == (0, {})
    for number in (5, 10):
        (work / f"step{number:04}-state").mkdir(parents=True)
        (work / f"step{number:04}-state" / "weights").write_text(str(number), "utf-8")
    states.upload()
    assert depot.state(step)[0] == 10
    with monkeypatch.context() as patch:
        patch.setattr(depot, "write", lambda *_: pytest.fail("the state was uploaded again"))
        states.upload()

    (work / "step0010-state").rename(work / "set aside")  # a retry begins again, at an earlier step
    states.upload()
    assert depot.state(step)[0] == 5

    (work / "step0010-state").mkdir()
    states.download(context.store)  # this node's own is newer
    assert not (work / "step0010-state" / "weights").exists()
    (work / "step0010-state").rmdir()
    (work / "step0005-state").rename(work / "lost")
    states.download(context.store)
    assert (work / "step0005-state" / "weights").read_text("utf-8") == "5"
