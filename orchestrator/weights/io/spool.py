"""Keep made tensors on the disk until the header of their file is known.

The ranks of a file are known once its last module is factorized. Until then, the tensors of the first ones are on the disk and
not in memory.
"""

from __future__ import annotations

import os
import tempfile
from functools import partial
from typing import TYPE_CHECKING, Self

from orchestrator.errors import Problem, RecipeError
from orchestrator.weights.io.safetensors_io import CHUNK
from orchestrator.weights.io.writer import Piece

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path
    from types import TracebackType


class Spool:
    """A nameless temporary file of tensors. Use it in a ``with`` statement."""

    def __init__(self, output: Path) -> None:
        """Open the file on the disk of ``output``.

        Raises:
            RecipeError: the folder of ``output`` cannot be written to.
        """
        self._output = output
        try:
            self._file = tempfile.TemporaryFile(dir=output.absolute().parent, buffering=0)  # noqa: SIM115 - closed by __exit__
        except OSError as error:
            raise self._unwritable(error) from error
        self._end = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()

    def keep(self, pieces: Iterable[Piece]) -> list[Piece]:
        """Return ``pieces`` with their bytes in the file.

        Raises:
            RecipeError: the disk is full.
        """
        kept = []
        for piece in pieces:
            begin = self._end
            try:
                for data in piece.chunks():
                    view = memoryview(data)
                    while view:
                        count = os.pwrite(self._file.fileno(), view, self._end)
                        self._end, view = self._end + count, view[count:]
            except OSError as error:
                raise self._unwritable(error) from error
            kept.append(Piece(piece.entry, partial(self._chunks, begin, self._end)))
        return kept

    def _chunks(self, begin: int, end: int) -> Iterator[bytes]:
        for position in range(begin, end, CHUNK):
            yield os.pread(self._file.fileno(), min(CHUNK, end - position), position)

    def _unwritable(self, error: OSError) -> RecipeError:
        return RecipeError(
            Problem(str(self._output), f"cannot be written: {error.strerror or error}", "is the disk full, or not writable?")
        )
