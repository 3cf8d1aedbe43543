"""List the calls of a pickled checkpoint by its opcodes. Nothing is run."""

from __future__ import annotations

import pickletools
import zipfile
from typing import TYPE_CHECKING, BinaryIO, Final

if TYPE_CHECKING:
    from pathlib import Path

ENDINGS: Final = (".ckpt", ".pt", ".pth", ".bin")
_FAMILIAR: Final = frozenset(
    ["torch", "collections", "numpy", "pytorch_lightning", "lightning", "codecs", "omegaconf", "typing", "transformers"]
)
_HARMLESS: Final = frozenset(
    f"builtins.{name}"
    for name in ("set", "dict", "list", "tuple", "int", "float", "bool", "str", "bytes", "bytearray", "slice", "object")
)
_MOST: Final = 2_000_000  # opcodes; a checkpoint's table of contents has some thousands


def strange(path: Path) -> list[str]:
    """Return a pickle's functions and classes that checkpoints do not need.

    Raises:
        ValueError: the file is not a pickle of torch, or broken.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                names = [name for name in archive.namelist() if name.endswith("data.pkl")]
                if not names:
                    raise ValueError("is a zip without data.pkl")
                imports: set[str] = set()
                for name in names:
                    with archive.open(name) as file:
                        imports |= _imports(file)  # type: ignore[arg-type]
                return sorted(imports)
        with path.open("rb") as file:
            return sorted(_imports(file))
    except (zipfile.BadZipFile, OSError, EOFError, IndexError, UnicodeDecodeError) as error:
        raise ValueError(f"is broken: {error}") from error


def _imports(file: BinaryIO) -> set[str]:
    """Return the unfamiliar imports of one pickle."""
    texts: list[str] = []
    imports: set[str] = set()
    for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        if count > _MOST:
            raise ValueError("has more opcodes than a checkpoint")
        if opcode.name == "GLOBAL":
            imports.add(str(argument).replace(" ", ".", 1))
        elif opcode.name == "STACK_GLOBAL" and len(texts) >= 2:
            imports.add(f"{texts[-2]}.{texts[-1]}")
        elif "UNICODE" in opcode.name or "STRING" in opcode.name:
            texts = [*texts[-3:], str(argument)]
    return {name for name in imports if name not in _HARMLESS and name.split(".")[0].lstrip("_") not in _FAMILIAR}
