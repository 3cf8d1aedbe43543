"""The end of a growing log: new pieces, stalls, and the last lines."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

MAX_READ = 1 << 20
MAX_PIECE = 64 * 1024  # a megabyte without a line end is read in parts of this size
LAST_LINES = 12
BAR = "%|"
"""Part of every tqdm bar: captions, latents, samples."""


class LogTail:
    """Reads new text of a log, split at line ends and carriage returns.

    A tqdm bar is ended by the carriage return of the next one, a step later. A whole bar at the end is read at once.
    """

    _ends = re.compile(rb"[\r\n]+")

    def __init__(self, path: Path, start: int) -> None:
        """Read the file from byte ``start`` on."""
        self._file = path.open("rb")
        self._file.seek(start)
        self._rest = self._shown = b""
        self.behind = False
        """True if the file held more than the last call has read."""

    def pieces(self) -> list[str]:
        """Return the pieces that were added since the last call."""
        data = self._file.read(MAX_READ)
        self.behind = len(data) == MAX_READ
        *whole, self._rest = self._ends.split(self._rest + data)
        if whole and self._shown:
            whole[0], self._shown = (b"" if whole[0] == self._shown else whole[0]), b""
        while len(self._rest) > MAX_PIECE:
            whole.append(self._rest[:MAX_PIECE])
            self._rest = self._rest[MAX_PIECE:]
        if not data and self._rest != self._shown and BAR.encode() in self._rest and self._rest.endswith(b"]"):
            self._shown = self._rest
            whole.append(self._rest)
        return [piece.decode("utf-8", "replace") for piece in whole if piece]

    def rest(self) -> list[str]:
        """Return the rest of a finished log, with the unfinished piece at its end."""
        pieces: list[str] = []
        while more := self.pieces():
            pieces += more
        unfinished, self._rest = self._rest, b""
        return [*pieces, unfinished.decode("utf-8", "replace")] if unfinished not in (b"", self._shown) else pieces

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class StallDetector:
    """Detects that a log shows no progress any more."""

    def __init__(self, limit: float) -> None:
        """Report a stall after each ``limit`` seconds."""
        self._limit = limit
        self._in_progress = False
        self._last = time.monotonic()

    def note(self, *, progress: bool) -> None:
        """Count a piece. Other lines after the first progress are silence."""
        self._in_progress |= progress
        if progress or not self._in_progress:
            self._last = time.monotonic()

    def stalled(self, *, paused: bool) -> float:
        """Return the seconds since the last progress, 0 below the limit."""
        seconds = time.monotonic() - self._last
        if paused or seconds > self._limit:
            self._last += seconds
        return seconds if seconds > self._limit and not paused else 0.0


def last_lines(log: Path, count: int = LAST_LINES) -> list[str]:
    """Return the last lines of a log.

    Text that a carriage return overwrote is left out.
    """
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 64 * 1024))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return []
    lines = [line.rstrip("\r").rpartition("\r")[2].rstrip() for line in text.split("\n")]
    printable = ("".join(char for char in line if char.isprintable() or char == "\t") for line in lines)
    return [line[:300] for line in printable if line][-count:]
