"""Old LoRA files that are pickles: read only on request, with torch's weights_only, and handed on as safetensors."""

from __future__ import annotations

import contextlib
import os
import pickle
import re
from typing import TYPE_CHECKING, Any

from orchestrator.errors import NotReady, Problem, RecipeError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextlib.contextmanager
def unpickled(source: Path, folder: Path) -> Iterator[Path]:
    """Yield a temporary safetensors file in ``folder`` with the tensors of a .ckpt or .pt; it is gone afterwards.

    Only tensors in plain containers are accepted (weights_only); anything else in the pickle is refused, not run.
    Raises NotReady without torch, RecipeError for a file that holds anything else.
    """
    try:
        import torch  # noqa: PLC0415 - only for this request
        from safetensors.torch import save_file  # noqa: PLC0415
    except ImportError as error:
        raise NotReady(Problem("torch", "is not installed", "reading pickles needs it: make setup-embedded")) from error
    try:
        loaded: Any = torch.load(source, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError) as error:
        named = re.search(r"GLOBAL (\S+)", str(error))
        what = f"asks to run {named[1]}" if named else str(error).partition("\n")[0][:120]
        hint = "nothing of it was run; do not open it with a program that reads pickles whole"
        raise RecipeError(Problem(str(source), f"cannot be read as tensors alone: {what}", hint)) from error
    tensors = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else None
    if not isinstance(tensors, dict) or not all(isinstance(value, torch.Tensor) for value in tensors.values()):
        raise RecipeError(Problem(str(source), "holds other things than tensors", "only a state dict can be converted"))
    path = folder / f".{source.stem}.{os.getpid()}.safetensors"
    try:
        save_file({str(key): value.contiguous().clone() for key, value in tensors.items()}, path)
        yield path
    finally:
        path.unlink(missing_ok=True)
