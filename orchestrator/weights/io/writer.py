"""Write and hash safetensors files, whole or not at all.

``sshs_model_hash`` is the SHA-256 of the body as safetensors would write it. ``sshs_legacy_hash`` is the first 8 hex digits of
the SHA-256 of bytes 0x100000..0x110000 of a file that has the same tensors and only the ss_ metadata
(sd-scripts v0.10.1 library/train_util.py:3259-3299). Neither depends on ssmd_, modelspec or provenance entries.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from orchestrator.errors import Problem, RecipeError
from orchestrator.system.files import draft
from orchestrator.weights.io.metadata import provenance
from orchestrator.weights.io.safetensors_io import (
    CHUNK,
    Body,
    Entry,
    Header,
    canonical,
    check_output,
    encode_header,
    read_header,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

Buffer = bytes | bytearray | memoryview

_LEGACY = (0x100000, 0x110000)
_IN_FLIGHT = 6


@dataclass(frozen=True, slots=True)
class Piece:
    """A tensor to write: its entry, and a function that yields its bytes."""

    entry: Entry
    chunks: Callable[[], Iterable[Buffer]]


@dataclass(frozen=True, slots=True)
class Stated:
    """Properties of a file that a report states, to compare with its header."""

    precision: str | None = None
    """Type of all tensors of floating point. None: they may differ."""
    tensor_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Hashes:
    """Both hashes by sd-scripts' rule, and those stated in the header."""

    model: str
    legacy: str
    stated_model: str | None = None
    stated_legacy: str | None = None

    @property
    def model_agrees(self) -> bool | None:
        """Return whether the stated model hash is true. None: none by this rule."""
        return None if self.stated_model is None or self.stated_by_lycoris else self.stated_model == self.model

    @property
    def stated_by_lycoris(self) -> bool:
        """Return whether the stated model hash follows LyCORIS' rule."""
        return (self.stated_model or "").startswith("0x")

    @property
    def legacy_agrees(self) -> bool | None:
        """Return whether the stated legacy hash is true. None: none is stated."""
        return None if self.stated_legacy is None else self.stated_legacy == self.legacy


class _Digest:
    """Both hashes of a body that is streamed in canonical order."""

    def __init__(self, entries: Iterable[Entry], metadata: Mapping[str, str]) -> None:
        self.model = hashlib.sha256()
        self.legacy = hashlib.sha256()
        header = encode_header(entries, {key: value for key, value in metadata.items() if key.startswith("ss_")})
        self.legacy.update(header[slice(*_LEGACY)])
        self.position = len(header)

    def update(self, data: Buffer) -> None:
        self.model.update(data)
        first, last = (min(max(edge - self.position, 0), len(data)) for edge in _LEGACY)
        if first < last:
            self.legacy.update(memoryview(data)[first:last])
        self.position += len(data)

    def result(self) -> tuple[str, str]:
        return self.model.hexdigest(), self.legacy.hexdigest()[:8]


def hashes(header: Header) -> Hashes:
    """Return both hashes of a file, and those stated in its header."""
    order = canonical(header.entries.values())
    digest = _Digest(order, header.metadata)
    with Body(header) as body:
        for entry in order:
            for chunk in body.chunks(entry.name):
                digest.update(chunk)
    stated = (header.metadata.get("sshs_model_hash"), header.metadata.get("sshs_legacy_hash"))
    return Hashes(*digest.result(), *stated)


def copy(body: Body, name: str) -> Piece:
    """Return a tensor of another file as a piece, unchanged."""
    return Piece(body.header.entries[name], lambda: body.chunks(name))


def raw(name: str, dtype: str, shape: tuple[int, ...], data: Buffer) -> Piece:
    """Return a piece from bytes."""
    return Piece(Entry(name, dtype, shape), lambda: (data,))


_NOTHING = Stated()


