"""List the calls and texts of a pickle by its opcodes. Nothing is run."""

from __future__ import annotations

import pickletools
import re
import zipfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO, Final, cast

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ENDINGS: Final = (".ckpt", ".pt", ".pth", ".bin")
_FAMILIAR: Final = frozenset(
    ["torch", "collections", "numpy", "pytorch_lightning", "lightning", "codecs", "omegaconf", "typing", "transformers"]
)
_HARMLESS: Final = frozenset(
    f"builtins.{name}"
    for name in ("set", "dict", "list", "tuple", "int", "float", "bool", "str", "bytes", "bytearray", "slice", "object")
)
# Functions of familiar packages that run, load or fetch: torch.hub.load, numpy.testing._private.utils.runstring, …
_RUNS: Final = re.compile(
    r"(?:^|[._])(?:hub|testing|f2py|distutils|cpp_extension|subprocess|os|sys|run\w*|exec\w*|eval\w*)(?:\.|$)"
)
_LOADS: Final = re.compile(r"\.(?:\w*load\w*|\w*open|\w*compile|\w*import\w*|system|popen|call|fromfile|memmap|loadtxt)$")
_COMPUTED: Final = "a function with a computed name"
_MOST: Final = 2_000_000  # opcodes; a checkpoint's table of contents has some thousands
_ZIP: Final = b"PK\x03\x04"  # torch decides by these bytes (serialization.py _is_zipfile)
_MAGIC: Final = 0x1950A86A20F9469CFC6C
_LEGACY: Final = 5
"""Pickles of a file of torch before 1.6: magic number, version, system, tensors, names of storages. Raw numbers follow."""


@dataclass(slots=True)
class _Content:
    """Imports and texts of the pickles in a file."""

    imports: set[str] = field(default_factory=set)
    texts: list[str] = field(default_factory=list)
    first: object = None
    """The value of the first opcode with a number: the magic number of an old file."""


def strange(path: Path) -> list[str]:
    """Return a pickle's functions and classes that checkpoints do not need.

    Raises:
        ValueError: the file is not a pickle of torch, or broken.
    """
    return sorted(name for name in _scan(path).imports if _is_strange(name))


def texts(path: Path) -> list[str]:
    """Return the texts of a pickle, the names of its tensors among them.

    Raises:
        ValueError: as :func:`strange`.
    """
    return _scan(path).texts


def _is_strange(name: str) -> bool:
    if name in _HARMLESS:
        return False
    familiar = name.partition(".")[0].lstrip("_") in _FAMILIAR
    return not familiar or bool(_RUNS.search(name) or _LOADS.search(name))


def _scan(path: Path) -> _Content:
    content = _Content()
    try:
        with path.open("rb") as file:
            zipped = file.read(len(_ZIP)) == _ZIP
            file.seek(0)
            for count, pickled in enumerate(_zipped(path) if zipped else _in_a_row(file, content)):
                try:
                    _read(pickled, content)
                except ValueError:
                    if count == 0 or zipped or content.first == _MAGIC:
                        raise
                    break  # numbers after a plain pickle, which torch does not load
    except (zipfile.BadZipFile, OSError, EOFError, IndexError, UnicodeDecodeError) as error:
        raise ValueError(f"is broken: {error}") from error
    return content


def _zipped(path: Path) -> Iterator[BinaryIO]:
    """Yield every data.pkl of an archive, two of the same name too."""
    with zipfile.ZipFile(path) as archive:
        members = [member for member in archive.infolist() if member.filename.endswith("data.pkl")]
        if not members:
            raise ValueError("is a zip without data.pkl")
        for member in members:
            with archive.open(member) as file:
                yield cast("BinaryIO", file)


def _in_a_row(file: BinaryIO, content: _Content) -> Iterator[BinaryIO]:
    """Yield the file for each of its pickles, which are one behind another."""
    for count in range(_LEGACY):
        if count and content.first != _MAGIC:
            return  # torch stops at it
        yield file


def _read(file: BinaryIO, content: _Content) -> None:
    """Add the imports and texts of one pickle."""
    memo: dict[int, str | None] = {}
    pushed: list[str | None] = []  # the values on top of the stack, None for anything else than text
    for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        if count > _MOST:
            raise ValueError("has more opcodes than a checkpoint")
        name = opcode.name
        if content.first is None and isinstance(argument, int) and name != "PROTO":
            content.first = argument
        if name in {"GLOBAL", "INST"}:
            content.imports.add(str(argument).replace(" ", ".", 1))
            pushed.append(None)
        elif name == "STACK_GLOBAL":
            module, function = ([None, None, *pushed])[-2:]
            content.imports.add(f"{module}.{function}" if module is not None and function is not None else _COMPUTED)
            pushed.append(None)
        elif name.startswith("EXT"):
            content.imports.add(_COMPUTED)
            pushed.append(None)
        elif name == "MEMOIZE":
            memo[len(memo)] = pushed[-1] if pushed else None
        elif name.endswith("PUT"):
            memo[cast("int", argument)] = pushed[-1] if pushed else None
        elif name.endswith("GET"):
            pushed.append(memo.get(cast("int", argument)))
        elif "UNICODE" in name or "STRING" in name:
            content.texts.append(str(argument))
            pushed.append(str(argument))
        elif name not in {"PROTO", "FRAME"}:
            pushed.append(None)
        del pushed[:-2]
