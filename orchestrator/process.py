"""The only door to another program: one command, its output in a file, its progress, its end.

The child's output goes straight to ``log.txt`` in the work folder and is read from there, and a small supervisor in the
child's own session notes how it ended in ``exit.json``. So a child outlives the orchestrator, and the next orchestrator
reads on where the last one stopped (``adopt``).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING

from orchestrator import supervise

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

LOG = "log.txt"
POLL_SECONDS = 0.05
MAX_PIECE = 64 * 1024  # a megabyte without a line end is read in parts of this size
GRACE_SECONDS = supervise.GRACE_SECONDS


@dataclass(frozen=True, slots=True)
class Command:
    """A program to run: always a list, never a shell string. ``env`` holds additions only."""

    argv: tuple[str, ...]
    cwd: Path
    env: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    """Texts to write into the work folder before the start (dataset TOML, preset, prompts): name -> content."""


@dataclass(frozen=True, slots=True)
class Progress:
    """One reading of a running child: ``done`` of ``total`` steps, mean loss, learning rate, a note."""

    done: int = 0
    total: int = 0
    loss: float | None = None
    learning_rate: float | None = None
    note: str = ""
    fault: str = ""
    """Not empty: the output shows that the run is lost (NaN, no data found); stop it at once."""


@dataclass(frozen=True, slots=True)
class Exit:
    """How a child ended: its exit code (negative: a signal; None: nobody saw), and why we ended it, if we did."""

    code: int | None
    fault: str = ""
    stopped: bool = False
    adopted: bool = False

    @property
    def ok(self) -> bool:
        """Whether the child ended by itself with exit code 0 (an unseen end is judged by the outputs alone)."""
        return self.code in (0, None) and not self.fault and not self.stopped


@dataclass(slots=True)
class Watch:
    """What the caller wants to know while a child runs."""

    read: Callable[[str], Progress | None]
    progress: Callable[[Progress], None] = lambda _: None
    stalled: Callable[[float], None] = lambda _: None
    stop: threading.Event = field(default_factory=threading.Event)
    stall_seconds: float = 900.0
    hold: Callable[[], str] = lambda: ""
    """Asked about once a second: a reason to pause the child (the disk is nearly full) until it is gone."""
    said: Callable[[str], None] = lambda _: None
    """Told when the child is paused, and when it goes on."""


class Warm:
    """The warm process of one orchestrator: started at the first request, gone when the orchestrator is."""

    def __init__(self) -> None:
        """Prepare; nothing is started yet."""
        self._server: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()

    def start(self, command: Command, work: Path, env: dict[str, str]) -> bool:
        """Ask the warm process to run ``command`` (``python -m MODULE …``) in ``work``; return whether it started."""
        request = {"work": str(work), "cwd": str(command.cwd), "log": str(work / LOG), "env": env}
        request |= {"module": command.argv[2], "argv": command.argv[3:]}
        with self._lock:
            if self._server is None or self._server.poll() is not None:
                self._let_go()
                self._server = subprocess.Popen(
                    (sys.executable, "-m", "orchestrator.warm"),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    text=True,
                    start_new_session=True,
                    cwd=Path(__file__).resolve().parent.parent,
                )
            pipe: IO[str] | None = self._server.stdin
            if pipe is not None:
                pipe.write(json.dumps(request) + "\n")
                pipe.flush()
            while self._server.poll() is None and not (work / supervise.CHILD).exists():
                time.sleep(POLL_SECONDS)  # the first request waits for the imports
            return (work / supervise.CHILD).exists()

    def close(self) -> None:
        """End the warm process; children it has started go on."""
        with self._lock:
            self._let_go()

    def _let_go(self) -> None:
        if self._server is not None:
            if self._server.stdin is not None:
                with contextlib.suppress(BrokenPipeError):
                    self._server.stdin.close()
            self._server.wait()
            self._server = None


def run(
    command: Command, work: Path, watch: Watch, *, warm: Warm | None = None, keep: Iterable[int] = (), leash: bool = False
) -> Exit:
    """Run ``command`` with its output in ``work/log.txt`` until it ends or must end.

    Args:
        command: what to run; its ``files`` are written into ``work`` first.
        work: an existing folder; ``child.json`` and ``exit.json`` of an earlier child there are replaced.
        watch: who reads the output and may stop the run.
        warm: where given, commands of the form ``python -m orchestrator.X`` are forked from it.
        keep: file descriptors (leases) that stay open as long as the child lives.
        leash: end the child when this process is gone, because no later one could adopt it.

    Errors: OSError when the supervisor cannot be started or ``work`` cannot be written.
    """
    for name in (supervise.CHILD, supervise.EXIT):
        (work / name).unlink(missing_ok=True)
    for name, text in command.files.items():
        (work / name).write_text(text, "utf-8")
    env = {"PYTHONUTF8": "1", "PYTHONUNBUFFERED": "1", **command.env}
    with (work / LOG).open("ab") as log:
        start = log.seek(0, os.SEEK_END)
        helper: subprocess.Popen[bytes] | None = None
        held, holder = os.pipe() if leash else (None, None)
        if warm is not None and command.argv[:2] == (sys.executable, "-m") and command.argv[2].startswith("orchestrator."):
            if not warm.start(command, work, env):
                return Exit(1)
        else:
            option = () if held is None else ("--leash", str(held))
            argv = (sys.executable, "-I", "-S", supervise.__file__, str(work), *option, "--", *command.argv)
            helper = subprocess.Popen(
                argv,
                cwd=command.cwd,
                env={**os.environ, **env},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=(*keep, *(() if held is None else (held,))),
            )
    try:
        return _follow(work, start, watch, helper)
    finally:
        for descriptor in (held, holder):
            if descriptor is not None:
                os.close(descriptor)


def alive(work: Path) -> bool:
    """Return whether the child that was started in ``work`` still runs (pid and start time), or its supervisor does."""
    child = _json(work / supervise.CHILD)
    for key in ("supervisor", "pid"):
        pid = child.get(key)
        if isinstance(pid, int) and pid > 0 and supervise.started(pid) == child.get(f"{key}_started") != "":
            return True
    return False


def adopt(work: Path, watch: Watch) -> Exit:
    """Follow a child that an earlier orchestrator started in ``work`` until it ends; its output is read from the beginning."""
    _signal(work, signal.SIGCONT)  # the one before us may have paused it
    end = _follow(work, 0, watch, None)
    return Exit(end.code, end.fault, end.stopped, adopted=True)


def capture(argv: tuple[str, ...], timeout: float = 20.0) -> tuple[int, str]:
    """Run a short command and return exit code and output (127 and the reason if it cannot be run); for doctor's questions."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout, check=False, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired) as error:
        return 127, str(error)
    return done.returncode, done.stdout + done.stderr


