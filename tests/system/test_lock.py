"""Holders of locks.

On this host they are recognized by pid and start time, on another by a heartbeat.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from children import ELSEWHERE
from orchestrator.errors import NotReady
from orchestrator.run.context import Status
from orchestrator.system import lock, supervisor

if TYPE_CHECKING:
    from pathlib import Path

    import harness


def forged(age: float, **more: Any) -> lock.LockHolder:
    holder = replace(lock.current_process(), host="other-host", host_id=ELSEWHERE, pid=4711, since=time.time() - 3600)
    return replace(holder, age=age, **more)


def put(path: Path, holder: lock.LockHolder) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        lock.write(file.fileno(), holder)
    os.utime(path, (time.time() - holder.age,) * 2)


def ignore(_: str) -> None:
    pytest.fail("the lock was lost")


def test_a_lock_of_another_host_that_gives_signs_of_life_is_respected(tmp_path: Path) -> None:
    put(tmp_path / "cat" / ".lock", forged(3.0))
    with pytest.raises(NotReady) as refused, lock.hold([tmp_path / "cat" / ".lock"], ignore):
        pass
    (problem,) = refused.value.problems
    assert problem.where == "cat"
    assert "process 4711 on other-host since " in problem.what
    assert "last sign of life 3 s ago" in problem.what
    assert "60 s counts as dead" in problem.hint
    holder = lock.read(tmp_path / "cat" / ".lock")
    assert holder is not None
    assert holder.host == "other-host", "the refused process has written its name"


def test_a_lock_of_another_host_without_a_sign_of_life_is_taken_over_and_cleared_in_the_end(tmp_path: Path) -> None:
    path = tmp_path / "cat" / ".lock"
    put(path, forged(lock.STALE_SECONDS + 1))
    with lock.hold([path], ignore):
        holder = lock.read(path)
        assert holder is not None
        assert (holder.pid, holder.here, holder.alive) == (os.getpid(), True, True)
        with pytest.raises(NotReady, match=f"process {os.getpid()} on "), lock.hold([path], ignore):
            pass
    assert path.read_bytes() == b""


def test_a_name_of_this_host_is_no_longer_alive_when_its_process_is_gone_or_is_another(tmp_path: Path) -> None:
    assert lock.current_process().alive
    assert not replace(lock.current_process(), started="1").alive
    assert not replace(lock.current_process(), pid=2**22 + 1).alive
    put(tmp_path / ".lock", replace(lock.current_process(), started="1"))
    with lock.hold([tmp_path / ".lock"], ignore):
        pass


def test_a_heartbeat_keeps_a_file_fresh_and_reports_a_takeover(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "BEAT_SECONDS", 0.02)
    path, lost, reported = tmp_path / ".lock", [], threading.Event()

    def take(text: str) -> None:
        lost.append(text)
        reported.set()

    with lock.hold([path], take):
        os.utime(path, (1.0, 1.0))
        until = time.monotonic() + 20
        while path.stat().st_mtime == 1.0 and time.monotonic() < until:
            time.sleep(0.01)
        assert path.stat().st_mtime > 1.0
        put(path, forged(0.0))
        assert reported.wait(20)
    assert "has been taken over by process 4711 on other-host since " in lost[0]


@pytest.mark.parametrize(
    "content", [b"", b"{", b"process 1 on x since then\n", b"[]", b'{"pid": "x"}', b"\xff\n{}", b"a\n[1]\n"]
)
def test_any_content_names_a_holder_or_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / ".lock").write_bytes(content)
    assert lock.read(tmp_path / ".lock") is None
    assert lock.read(tmp_path / "none") is None


def test_the_time_is_that_of_the_folder(tmp_path: Path) -> None:
    assert abs(lock.now(tmp_path) - time.time()) < 5
    assert list(tmp_path.iterdir()) == []
    assert lock.now(tmp_path / "none") > 0


def test_a_dataset_that_another_run_builds_is_waited_for_and_named(cats: harness.Project) -> None:
    """The lock of a shared step: the holder stands in the message, and ^C ends the wait."""
    cats.recipe("cat-lora", "lora", "[dataset]\nsizes = [32]\n")
    (cats.root / "runs" / "cat").mkdir(parents=True, exist_ok=True)
    done: list[Status] = []
    with (cats.root / "runs" / "cat" / ".shared-lock").open("a+b") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        lock.write(held.fileno(), lock.current_process())
        thread = threading.Thread(target=lambda: done.append(cats.run("cat-lora", only=("dataset",))["cat/dataset"].status))
        thread.start()
        until = time.monotonic() + 60
        while not cats.observer.messages and time.monotonic() < until:
            time.sleep(0.02)
        assert f"cat/dataset: waits for process {os.getpid()} on " in cats.observer.messages[0]
        assert not done
    thread.join(60)
    assert done == [Status.DONE]