def write_safetensors(path: Path, pieces: Iterable[Piece], metadata: Mapping[str, str], stated: Stated = _NOTHING) -> Hashes:
    """Stream tensors in canonical order into a new file.

    Both hashes are computed meanwhile and set in the header. All other metadata are kept.

    Args:
        path: the file to write. Where anything fails, it is as it was.
        pieces: its tensors, in any order. Of two with one name the last counts.
        metadata: its metadata.
        stated: the report's statements about it.

    Raises:
        RecipeError: the file cannot be written, a tensor has another size than its shape needs, or the header disagrees with
            the report or with the newest entry of the provenance.
    """
    by_name = {piece.entry.name: piece for piece in pieces}
    order = canonical(piece.entry for piece in by_name.values())
    unhashed = {**metadata, "sshs_model_hash": "0" * 64, "sshs_legacy_hash": "0" * 8}
    digest = _Digest(order, unhashed)
    with _new_file(path) as part, part.open("wb", buffering=0) as file, ThreadPoolExecutor(1) as writer:
        file.write(encode_header(order, unhashed))

        def emit(data: Buffer) -> None:
            view = memoryview(data)
            while view:
                view = view[file.write(view) :]
            digest.update(data)

        # One thread reads and scales while the other writes and hashes. Few chunks are in flight, so memory stays small.
        in_flight = []
        for data in _bytes(by_name[entry.name] for entry in order):
            in_flight.append(writer.submit(emit, data))
            if len(in_flight) > _IN_FLIGHT:
                in_flight.pop(0).result()
        for future in in_flight:
            future.result()
        model, legacy = digest.result()
        hashed = {**unhashed, "sshs_model_hash": model, "sshs_legacy_hash": legacy}
        os.pwrite(file.fileno(), encode_header(order, hashed), 0)
        if problems := list(_disagreements(path, read_header(part), stated)):
            raise RecipeError(problems)
    return Hashes(model, legacy, model, legacy)


def _disagreements(path: Path, header: Header, stated: Stated) -> Iterator[Problem]:
    """Yield a problem for each statement about a file that its header denies."""
    dtypes = {entry.dtype for entry in header.entries.values() if entry.dtype.startswith(("F", "BF"))}
    entries = provenance(header.metadata)
    newest = entries[-1].get("save_precision") if entries else None
    for source, precision in (("report", stated.precision), ("provenance", newest)):
        if precision is not None and dtypes - {precision}:
            what = f"would hold {', '.join(sorted(dtypes))} where its {source} states {precision}"
            yield Problem(str(path), what, "nothing was written; report this as a defect")
    if stated.tensor_bytes is not None and stated.tensor_bytes != header.tensor_bytes:
        what = f"would hold {header.tensor_bytes:,} tensor bytes where its report states {stated.tensor_bytes:,}"
        yield Problem(str(path), what, "nothing was written; report this as a defect")


def write_in_order(path: Path, pieces: Iterable[Piece], metadata: Mapping[str, str]) -> None:
    """Stream tensors in their order into a new file, without hashes.

    Raises:
        RecipeError: as :func:`write_safetensors`.
    """
    pieces = list(pieces)
    entries, begin = [], 0
    for piece in pieces:
        entries.append(replace(piece.entry, begin=begin, end=begin + piece.entry.size))
        begin += piece.entry.size
    with _new_file(path) as part, part.open("wb") as file:
        file.write(encode_header(entries, metadata or None))
        for data in _bytes(pieces):
            file.write(data)


def write_copy(header: Header, path: Path, metadata: Mapping[str, str]) -> tuple[str, int]:
    """Write a file's body, byte for byte, below other metadata.

    Returns:
        SHA-256 of the new file, and its bytes.

    Raises:
        RecipeError: the file cannot be written.
    """
    digest, count = hashlib.sha256(), 0
    with _new_file(path) as part, part.open("wb") as file, header.path.open("rb") as body:
        body.seek(header.body)
        data = encode_header(header.entries.values(), metadata)
        while data:
            digest.update(data)
            count += file.write(data)
            data = body.read(CHUNK)
    return digest.hexdigest(), count


def edit_metadata(source: Path, output: Path, changes: Mapping[str, str | None], *, overwrite: bool = False) -> Hashes:
    """Change metadata only. The body is copied as it is, in its own order.

    The model hash stays true by itself. The legacy hash depends on the ss_ entries and is computed anew.

    Args:
        source: the file.
        output: the file to write.
        changes: new values by key. None removes an entry.
        overwrite: whether ``output`` may be ``source``.

    Raises:
        RecipeError: an unsound input, or an output that cannot be written.
    """
    check_output(output, [source], overwrite=overwrite)
    header = read_header(source)
    merged = {key: value for key, value in {**header.metadata, **changes}.items() if value is not None}
    computed = hashes(replace(header, metadata=merged))
    write_copy(header, output, {**merged, "sshs_model_hash": computed.model, "sshs_legacy_hash": computed.legacy})
    return Hashes(computed.model, computed.legacy, computed.model, computed.legacy)


@contextlib.contextmanager
def _new_file(path: Path) -> Iterator[Path]:
    try:
        with draft(path) as part:
            yield part
    except OSError as error:
        raise RecipeError(Problem(str(path), f"cannot be written: {error.strerror or error}", "is the disk full?")) from error


def _bytes(pieces: Iterable[Piece]) -> Iterator[Buffer]:
    for piece in pieces:
        entry, count = piece.entry, 0
        for data in piece.chunks():
            count += len(data)
            yield data
        if count != entry.size:
            raise RecipeError(Problem(entry.name, f"{count} bytes where {entry.shape} of {entry.dtype} needs {entry.size}"))
