"""What a pickled checkpoint would call when it is loaded; it is read opcode by opcode and nothing is run."""

from __future__ import annotations

import pickletools
import zipfile
from typing import TYPE_CHECKING, BinaryIO, Final

if TYPE_CHECKING:
    from pathlib import Path

ENDINGS: Final = (".ckpt", ".pt", ".pth", ".bin")
_FAMILIAR: Final = (
    "torch",
    "collections",
    "numpy",
    "pytorch_lightning",
    "lightning",
    "_codecs",
    "omegaconf",
    "typing",
    "transformers",
)
_HARMLESS: Final = frozenset(
    f"builtins.{name}"
    for name in ("set", "dict", "list", "tuple", "int", "float", "bool", "str", "bytes", "bytearray", "slice", "object")
)
_MOST: Final = 2_000_000  # opcodes; a checkpoint's table of contents has some thousands


def strange(path: Path) -> list[str]:
    """Return the functions and classes in a pickle that no checkpoint needs, as ``posix.system``; empty for a usual one.

    Raises:
        ValueError: it is no pickle that torch writes, or a broken one.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                names = [name for name in archive.namelist() if name.endswith("data.pkl")]
                if not names:
                    raise ValueError("is a zip without data.pkl")
                found: set[str] = set()
                for name in names:
                    with archive.open(name) as file:
                        found |= _called(file)  # type: ignore[arg-type]
                return sorted(found)
        with path.open("rb") as file:
            return sorted(_called(file))
    except (zipfile.BadZipFile, OSError, EOFError, IndexError, UnicodeDecodeError) as error:
        raise ValueError(f"is broken: {error}") from error


def _called(file: BinaryIO) -> set[str]:
    """Return what one pickle imports that is not familiar."""
    texts: list[str] = []
    found: set[str] = set()
    for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        if count > _MOST:
            raise ValueError("has more opcodes than a checkpoint")
        if opcode.name == "GLOBAL":
            found.add(str(argument).replace(" ", ".", 1))
        elif opcode.name == "STACK_GLOBAL" and len(texts) >= 2:
            found.add(f"{texts[-2]}.{texts[-1]}")
        elif "UNICODE" in opcode.name or "STRING" in opcode.name:
            texts = [*texts[-3:], str(argument)]
    return {
        name
        for name in found
        if name not in _HARMLESS and name.split(".")[0].lstrip("_") not in {one.lstrip("_") for one in _FAMILIAR}
    }