def _json(path: Path) -> dict[str, object]:
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


class _Tail:
    """Reads what was added to a log, as text between line ends and carriage returns."""

    _ends = re.compile(rb"[\r\n]+")

    def __init__(self, path: Path, start: int) -> None:
        self._file = path.open("rb")
        self._file.seek(start)
        self._rest = b""

    def pieces(self) -> list[str]:
        data = self._file.read(1 << 20)
        if not data:
            return []
        *whole, self._rest = self._ends.split(self._rest + data)
        while len(self._rest) > MAX_PIECE:
            whole.append(self._rest[:MAX_PIECE])
            self._rest = self._rest[MAX_PIECE:]
        return [piece.decode("utf-8", "replace") for piece in whole if piece]

    def last(self) -> list[str]:
        """Return the unfinished piece at the end."""
        rest, self._rest = self._rest, b""
        return [rest.decode("utf-8", "replace")] if rest else []

    def close(self) -> None:
        self._file.close()


def _follow(work: Path, start: int, watch: Watch, helper: subprocess.Popen[bytes] | None) -> Exit:
    """Read the log until the child has ended; stop it when asked to or when its output shows a fault."""
    tail = _Tail(work / LOG, start)
    fault, stopped, ending = "", False, 0.0
    last_word = last_asked = time.monotonic()
    held = ""
    gone = 0
    try:
        while True:
            pieces = tail.pieces()
            over = _over(work, helper)
            if not over and helper is None and not alive(work):
                gone += 1  # a supervisor that was killed leaves no exit.json; look again, it may just be writing it
                over = gone > 5
            if over:
                while more := tail.pieces():
                    pieces += more
                pieces += tail.last()
            for piece in pieces:
                fault = _read(piece, watch) or fault
            now = time.monotonic()
            if pieces:
                last_word = now
            elif now - last_word > watch.stall_seconds:
                watch.stalled(now - last_word)
                last_word = now
            if over:
                break
            if now - last_asked > 1.0:
                last_asked = now
                held = "" if ending else _hold(work, watch, held)
            if not ending and (fault or watch.stop.is_set()):
                stopped = watch.stop.is_set() and not fault
                ending = now
                _signal(work, signal.SIGTERM)
                _signal(work, signal.SIGCONT)  # a paused child hears TERM only when it goes on
            elif ending and now - ending > GRACE_SECONDS:
                _signal(work, signal.SIGKILL)
            if not pieces:
                time.sleep(POLL_SECONDS)
        if helper is not None:
            helper.wait()
    finally:
        tail.close()
    return Exit(_code(work), fault, stopped)


def _hold(work: Path, watch: Watch, held: str) -> str:
    """Pause the child's group when there is a reason to, let it go on when there is none; return the reason in force."""
    reason = watch.hold()
    if bool(reason) != bool(held):
        _signal(work, signal.SIGSTOP if reason else signal.SIGCONT)
        watch.said(f"paused: {reason}" if reason else "goes on")
    return reason


def _read(piece: str, watch: Watch) -> str:
    found = watch.read(piece)
    if found is None:
        return ""
    watch.progress(found)
    return found.fault


def _over(work: Path, helper: subprocess.Popen[bytes] | None) -> bool:
    """Return whether the end was noted, or supervisor and child are both gone."""
    return (work / supervise.EXIT).exists() or (helper is not None and helper.poll() is not None and not alive(work))


def _code(work: Path) -> int | None:
    code = _json(work / supervise.EXIT).get("code")
    if isinstance(code, int):
        return code
    return None


def _signal(work: Path, number: signal.Signals) -> None:
    """Send a signal to the whole group of the child in ``work``."""
    child = _json(work / supervise.CHILD)
    pid = child.get("supervisor")
    group = pid if isinstance(pid, int) and pid > 0 else None
    if group is None or not alive(work):
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
