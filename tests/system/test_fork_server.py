"""The warm process: one crash is one step's, memory does not grow, and nobody outlives the orchestrator for long."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orchestrator.system import process, supervisor

needs_proc = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")


def ask(warm: process.Warm, work: Path, *argv: str, module: str = "orchestrator.dataset") -> process.Exit:
    work.mkdir(exist_ok=True)
    command = process.Command((sys.executable, "-m", module, *argv), cwd=work)
    return process.run(command, work, process.ChildCallbacks(lambda _: None), warm=warm)


def server(warm: process.Warm) -> int:
    assert warm._server is not None
    return warm._server.pid


def resident(pid: int) -> int:
    """Return the memory of a process in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_crash_fails_one_step_only(tmp_path: Path) -> None:
    warm = process.Warm()
    try:
        assert ask(warm, tmp_path / "one", "build", "no such request.json").code not in (0, None)
        first = server(warm)
        assert ask(warm, tmp_path / "two", module="orchestrator.no_such_module").code == 1
        assert "ModuleNotFoundError" in (tmp_path / "two" / process.LOG).read_text("utf-8")
        assert server(warm) == first
    finally:
        warm.close()


def test_a_dead_server_is_replaced(tmp_path: Path) -> None:
    warm = process.Warm()
    try:
        ask(warm, tmp_path / "one", "build", "none.json")
        first = server(warm)
        os.kill(first, signal.SIGKILL)
        while supervisor.started(first):
            time.sleep(0.01)
        assert ask(warm, tmp_path / "two", "build", "none.json").code not in (0, None)
        assert server(warm) != first
    finally:
        warm.close()


def test_a_step_whose_supervisor_cannot_note_anything_fails(tmp_path: Path) -> None:
    """As on a full disk: the one who waits for the note must see that nobody is left to write it."""
    warm = process.Warm()
    (tmp_path / "one").mkdir()
    locked = tmp_path / "one" / supervisor.LOCK
    try:
        with locked.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            assert ask(warm, tmp_path / "one", "build", "none.json") == process.Exit(1)
        said = (tmp_path / "one" / process.LOG).read_text("utf-8")
        assert "another program works in" in said
        assert "could not be started" in said
    finally:
        warm.close()


@needs_proc
def test_memory_stays_as_it_is_however_many_steps_there_were(tmp_path: Path) -> None:
    warm = process.Warm()
    try:
        ask(warm, tmp_path / "first", "build", "none.json")
        before = resident(server(warm))
        for index in range(8):
            ask(warm, tmp_path / str(index), "build", "none.json")
        assert resident(server(warm)) < before + (4 << 20)
    finally:
        warm.close()


@needs_proc
def test_it_ends_with_the_orchestrator_however_that_ends(tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom orchestrator.system import process\n"
        "work = Path(sys.argv[1])\nwarm = process.Warm()\n"
        "command = process.Command((sys.executable, '-m', 'orchestrator.dataset', 'build', 'none.json'), cwd=work)\n"
        "process.run(command, work, process.ChildCallbacks(lambda _: None), warm=warm)\n"
        "print(warm._server.pid, flush=True)\ntime.sleep(600)\n"
    )
    root = str(Path(process.__file__).resolve().parents[2])
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": root}
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert supervisor.started(pid)
        parent.kill()
    until = time.monotonic() + 60
    while supervisor.started(pid) and time.monotonic() < until:
        time.sleep(0.05)
    assert not supervisor.started(pid)


def test_a_leash_ends_the_child_of_an_orchestrator_that_is_gone(tmp_path: Path) -> None:
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom orchestrator.system import process\n"
        "work = Path(sys.argv[1])\n"
        "command = process.Command((sys.executable, '-c', 'import time; time.sleep(600)'), cwd=work)\n"
        "process.run(command, work, process.ChildCallbacks(lambda _: None), leash=True)\n"
    )
    root = str(Path(process.__file__).resolve().parents[2])
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], env={**os.environ, "PYTHONPATH": root}) as parent:
        until = time.monotonic() + 60
        while not process.alive(tmp_path) and time.monotonic() < until:
            time.sleep(0.05)
        assert process.alive(tmp_path)
        parent.kill()
    until = time.monotonic() + 60
    while process.alive(tmp_path) and time.monotonic() < until:
        time.sleep(0.05)
    assert not process.alive(tmp_path)
