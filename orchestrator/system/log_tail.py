"""The log of a running child: its pieces as they come, what they show, and when nothing comes any more."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.system.child import ChildCallbacks

MAX_READ = 1 << 20
LAST_LINES = 12
MAX_PIECE = 64 * 1024  # a megabyte without a line end is read in parts of this size
_BAR = b"%|"  # in every tqdm bar: captions, latents, the drawing of samples


class Tail:
    """Reads what was added to a log, as text between line ends and carriage returns.

    A progress frame is ended by the next one's carriage return, a step later: a whole one at the end is read at once.
    """

    _ends = re.compile(rb"[\r\n]+")

    def __init__(self, path: Path, start: int) -> None:
        """Read the file from ``start`` (bytes) on."""
        self._file = path.open("rb")
        self._file.seek(start)
        self._rest = self._shown = b""
        self.behind = False
        """Whether there was more in the file than was read at once the last time."""

    def pieces(self) -> list[str]:
        """Return what was added since the last time."""
        data = self._file.read(MAX_READ)
        self.behind = len(data) == MAX_READ
        *whole, self._rest = self._ends.split(self._rest + data)
        if whole and self._shown:
            whole[0], self._shown = (b"" if whole[0] == self._shown else whole[0]), b""
        while len(self._rest) > MAX_PIECE:
            whole.append(self._rest[:MAX_PIECE])
            self._rest = self._rest[MAX_PIECE:]
        if not data and self._rest != self._shown and _BAR in self._rest and self._rest.endswith(b"]"):
            self._shown = self._rest
            whole.append(self._rest)
        return [piece.decode("utf-8", "replace") for piece in whole if piece]

    def last(self) -> list[str]:
        """Return the unfinished piece at the end."""
        rest, self._rest = self._rest, b""
        return [rest.decode("utf-8", "replace")] if rest and rest != self._shown else []

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


class Listener:
    """Hands pieces to the reader and what it found to whoever looks on; notices when nothing goes on."""

    def __init__(self, watch: ChildCallbacks) -> None:
        """Read and tell as ``watch`` says."""
        self._watch = watch
        self._framed = False
        self._last = time.monotonic()

    def hear(self, pieces: list[str], *, paused: bool, behind: bool) -> str:
        """Read what was said since the last time, if anything; return the fault that it shows, or ""."""
        fault, now, newest = "", time.monotonic(), None
        for piece in pieces:
            found = self._watch.read(piece)
            if found is not None:
                self._watch.progress(found)
                fault, newest = found.fault or fault, found
            frame = found is not None or "%|" in piece
            self._framed |= frame
            if frame or not self._framed:  # once there were frames, other lines do not show that it goes on
                self._last = now
        if newest is not None and not behind:
            self._watch.now(newest)
        if paused:
            self._last = now
        elif now - self._last > self._watch.stall_seconds:
            self._watch.stalled(now - self._last)
            self._last = now
        return fault


def last_lines(log: Path, count: int = LAST_LINES) -> list[str]:
    """Return the last lines of a log, without text that a carriage return overwrote; [] for a log that cannot be read."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 64 * 1024))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return []
    lines = [line.rstrip("\r").rpartition("\r")[2].rstrip() for line in text.split("\n")]
    clean = ("".join(char for char in line if char.isprintable() or char == "\t") for line in lines)
    return [line[:300] for line in clean if line][-count:]
