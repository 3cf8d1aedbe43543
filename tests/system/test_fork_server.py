"""The fork server.

A crash ends one step, memory does not grow, and the server ends with the orchestrator.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orchestrator.system import child, child_status, process, supervisor
from orchestrator.system.fork_server import ForkServer

needs_proc = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")


def ask(fork_server: ForkServer, work: Path, *argv: str, module: str = "orchestrator.dataset") -> child.Exit:
    work.mkdir(exist_ok=True)
    command = process.Command((sys.executable, "-m", module, *argv), cwd=work)
    return process.run(command, work, child.ChildCallbacks(lambda _: None), fork_server=fork_server)


def server(fork_server: ForkServer) -> int:
    assert fork_server._server is not None
    return fork_server._server.pid


def resident(pid: int) -> int:
    """Return the memory of a process in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_crash_fails_one_step_only(tmp_path: Path) -> None:
    fork_server = ForkServer()
    try:
        assert ask(fork_server, tmp_path / "one", "build", "no such request.json").code not in (0, None)
        first = server(fork_server)
        assert ask(fork_server, tmp_path / "two", module="orchestrator.no_such_module").code == 1
        assert "ModuleNotFoundError" in (tmp_path / "two" / child.LOG).read_text("utf-8")
        assert server(fork_server) == first
    finally:
        fork_server.close()


def test_a_dead_server_is_replaced(tmp_path: Path) -> None:
    fork_server = ForkServer()
    try:
        ask(fork_server, tmp_path / "one", "build", "none.json")
        first = server(fork_server)
        os.kill(first, signal.SIGKILL)
        while supervisor.started(first):
            time.sleep(0.01)
        assert ask(fork_server, tmp_path / "two", "build", "none.json").code not in (0, None)
        assert server(fork_server) != first
    finally:
        fork_server.close()


def test_a_step_whose_supervisor_cannot_note_anything_fails(tmp_path: Path) -> None:
    """As on a full disk: the wait for the note ends with the supervisor that should write it."""
    fork_server = ForkServer()
    (tmp_path / "one").mkdir()
    locked = tmp_path / "one" / supervisor.LOCK
    try:
        with locked.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            assert ask(fork_server, tmp_path / "one", "build", "none.json") == child.Exit(1)
        log = (tmp_path / "one" / child.LOG).read_text("utf-8")
        assert "another program works in" in log
        assert "could not be started" in log
    finally:
        fork_server.close()


@needs_proc
def test_memory_stays_as_it_is_however_many_steps_there_were(tmp_path: Path) -> None:
    fork_server = ForkServer()
    try:
        ask(fork_server, tmp_path / "first", "build", "none.json")
        before = resident(server(fork_server))
        for index in range(8):
            ask(fork_server, tmp_path / str(index), "build", "none.json")
        assert resident(server(fork_server)) < before + (4 << 20)
    finally:
        fork_server.close()


@needs_proc
def test_it_ends_with_the_orchestrator_however_that_ends(tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom orchestrator.system import child, fork_server, process\n"
        "work = Path(sys.argv[1])\nserver = fork_server.ForkServer()\n"
        "command = process.Command((sys.executable, '-m', 'orchestrator.dataset', 'build', 'none.json'), cwd=work)\n"
        "process.run(command, work, child.ChildCallbacks(lambda _: None), fork_server=server)\n"
        "print(server._server.pid, flush=True)\ntime.sleep(600)\n"
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
        "import os, sys\nfrom pathlib import Path\nfrom orchestrator.system import child, fork_server, process\n"
        "work = Path(sys.argv[1])\n"
        "command = process.Command((sys.executable, '-c', 'import time; time.sleep(600)'), cwd=work)\n"
        "process.run(command, work, child.ChildCallbacks(lambda _: None), leash=True)\n"
    )
    root = str(Path(process.__file__).resolve().parents[2])
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], env={**os.environ, "PYTHONPATH": root}) as parent:
        until = time.monotonic() + 60
        while not child_status.alive(tmp_path) and time.monotonic() < until:
            time.sleep(0.05)
        assert child_status.alive(tmp_path)
        parent.kill()
    until = time.monotonic() + 60
    while child_status.alive(tmp_path) and time.monotonic() < until:
        time.sleep(0.05)
    assert not child_status.alive(tmp_path)
