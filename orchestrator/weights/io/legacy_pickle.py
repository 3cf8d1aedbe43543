"""Read old LoRA files that are pickles, with torch's weights_only."""

from __future__ import annotations

import contextlib
import os
import pickle
import re
from typing import TYPE_CHECKING, Any

from orchestrator.errors import NotReady, Problem, RecipeError
from orchestrator.weights.io import writer
from orchestrator.weights.io.file_formats import PICKLED

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_DTYPES = {
    "torch.float16": "F16",
    "torch.bfloat16": "BF16",
    "torch.float32": "F32",
    "torch.float64": "F64",
    "torch.int64": "I64",
    "torch.int32": "I32",
    "torch.int16": "I16",
    "torch.int8": "I8",
    "torch.uint8": "U8",
    "torch.bool": "BOOL",
    "torch.float8_e4m3fn": "F8_E4M3",
    "torch.float8_e5m2": "F8_E5M2",
}


@contextlib.contextmanager
def unpickled(source: Path, folder: Path) -> Iterator[Path]:
    """Yield a temporary safetensors file with the tensors of a .ckpt or .pt.

    Only tensors in plain containers are accepted (weights_only). Anything else in the pickle is refused, not run.

    Raises:
        NotReady: torch is not installed.
        RecipeError: the file holds anything else.
    """
    try:
        import torch  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise NotReady(
            Problem("torch", "is not installed", "reading pickles needs it: pip install -e '.[embedded]'")
        ) from error
    try:
        with source.open("rb") as file:  # a name in .safetensors makes torch read another format
            if not file.read(8).startswith(PICKLED):
                raise RecipeError(Problem(str(source), "is not a pickle of torch", "leave out --unpickle"))
            file.seek(0)
            loaded: Any = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError) as error:
        named = re.search(r"GLOBAL (\S+)", str(error))
        what = f"asks to run {named[1]}" if named else str(error).partition("\n")[0][:120]
        hint = "nothing of it was run; do not open it with a program that unpickles files"
        raise RecipeError(Problem(str(source), f"cannot be read as tensors alone: {what}", hint)) from error
    tensors = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else None
    if not isinstance(tensors, dict) or not all(isinstance(value, torch.Tensor) for value in tensors.values()):
        raise RecipeError(Problem(str(source), *_described(loaded)))
    path = folder / f".{source.stem}.{os.getpid()}.safetensors"
    try:
        pieces = [
            writer.raw(
                str(key), _dtype(source, value), tuple(value.shape), value.reshape(-1).view(torch.uint8).numpy().tobytes()
            )
            for key, value in tensors.items()
        ]
        writer.write_in_order(path, pieces, {})
        yield path
    finally:
        path.unlink(missing_ok=True)


def _described(loaded: Any) -> tuple[str, str]:
    """Return what a pickle without a state dict is, and a hint."""
    if isinstance(loaded, list) and loaded and all(hasattr(value, "shape") for value in loaded):
        what = "is a LoRA of cloneofsimo's lora_diffusion, a list of tensors without names"
        return what, "open it with lora_diffusion, or with its convert script to a LoRA of named layers"
    if isinstance(loaded, dict) and "string_to_param" in loaded:
        what = "is a textual inversion (an embedding of a word), not a LoRA"
        return what, "use it from the folder of embeddings; a LoRA file changes layers"
    return "holds other objects than tensors", "only a state dict can be converted"


def _dtype(source: Path, tensor: Any) -> str:
    name = str(tensor.dtype)
    if name not in _DTYPES:
        raise RecipeError(Problem(str(source), f"holds tensors of type {name}", f"supported: {', '.join(_DTYPES)}"))
    return _DTYPES[name]
