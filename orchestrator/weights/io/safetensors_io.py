"""Read safetensors files as untrusted input.

No numpy, so that reading a header stays cheap. Format: https://huggingface.co/docs/safetensors (8 bytes of length,
a JSON header, the body).
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from orchestrator.errors import Problem, RecipeError, near_miss
from orchestrator.weights.io import file_formats

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

MAX_HEADER = 32 * 2**20
"""Longest header that is read. The format allows 100 MB, and a LoRA with a cover image needs about 1 MB."""

CHUNK = 4 * 2**20
MAX_DIMENSIONS = 8
_SHOWN = 3
# In the order by which safetensors sorts a body: last first, names ascending within a type.
_BY_WIDTH = (
    (1, "BOOL U8 I8 F8_E5M2 F8_E4M3"),
    (2, "I16 U16 F16 BF16"),
    (4, "I32 U32 F32"),
    (8, "F64 I64 U64"),
)
WIDTHS = {name: width for width, names in _BY_WIDTH for name in names.split()}
_RANKS = {name: position for position, name in enumerate(WIDTHS)}


@dataclass(frozen=True, slots=True)
class Entry:
    """A tensor of a file: name, type, shape and range in the body."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int = 0
    end: int = 0

    @property
    def size(self) -> int:
        """Return the bytes of the tensor."""
        return math.prod(self.shape) * WIDTHS[self.dtype]


@dataclass(frozen=True, slots=True)
class Header:
    """Header of a file: entries in body order, metadata, offset of the body."""

    path: Path
    entries: dict[str, Entry]
    metadata: dict[str, str]
    body: int

    @property
    def tensor_bytes(self) -> int:
        """Return the bytes of all tensors, the size in the release's README."""
        return sum(entry.size for entry in self.entries.values())


def read_header(path: Path) -> Header:
    """Read and check the header of ``path`` without touching the body.

    Raises:
        RecipeError: the file is not a sound safetensors file: a pickle, a length beyond the file, broken or deeply nested
            JSON, duplicate keys, unknown types, negative or absurd shapes, offsets that overlap, leave gaps or end outside
            the file.
    """
    if path.suffix.lower() in {".ckpt", ".pt", ".pth", ".bin"}:
        raise _bad(path, "is not a safetensors file", file_formats.UNPICKLE)
    named = path.suffix.lower() == ".safetensors"
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(file_formats.START)
            if (other := file_formats.other_format(start, named=named)) is not None:
                raise _bad(path, *other)
            begin, first = start[:8], start[8:9]
            file.seek(9)
            length = int.from_bytes(begin, "little")
            if length > size - 8:
                if first and first != b"{":  # as the JSON of a header begins
                    hint = file_formats.AGAIN if named else "LoRA files end in .safetensors"
                    raise _bad(path, "is not a safetensors file", hint)
                raise _bad(path, f"states a header of {length} bytes in a file of {size}", "was the download cut short?")
            if length > MAX_HEADER:
                raise _bad(path, f"has a header of {length} bytes; at most {MAX_HEADER} are read")
            raw = first[:length] + file.read(max(length - 1, 0))
    except IsADirectoryError as error:
        raise _bad(path, "is a folder", _inside(path)) from error
    except FileNotFoundError as error:
        raise _bad(path, *_absent(path)) from error
    except OSError as error:
        raise _bad(path, f"cannot be read: {error.strerror or error}") from error
    table = _json(path, raw)
    metadata = table.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _bad(path, "has metadata that are not text")
    entries = [_entry(path, name, fields) for name, fields in table.items()]
    entries.sort(key=lambda entry: (entry.begin, entry.end))
    end = 0
    for entry in entries:
        if entry.begin != end:
            raise _bad(path, f"{entry.name!r} starts at {entry.begin} of the body instead of {end}")
        end = entry.end
    if end != size - 8 - length:
        raise _bad(
            path, f"has a body of {size - 8 - length} bytes; its header accounts for {end}", "was the download cut short?"
        )
    return Header(path, {entry.name: entry for entry in entries}, metadata, 8 + length)


def _inside(folder: Path) -> str:
    """Return a hint with the files in a folder."""
    with contextlib.suppress(OSError):
        if files := sorted(path.name for path in folder.glob("*.safetensors")):
            return f"name a file in it: {', '.join(files[:_SHOWN])}{' …' if len(files) > _SHOWN else ''}"
    return "name a LoRA file, which ends in .safetensors"


def _absent(path: Path) -> tuple[str, str]:
    """Return a problem and a hint about a file that does not exist."""
    if path.is_symlink():
        target = str(path.readlink())
        way = "git annex get brings it" if ".git/annex" in target else "is the drive mounted?"
        return f"is a link to {target}, which does not exist", way
    with contextlib.suppress(OSError):
        near = near_miss(path.name, (other.name for other in path.parent.iterdir())).removeprefix("; ")
        return "does not exist", near or f"is it in {path.parent}?"
    return "does not exist", f"there is no folder {path.parent}"


