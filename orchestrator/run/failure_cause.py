"""Causes of a program's failure, with fixes, by signatures in its output.

``failure_cause.toml`` lists the signatures. The first match names the cause, so more specific ones stand first.
"""

from __future__ import annotations

import functools
import re
import signal
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from orchestrator.run.attempt_log import by_hand, last_attempt, log_at

if TYPE_CHECKING:
    from collections.abc import Sequence

TAIL_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Cause:
    """A cause of failure: its name, a sentence, and the fix."""

    name: str
    what: str
    fix: str


@functools.cache
def signatures() -> tuple[tuple[re.Pattern[str], Cause], ...]:
    """Return patterns and causes, in the order of ``failure_cause.toml``."""
    table = tomllib.loads(Path(__file__).with_name("failure_cause.toml").read_text("utf-8"))
    return tuple(
        (re.compile(text, re.IGNORECASE | re.MULTILINE), Cause(entry["name"], entry["what"], entry["fix"]))
        for entry in table["cause"]
        for text in entry["texts"]
    )


_SIGNALS: Final = {
    signal.SIGKILL: Cause(
        "killed by the kernel",
        "was killed (signal 9); unless it was killed by hand, the kernel did it because the computer's memory was full",
        "dmesg | grep -i 'killed process'  shows it; close other programs, lower dataset.batch_size and "
        "training.data_loader_workers, or add swap; the same command resumes",
    ),
    signal.SIGBUS: Cause(
        "bus error",
        "died of a bus error (signal 7): shared memory or the disk is full",
        "df -h /dev/shm . ; set training.data_loader_workers = 0; the same command resumes",
    ),
    signal.SIGSEGV: Cause(
        "crashed",
        "crashed (signal 11), most often in a library that does not fit this machine",
        "make setup  installs the tested versions; python -m orchestrator doctor  compares them",
    ),
    signal.SIGILL: Cause(
        "illegal instruction",
        "used an instruction that this processor does not have (signal 4)",
        "install builds of torch and its companions for an older processor",
    ),
    signal.SIGTERM: Cause("ended", "was ended by another program (signal 15)", "the same command resumes"),
    signal.SIGHUP: Cause("hung up", "ended because its terminal was closed (signal 1)", "the same command resumes"),
}


def find(text: str, code: int | None = None) -> Cause | None:
    """Return the cause that the output or the exit code shows, or None.

    Args:
        text: the program's output (its end is enough), or the last lines of it.
        code: exit code; negative: the signal that killed it.
    """
    lines = "\n".join(line.rpartition("\r")[2] for line in text.replace("\r\n", "\n").split("\n"))
    joined = re.sub(r"[^\S\n]+", " ", lines)
    flowing = re.sub(r"\s+", " ", lines)  # rich wraps one message over several lines
    for pattern, cause in signatures():
        match = pattern.search(joined) or pattern.search(flowing)
        if match is not None:
            word = match.groupdict().get("word") or "a file"
            return Cause(cause.name, cause.what.format(word=word.strip()[:200]), cause.fix)
    if code is not None:
        number = -code if code < 0 else code - 128  # a shell reports 128 + signal
        return next((cause for number_, cause in _SIGNALS.items() if number_ == number), None)
    return None


def of_log(log: Path, code: int | None = None) -> Cause | None:
    """Return the cause shown by the last attempt's part of a log.

    At most the last 256 KiB are read.
    """
    at = log_at(last_attempt(log.parent))
    try:
        with log.open("rb") as file:
            file.seek(max(at, log.stat().st_size - TAIL_BYTES))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        text = ""
    return find(text, code)


def format_failure(code: int | None, cause: Cause | None, last: Sequence[str]) -> str:
    """Format a failure: exit, cause, and the last lines of output."""
    how = "ended" if code is None else (f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}")
    head = how if cause is None else f"{cause.what} ({cause.name}; {how})"
    if not last:
        return f"{head}; it printed nothing"
    return f"{head}; the last lines of its output:\n" + "\n".join(f"      {line}" for line in last)


def hint(cause: Cause | None, recipe: str, log: Path) -> str:
    """Return fix, log and the command to repeat by hand."""
    lines = [] if cause is None else [cause.fix.replace("RECIPE", recipe)]
    lines.append(f"log: {log}")
    lines.append(f"by hand: {by_hand(log.parent)}")
    return "\n    ".join(lines)
