"""Metadata and hashes: the rules of sd-scripts and Additional Networks, and a writer that follows them while it streams.

``sshs_model_hash`` is the SHA-256 of the body as safetensors would write it. ``sshs_legacy_hash`` is the first 8 hex digits of
the SHA-256 of bytes 0x100000..0x110000 of a file that has the same tensors and only the ss_ metadata
(sd-scripts v0.10.1 library/train_util.py:3259-3299). Neither depends on ssmd_, modelspec or provenance entries.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.errors import Problem, RecipeError
from orchestrator.weights.io.safetensors_io import Body, Entry, Header, canonical, check_output, encode_header, read_header

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

Buffer = bytes | bytearray | memoryview

PROVENANCE = "orchestrator_provenance"
"""Header key: a JSON list of what was done to the tensors, oldest first. Neither hash depends on it."""

_LEGACY = (0x100000, 0x110000)
_IN_FLIGHT = 6


@dataclass(frozen=True, slots=True)
class Piece:
    """One tensor to write: its entry (offsets are ignored) and a function that yields its bytes."""

    entry: Entry
    chunks: Callable[[], Iterable[Buffer]]


@dataclass(frozen=True, slots=True)
class Hashes:
    """The two hashes by sd-scripts' rule, and what the header states (None: nothing)."""

    model: str
    legacy: str
    stated_model: str | None = None
    stated_legacy: str | None = None

    @property
    def model_agrees(self) -> bool | None:
        """Whether the stated model hash is true; None where none is stated, or LyCORIS' own kind (0x…), another rule."""
        return None if self.stated_model is None or self.stated_by_lycoris else self.stated_model == self.model

    @property
    def stated_by_lycoris(self) -> bool:
        """Whether the stated model hash is LyCORIS' own: of the tensors in the order of training, which no file keeps."""
        return (self.stated_model or "").startswith("0x")

    @property
    def legacy_agrees(self) -> bool | None:
        """Whether the stated legacy hash is true; None where none is stated."""
        return None if self.stated_legacy is None else self.stated_legacy == self.legacy


class _Digest:
    """Both hashes of a body that goes by in canonical order."""

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
    """Compute both hashes of a file and set them beside those that its header states. Reads the whole body."""
    order = canonical(header.entries.values())
    digest = _Digest(order, header.metadata)
    with Body(header) as body:
        for entry in order:
            for chunk in body.chunks(entry.name):
                digest.update(chunk)
    stated = (header.metadata.get("sshs_model_hash"), header.metadata.get("sshs_legacy_hash"))
    return Hashes(*digest.result(), *stated)


def copy(body: Body, name: str) -> Piece:
    """Return the piece that is one tensor of another file, unchanged."""
    return Piece(body.header.entries[name], lambda: body.chunks(name))


def raw(name: str, dtype: str, shape: tuple[int, ...], data: Buffer) -> Piece:
    """Return a piece from bytes."""
    return Piece(Entry(name, dtype, shape), lambda: (data,))


def write(path: Path, pieces: Iterable[Piece], metadata: Mapping[str, str]) -> Hashes:
    """Stream ``pieces`` in canonical order to a temporary file beside ``path``, then rename it.

    Both hashes are computed while the bytes go by and set in the header; everything else in ``metadata`` is kept. Where
    anything fails, ``path`` is as it was and the temporary file is gone.
    """
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - what only reads a header stays cheap

    chosen = {piece.entry.name: piece for piece in pieces}
    order = canonical(piece.entry for piece in chosen.values())
    kept = {**metadata, "sshs_model_hash": "0" * 64, "sshs_legacy_hash": "0" * 8}
    digest = _Digest(order, kept)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb", buffering=0) as file, ThreadPoolExecutor(1) as writer:
            file.write(encode_header(order, kept))

            def emit(data: Buffer) -> None:
                view = memoryview(data)
                while view:
                    view = view[file.write(view) :]
                digest.update(data)

            # One thread reads and scales while the other writes and hashes; few chunks are in flight, so memory stays small.
            waiting = []
            for data in _bytes(order, chosen):
                waiting.append(writer.submit(emit, data))
                if len(waiting) > _IN_FLIGHT:
                    waiting.pop(0).result()
            for future in waiting:
                future.result()
            model, legacy = digest.result()
            os.pwrite(file.fileno(), encode_header(order, {**kept, "sshs_model_hash": model, "sshs_legacy_hash": legacy}), 0)
        part.replace(path)
    except OSError as error:
        raise RecipeError(Problem(str(path), f"cannot be written: {error.strerror or error}", "is the disk full?")) from error
    finally:
        part.unlink(missing_ok=True)
    return Hashes(model, legacy, model, legacy)


def _bytes(order: Iterable[Entry], chosen: Mapping[str, Piece]) -> Iterator[Buffer]:
    for entry in order:
        count = 0
        for data in chosen[entry.name].chunks():
            count += len(data)
            yield data
        if count != entry.size:
            raise RecipeError(Problem(entry.name, f"{count} bytes where {entry.shape} of {entry.dtype} needs {entry.size}"))


def with_provenance(metadata: Mapping[str, str], operation: str, details: Mapping[str, Any]) -> dict[str, str]:
    """Return ``metadata`` with one more entry in the provenance list. No time, no path: equal inputs give equal bytes."""
    return {
        **metadata,
        PROVENANCE: json.dumps([*provenance(metadata), {"operation": operation, **details}], ensure_ascii=False),
    }


def with_algo(metadata: Mapping[str, str], algo: str | None) -> dict[str, str]:
    """Return ``metadata`` for a file without Tucker cores, whose LyCORIS algorithm is ``algo`` now (None: as before).

    Only what ss_network_args say already is changed; what is no JSON table stays.
    """
    try:
        arguments = json.loads(metadata.get("ss_network_args", ""))
    except (ValueError, RecursionError):
        return dict(metadata)
    if not isinstance(arguments, dict):
        return dict(metadata)
    arguments = {key: value for key, value in arguments.items() if key not in {"use_tucker", "use_cp"}}
    if algo and "algo" in arguments:
        arguments["algo"] = algo
    return {**metadata, "ss_network_args": json.dumps(arguments)}


def provenance(metadata: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return what earlier operations noted, oldest first; what is no such list counts as nothing."""
    try:
        found = json.loads(metadata.get(PROVENANCE, "[]"))
    except (ValueError, RecursionError):
        return []
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []


def edit(source: Path, output: Path, changes: Mapping[str, str | None], *, overwrite: bool = False) -> Hashes:
    """Change metadata only (None removes an entry); the body is copied as it is, in its own order.

    The model hash stays true by itself; the legacy hash depends on the ss_ entries and is computed anew. Metadata must be
    texts. Raises RecipeError for an unsound input or an output that cannot be written.
    """
    check_output(output, [source], overwrite=overwrite)
    header = read_header(source)
    merged = {key: value for key, value in {**header.metadata, **changes}.items() if value is not None}
    known = hashes(Header(header.path, header.entries, merged, header.body))
    merged |= {"sshs_model_hash": known.model, "sshs_legacy_hash": known.legacy}
    part = output.with_name(f".{output.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file, source.open("rb") as body:
            file.write(encode_header(header.entries.values(), merged))
            body.seek(header.body)
            while data := body.read(1 << 22):
                file.write(data)
        part.replace(output)
    except OSError as error:
        raise RecipeError(
            Problem(str(output), f"cannot be written: {error.strerror or error}", "is the disk full?")
        ) from error
    finally:
        part.unlink(missing_ok=True)
    return Hashes(known.model, known.legacy, known.model, known.legacy)