def _bad(path: Path, what: str, hint: str = "") -> RecipeError:
    return RecipeError(Problem(str(path), what, hint))


def _json(path: Path, raw: bytes) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(pairs)
        if len(table) != len(pairs):
            twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
            raise _bad(path, f"names {twice!r} twice in its header")
        return table

    try:
        table = json.loads(raw.decode("utf-8"), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise _bad(path, f"has a header that is not JSON: {str(error)[:120]}", "is it a safetensors file at all?") from error
    if not isinstance(table, dict):
        raise _bad(path, "has a header that is not a table", "is it a safetensors file at all?")
    return table


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _entry(path: Path, name: str, fields: object) -> Entry:
    if not isinstance(fields, dict) or set(fields) != {"dtype", "shape", "data_offsets"}:
        raise _bad(path, f"{name!r} is not described by dtype, shape and data_offsets")
    dtype, shape, offsets = fields["dtype"], fields["shape"], fields["data_offsets"]
    if not isinstance(dtype, str) or dtype not in WIDTHS:
        raise _bad(path, f"{name!r} has the unknown type {str(dtype)[:20]!r}", f"known: {', '.join(WIDTHS)}")
    if not isinstance(shape, list) or len(shape) > MAX_DIMENSIONS or not all(map(_is_size, shape)):
        raise _bad(path, f"{name!r} has an impossible shape: {str(shape)[:60]}")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(_is_size, offsets)):
        raise _bad(path, f"{name!r} has impossible offsets: {str(offsets)[:60]}")
    entry = Entry(name, dtype, tuple(shape), *offsets)
    if entry.end - entry.begin != entry.size:
        raise _bad(path, f"{name!r} has {entry.end - entry.begin} bytes; its shape {shape} of {dtype} needs {entry.size}")
    return entry


class Body:
    """Tensors of one file, read on demand. Use it in a ``with`` statement."""

    def __init__(self, header: Header) -> None:
        """Open the file of ``header``."""
        self.header = header
        self._file: BinaryIO = header.path.open("rb", buffering=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def read(self, name: str) -> bytearray:
        """Return the bytes of one tensor. Safe to call from several threads."""
        entry = self.header.entries[name]
        buffer = bytearray(entry.size)
        self._fill(memoryview(buffer), self.header.body + entry.begin, name)
        return buffer

    def chunks(self, name: str, size: int = CHUNK) -> Iterator[bytearray]:
        """Yield the bytes of one tensor in chunks of ``size``, a multiple of 8."""
        entry = self.header.entries[name]
        for begin in range(0, entry.size, size):
            buffer = bytearray(min(size, entry.size - begin))
            self._fill(memoryview(buffer), self.header.body + entry.begin + begin, name)
            yield buffer

    def _fill(self, view: memoryview, position: int, name: str) -> None:
        while view:
            count = os.preadv(self._file.fileno(), [view], position)
            if count == 0:
                raise _bad(self.header.path, f"ended inside {name!r}", "was the file changed while it was read?")
            view, position = view[count:], position + count


def same_forms(first: Iterable[Entry], second: Iterable[Entry]) -> bool:
    """Return whether tensors have the same names, types and shapes."""
    one, two = ({(entry.name, entry.dtype, entry.shape) for entry in entries} for entries in (first, second))
    return one == two


def canonical(entries: Iterable[Entry]) -> list[Entry]:
    """Return ``entries`` in safetensors' order, with offsets to match."""
    ordered, begin = [], 0
    for entry in sorted(entries, key=lambda entry: (-_RANKS[entry.dtype], entry.name)):
        ordered.append(Entry(entry.name, entry.dtype, entry.shape, begin, begin + entry.size))
        begin += entry.size
    return ordered


def encode_header(entries: Iterable[Entry], metadata: Mapping[str, str] | None) -> bytes:
    """Return a file's length and header: compact JSON, padded to 8 bytes."""
    table: dict[str, Any] = {} if metadata is None else {"__metadata__": dict(metadata)}
    for entry in entries:
        table[entry.name] = {"dtype": entry.dtype, "shape": list(entry.shape), "data_offsets": [entry.begin, entry.end]}
    raw = json.dumps(table, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
    raw += b" " * (-len(raw) % 8)
    return len(raw).to_bytes(8, "little") + raw


def check_output(path: Path, inputs: Iterable[Path], *, overwrite: bool = False) -> None:
    """Check the path of an output.

    Raises:
        RecipeError: it is one of the inputs (without ``overwrite``), has the wrong suffix, or its folder does not exist.
    """
    if path.suffix != ".safetensors":
        raise _bad(path, "is not a name of a safetensors file", "end the output's name in .safetensors")
    if not path.parent.is_dir():
        raise _bad(path, "is in a folder that does not exist", f"mkdir -p {path.parent}")
    if not overwrite and path.exists() and any(source.exists() and path.samefile(source) for source in inputs):
        raise _bad(path, "is the input itself", "choose another output, or add --overwrite")
