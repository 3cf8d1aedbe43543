"""Children: their environment, their output and their end."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING

import pytest

from children import python, run
from orchestrator.system import process
from orchestrator.system.child import ChildCallbacks, Exit
from orchestrator.system.fork_server import ForkServer
from orchestrator.system.process import Command

if TYPE_CHECKING:
    from pathlib import Path


def test_pieces_end_at_carriage_returns_too(work: Path) -> None:
    end, pieces = run(work, r"import sys; sys.stderr.write('a 1\ra 2\ra 3\n'); sys.stdout.write('b\r\nlast')")
    assert end == Exit(0)
    assert set(pieces) == {"a 1", "a 2", "a 3", "b", "last"} or "".join(pieces).count("a ") == 3


def test_the_log_keeps_every_byte(work: Path) -> None:
    run(work, r"import sys; sys.stdout.buffer.write(b'\xff\x00\x1b[31m\r' * 3)")
    assert (work / "log.txt").read_bytes() == b"\xff\x00\x1b[31m\r" * 3


def test_a_megabyte_without_a_line_end_is_read_in_parts(work: Path) -> None:
    end, pieces = run(work, "import sys; sys.stdout.write('x' * (1 << 20))")
    assert end.ok
    assert sum(len(piece) for piece in pieces) == 1 << 20
    assert len(pieces) > 1


@pytest.mark.parametrize(("code", "expected"), [("import sys; sys.exit(3)", 3), ("import os; os.kill(os.getpid(), 9)", -9)])
def test_exit_codes(work: Path, code: str, expected: int) -> None:
    assert run(work, code)[0] == Exit(expected)


def test_a_missing_program_is_named_in_the_log(work: Path) -> None:
    end = process.run(Command(("/no/such/program",), cwd=work), work, ChildCallbacks(lambda _: None))
    assert end == Exit(127)
    assert "cannot start /no/such/program" in (work / "log.txt").read_text("utf-8")


def test_files_are_there_before_the_start_and_env_is_added(work: Path) -> None:
    command = python(work, "import os; print(open('a.txt').read(), os.environ['NEW'], 'PATH' in os.environ)")
    process.run(Command(command.argv, work, {"NEW": "new"}, {"a.txt": "content"}), work, ChildCallbacks(lambda _: None))
    assert (work / "log.txt").read_text("utf-8") == "content new True\n"


def test_stdin_is_closed(work: Path) -> None:
    assert run(work, "import sys; sys.exit(len(sys.stdin.read()))")[0] == Exit(0)


def test_variables_of_a_launcher_do_not_reach_a_child(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "ACCELERATE_MIXED_PRECISION", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.setenv(name, "4")
    monkeypatch.setenv("KEPT", "4")
    code = "import os; print([n for n in os.environ if n.startswith(('ACCEL', 'LOCAL_R', 'WORLD', 'KEPT'))], flush=True)"
    end, pieces = run(work, code)
    assert (end.ok, pieces) == (True, ["['KEPT']"])


def test_a_warm_process_runs_our_programs_and_a_crash_in_one_is_its_own(work: Path, tmp_path: Path) -> None:
    fork_server = ForkServer()
    request = tmp_path / "none.json"
    bad = Command((sys.executable, "-m", "orchestrator.release.grid", str(request)), cwd=work)
    try:
        assert process.run(bad, work, ChildCallbacks(lambda _: None), fork_server=fork_server).code not in (0, None)
        assert str(request) in (work / "log.txt").read_text("utf-8")
        other = tmp_path / "other"
        other.mkdir()
        killed = ChildCallbacks(lambda _: None)
        end = process.run(Command(bad.argv, cwd=other), other, killed, fork_server=fork_server)
        assert end.code not in (0, None)
    finally:
        fork_server.close()


def test_capture_returns_the_reason_of_a_failed_start() -> None:
    code, text = process.capture(("/no/such/program",))
    assert code == 127
    assert "No such file" in text


def test_signals_reset_for_the_child(work: Path) -> None:
    code = "import signal, sys; sys.exit(signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL)"
    before = signal.signal(signal.SIGTERM, lambda *_: None)  # as a run's command line does
    try:
        assert run(work, code)[0] == Exit(0)
    finally:
        signal.signal(signal.SIGTERM, before)
