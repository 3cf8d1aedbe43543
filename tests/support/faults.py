"""Kill the orchestrator, its children, or both, at random moments, and check the runs folder after every kill."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from orchestrator.cli import progress
from orchestrator.errors import OrchestratorError, report
from orchestrator.release import verify
from orchestrator.run import session
from orchestrator.run.paths import PARTIAL, RECORD
from orchestrator.run.workspace import Selection, Workspace
from orchestrator.system import child, child_status, supervisor
from orchestrator.weights.checks import CheckStatus

if TYPE_CHECKING:
    from collections.abc import Iterator

    import harness

PROGRAM = Path(__file__).with_name("fault_run.py")
VICTIMS = ("parent", "child", "both")
PARTS = ("group", "trainer", "supervisor")
"""Part of a child that is killed: its whole group, the program, or its supervisor."""
_FRAME = re.compile(rb"steps:[^\r\n]*?(\d+)/(\d+) \[")


class Running(Protocol):
    """An orchestrator as a process of its own."""

    def poll(self) -> int | None:
        """Return its exit code, or None while it runs."""

    def kill(self) -> None:
        """SIGKILL."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end. subprocess.TimeoutExpired."""


class Forked:
    """The orchestrator in a fork of this process: its imports are loaded, so that most kills hit its work."""

    def __init__(self, root: Path, log: Path) -> None:
        """Start ``run all`` of the project at ``root``, with a log."""
        self._code: int | None = None
        self._pid = os.fork()
        if self._pid == 0:
            code = 1
            try:
                output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
                os.dup2(output, 1)
                os.dup2(output, 2)
                sys.stdout = sys.stderr = os.fdopen(2, "w", buffering=1, encoding="utf-8")  # not what pytest captures
                code = run(root)
            finally:
                os._exit(code)

    def poll(self) -> int | None:
        """Return its exit code, or None while it runs."""
        if self._code is None:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            if pid:
                self._code = os.waitstatus_to_exitcode(status)
        return self._code

    def kill(self) -> None:
        """SIGKILL."""
        if self.poll() is None:
            os.kill(self._pid, signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end. subprocess.TimeoutExpired."""
        until = time.monotonic() + (timeout if timeout is not None else 1e9)
        while (code := self.poll()) is None:
            if time.monotonic() > until:
                raise subprocess.TimeoutExpired("orchestrator", timeout or 0.0)
            time.sleep(0.005)
        return code


def run(root: Path) -> int:
    """Run `all` in the project at ``root`` and return the exit code."""
    try:
        outcomes = session.run_session(Workspace(root), session.RunOptions(Selection(("all",))), progress.choose)
    except OrchestratorError as error:
        print(report(error), file=sys.stderr)
        return error.exit_code
    return 0 if all(outcome.status.ok for outcome in outcomes) else 1


@dataclass(slots=True)
class Killer:
    """One project that is run and killed until it is done, again and again."""

    project: harness.Project
    rng: random.Random
    interval: int
    """Steps between two states of a training."""
    forked: bool = False
    seconds: float = 0.0
    """Seconds of an undisturbed run on this machine."""
    kills: list[str] = field(default_factory=list)
    lost: int = 0
    """The most training steps that had to be done again after one kill."""
    adopted: int = 0
    resumed: int = 0
    complete: int = 0
    """Number of completed runs."""
    _finished: dict[Path, str] = field(default_factory=dict)

    @property
    def runs(self) -> Path:
        """The project's store."""
        return self.project.root / "runs"

    @property
    def log(self) -> Path:
        """Output of all orchestrators of this project."""
        return self.project.root / "orchestrator.log"

    def start(self) -> Running:
        """Start an orchestrator."""
        if self.forked:
            return Forked(self.project.root, self.log)
        with self.log.open("ab") as log:
            return subprocess.Popen([sys.executable, str(PROGRAM), str(self.project.root)], stdout=log, stderr=log)

    def works(self) -> list[Path]:
        """Return the work folders in which a child runs."""
        found = [path.parent for path in self.runs.glob(f"*/{PARTIAL}/*/{supervisor.CHILD}")]
        return [work for work in found if child_status.alive(work)]

    def kill(self, running: Running, victim: str, part: str = "") -> None:
        """Kill ``victim``, of a child ``part`` (default: any).

        Without a living child, kill the orchestrator.
        """
        works = self.works()
        victim = victim if works else "parent"
        if victim in ("parent", "both"):
            running.kill()
            running.wait()
            works = self.works() if victim == "both" else []
        part = part or self.rng.choice(PARTS)
        for work in works:
            with contextlib.suppress(OSError, ValueError, KeyError):
                child = json.loads((work / supervisor.CHILD).read_text("utf-8"))
                if part == "group":
                    os.killpg(int(child["supervisor"]), signal.SIGKILL)
                else:
                    os.kill(int(child["supervisor" if part == "supervisor" else "pid"]), signal.SIGKILL)
        self.kills.append(victim)

    def check(self) -> None:
        """Assert that no final folder is incomplete, no finished step ran again, and no training lost too much."""
        for folder in self.runs.glob("*/*-*"):
            if folder.is_symlink() or not folder.is_dir():
                continue
            text = (folder / RECORD).read_text("utf-8")
            for name, out in json.loads(text)["outputs"].items():
                content = (folder / name).read_bytes()
                assert len(content) == out["bytes"], f"{folder / name} is incomplete"
                assert hashlib.sha256(content).hexdigest() == out["sha256"], f"{folder / name} is not what was recorded"
            assert self._finished.setdefault(folder, text) == text, f"{folder} was made again"
        assert all(folder.is_dir() for folder in self._finished), "a finished folder is gone"
        for folder in (*self.runs.glob("*/train-*"), *self.runs.glob(f"*/{PARTIAL}/train-*")):
            lost = repeated(folder)
            assert lost <= self.interval, f"{folder}: {lost} steps were done again; a state is saved every {self.interval}"
            self.lost = max(self.lost, lost)

    def whole(self) -> None:
        """Assert that all outputs are complete and valid, and nothing is left over."""
        self.check()
        for name in ("cat-lora", "cat-loha"):
            (train,) = self.runs.glob(f"{name}/train-*")
            assert frames(train)[-1][-1] == self.steps(train), f"{train} did not end with its last step"
            (release,) = self.runs.glob(f"{name}/release-*")
            bad = [check for check in verify.verify_bundle(release) if check.status is CheckStatus.FAIL]
            assert bad == [], f"{release} does not verify: {bad}"
            record = json.loads((train / RECORD).read_text("utf-8"))
            self.resumed += record["resumed_from"] is not None
        assert (self.runs / "cats" / "latest" / "cats.zip").is_file()
        assert list(self.runs.glob(f"*/{PARTIAL}/*")) == []
        self.complete += 1
        self.adopted += self.log.read_text("utf-8").count("(still running: since ")

    def steps(self, train: Path) -> int:
        """Return the number of steps of a training."""
        return int(json.loads((train / RECORD).read_text("utf-8"))["params"]["training"]["steps"])

    def again(self) -> None:
        """Start again in an empty store, because everything is done."""
        shutil.rmtree(self.runs)
        self.log.write_bytes(b"")
        self._finished.clear()

    def measure(self, limit: float) -> None:
        """Run once without a kill, to measure the time of a run on this machine."""
        begun = time.monotonic()
        assert self.start().wait(limit) == 0, self.output()
        self.seconds = time.monotonic() - begun
        self.whole()
        self.again()

    def rounds(self, kills: int, limit: float) -> None:
        """Kill ``kills`` times, at moments that are even over a run, then let it end.

        Args:
            kills: how many, besides those that were.
            limit: seconds after which an orchestrator that was not killed hangs.
        """
        until = len(self.kills) + kills
        while len(self.kills) < until:
            running = self.start()
            with contextlib.suppress(subprocess.TimeoutExpired):
                running.wait(self.rng.uniform(0.02, 0.7) * self.seconds)
            if running.poll() == 0:
                self.whole()
                self.again()
                continue
            assert running.poll() is None, self.output()
            victim = self.rng.choice(VICTIMS)
            while victim != "parent" and running.poll() is None and not self.works():
                time.sleep(0.005)  # none of its children runs at this moment
            if running.poll() is not None:
                assert running.poll() == 0, self.output()
                continue  # it has ended meanwhile; the next one finds nothing to do
            self.kill(running, victim)
            self.check()
            running.wait(limit)  # a step of it has failed; it does what it can and ends
            self.check()
        assert self.start().wait(limit) == 0, self.output()
        self.whole()

    def output(self) -> str:
        """Return the end of the orchestrators' output."""
        return self.log.read_text("utf-8")[-4000:]

    def end(self) -> None:
        """End every trainer, and wait until none writes into its folder."""
        until = time.monotonic() + 10
        while (works := self.works()) and time.monotonic() < until:
            for work in works:
                with contextlib.suppress(OSError, ValueError, KeyError):
                    os.killpg(int(json.loads((work / supervisor.CHILD).read_text("utf-8"))["supervisor"]), signal.SIGKILL)
            time.sleep(0.02)


def frames(train: Path) -> list[list[int]]:
    """Return the steps that each attempt at a training has shown, in order."""
    log = (train / child.LOG).read_bytes() if (train / child.LOG).exists() else b""
    starts = [entry["log_at"] for entry in attempts(train)]
    ends = [*starts[1:], len(log)]
    shown = [
        [(int(frame[1]), int(frame[2])) for frame in _FRAME.finditer(log[start:end])]
        for start, end in zip(starts, ends, strict=True)
    ]
    steps = max((total for attempt in shown for _, total in attempt), default=0)
    return [[done + steps - total for done, total in attempt] for attempt in shown]  # a resumed bar counts what is left


def attempts(train: Path) -> list[dict[str, Any]]:
    """Return the entries of all attempts. Torn lines are skipped."""
    entries: list[dict[str, Any]] = []
    with contextlib.suppress(OSError):
        for line in (train / "attempts.jsonl").read_text("utf-8").splitlines():
            with contextlib.suppress(ValueError):
                entries.append(json.loads(line))
    return entries


def repeated(train: Path) -> int:
    """Return the most steps that one attempt had done and the next had to do again."""
    most, reached = 0, 0
    for entry, shown in zip(attempts(train), frames(train), strict=True):
        begins = entry["resumed_from"] or 0
        most = max(most, reached - begins)
        reached = max([begins, *shown])
    return most


def moments(seed: str) -> random.Random:
    """Return the random generator for moments and victims."""
    return random.Random(seed)  # noqa: S311 - which moment, not which secret


def killed(killer: Killer) -> Iterator[str]:
    """Yield the lines of a report on a suite."""
    counts = ", ".join(f"{killer.kills.count(victim)} {victim}" for victim in VICTIMS)
    yield f"{len(killer.kills)} of {len(killer.kills)} kills recovered ({counts}); {killer.complete} complete releases,"
    yield f"{killer.adopted} adoptions, {killer.resumed} resumed trainings; most steps lost by one kill: {killer.lost} of"
    yield f"{killer.interval} that may be; an undisturbed run takes {killer.seconds:.1f} s here"
