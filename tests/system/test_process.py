"""Children: their environment, their output and their end."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from typing import TYPE_CHECKING

import pytest

from orchestrator.system import child, log_tail, process, supervisor
from orchestrator.system.child import ChildCallbacks, Exit, Progress
from orchestrator.system.fork_server import ForkServer
from orchestrator.system.process import Command

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "wörk; echo 'no' \n猫"
    folder.mkdir()
    return folder


def python(work: Path, code: str, **more: object) -> Command:
    return Command((sys.executable, "-c", code), cwd=work, **more)  # type: ignore[arg-type]


def run(work: Path, code: str) -> tuple[Exit, list[str]]:
    pieces: list[str] = []

    def read(piece: str) -> Progress | None:
        pieces.append(piece)
        return Progress(fault="NaN") if "nan" in piece else None

    return process.run(python(work, code), work, ChildCallbacks(read)), pieces


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


def test_a_log_that_is_longer_than_one_reading_is_behind_until_its_end(work: Path) -> None:
    (work / "log.txt").write_bytes(b"a line\n" * (log_tail.MAX_READ // 5))
    tail = log_tail.LogTail(work / "log.txt", 0)
    reads: list[tuple[int, bool]] = []
    while pieces := tail.pieces():
        reads.append((len(pieces), tail.behind))
    tail.close()
    assert [behind for _, behind in reads] == [True, False]
    assert sum(count for count, _ in reads) == log_tail.MAX_READ // 5


def test_a_fault_in_the_output_ends_the_child_within_seconds(work: Path) -> None:
    begun = time.monotonic()
    end, _ = run(work, "import time; print('loss nan', flush=True); time.sleep(60)")
    assert (end.fault, end.ok) == ("NaN", False)
    assert time.monotonic() - begun < 20


@pytest.mark.parametrize(("code", "expected"), [("import sys; sys.exit(3)", 3), ("import os; os.kill(os.getpid(), 9)", -9)])
def test_exit_codes(work: Path, code: str, expected: int) -> None:
    assert run(work, code)[0] == Exit(expected)


def test_a_program_that_does_not_exist_says_so(work: Path) -> None:
    end = process.run(Command(("/no/such/program",), cwd=work), work, ChildCallbacks(lambda _: None))
    assert end == Exit(127)
    assert "cannot start /no/such/program" in (work / "log.txt").read_text("utf-8")


def test_files_are_there_before_the_start_and_env_is_added(work: Path) -> None:
    command = python(work, "import os; print(open('a.txt').read(), os.environ['NEW'], 'PATH' in os.environ)")
    process.run(Command(command.argv, work, {"NEW": "new"}, {"a.txt": "content"}), work, ChildCallbacks(lambda _: None))
    assert (work / "log.txt").read_text("utf-8") == "content new True\n"


def test_stdin_is_closed(work: Path) -> None:
    assert run(work, "import sys; sys.exit(len(sys.stdin.read()))")[0] == Exit(0)


def test_stop_ends_a_group_that_ignores_term(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "GRACE_SECONDS", 0.5)
    code = (
        "import os, signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = os.fork()\n"
        "open('pids', 'a').write(f'{os.getpid()}\\n')\n"
        "print('up', flush=True)\n"
        "time.sleep(60)\n"
    )
    output: list[str] = []

    def read(piece: str) -> None:
        output.append(piece)
        if "".join(output).count("up") == 2:  # both ignore TERM by now; what they print may be one piece
            watch.stop.set()

    watch = ChildCallbacks(read)
    end = process.run(python(work, code), work, watch)
    assert end.stopped
    time.sleep(0.2)
    for pid in (work / "pids").read_text("utf-8").split():
        assert supervisor.started(int(pid)) == ""


def test_variables_of_a_launcher_do_not_reach_a_child(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "ACCELERATE_MIXED_PRECISION", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.setenv(name, "4")
    monkeypatch.setenv("KEPT", "4")
    code = "import os; print([n for n in os.environ if n.startswith(('ACCEL', 'LOCAL_R', 'WORLD', 'KEPT'))], flush=True)"
    end, pieces = run(work, code)
    assert (end.ok, pieces) == (True, ["['KEPT']"])


def test_a_silent_child_is_reported_as_stalled(work: Path) -> None:
    stalls: list[float] = []
    watch = ChildCallbacks(lambda _: None, stalled=stalls.append, stall_seconds=0.3)
    process.run(python(work, "import time; time.sleep(1.2)"), work, watch)
    assert len(stalls) >= 2


def test_lines_that_are_no_frames_do_not_hide_a_stall(work: Path) -> None:
    stalls: list[float] = []
    watch = ChildCallbacks(lambda _: None, stalled=stalls.append, stall_seconds=0.3)
    code = "import time\nprint(' 50%|xx|', flush=True)\n"
    code += "for n in range(24):\n    print('warning', n, flush=True); time.sleep(0.05)\n"
    process.run(python(work, code), work, watch)
    assert len(stalls) >= 2
    stalls.clear()
    process.run(python(work, code.replace("'warning', n", "f'{n}%|xx|'")), work, watch)
    assert stalls == []


def test_a_frame_is_read_before_the_next_one_ends_it(work: Path) -> None:
    """A training's last frame before a long step is read at once.

    So is a lost loss in it, and each only once.
    """
    code = "import sys, time\nfor n in (1, 2):\n"
    code += "    sys.stderr.write(f'\\rsteps: 50%|x| {n}/2 [00:01<00:01]'); sys.stderr.flush()\n"
    pieces: list[str] = []

    def read(piece: str) -> Progress | None:
        pieces.append(piece)
        return Progress(fault="lost") if "2/2" in piece else None

    end = process.run(python(work, code + "time.sleep(600)\n"), work, ChildCallbacks(read))
    assert (end.fault, pieces) == ("lost", ["steps: 50%|x| 1/2 [00:01<00:01]", "steps: 50%|x| 2/2 [00:01<00:01]"])
    pieces.clear()
    process.run(python(work, code + "time.sleep(0.5)\nsys.stderr.write('\\nend')\n"), work, ChildCallbacks(pieces.append))
    assert pieces == ["steps: 50%|x| 1/2 [00:01<00:01]", "steps: 50%|x| 2/2 [00:01<00:01]", "end"]


def test_the_child_outlives_its_supervisor_and_its_end_is_noticed(work: Path) -> None:
    # it waits first: on a busy machine its supervisor may not have noted its child yet
    code = "import os, time; time.sleep(1); os.kill(os.getppid(), 9); time.sleep(0.5); print('done', flush=True)"
    end, pieces = run(work, code)
    assert end == Exit(None)
    assert pieces == ["done"]


def test_alive_asks_for_the_start_time_too(work: Path) -> None:
    assert not child.alive(work)
    (work / supervisor.CHILD).write_text(f'{{"pid": {os.getpid()}, "pid_started": "1"}}', "utf-8")
    assert not child.alive(work)
    (work / supervisor.CHILD).write_text(
        f'{{"pid": {os.getpid()}, "pid_started": "{supervisor.started(os.getpid())}"}}', "utf-8"
    )
    assert child.alive(work)


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


def test_a_note_that_names_the_first_process_signals_no_process(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []
    monkeypatch.setattr(os, "killpg", lambda group, _: sent.append(group))
    for pid in (1, 0, -1):
        note = {"supervisor": pid, "supervisor_started": supervisor.started(1), "pid": pid, "pid_started": ""}
        (work / supervisor.CHILD).write_text(json.dumps(note), "utf-8")
        assert not child._signal(work, signal.SIGCONT)
    assert sent == []


def test_capture_says_why_a_program_cannot_be_asked() -> None:
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
