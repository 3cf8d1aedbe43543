"""Tensors that wait on the disk, and the memory that this saves."""

from __future__ import annotations

import os
import tracemalloc
from typing import TYPE_CHECKING

import numpy as np
import pytest

from orchestrator.errors import RecipeError
from orchestrator.weights.io import writer
from orchestrator.weights.io.safetensors_io import CHUNK
from orchestrator.weights.io.spool import Spool
from orchestrator.weights.options import ResizeOptions
from orchestrator.weights.resize import resize

if TYPE_CHECKING:
    from pathlib import Path


def test_pieces_have_the_bytes_they_had(tmp_path: Path) -> None:
    first, second = os.urandom(CHUNK + 12), os.urandom(8)
    with Spool(tmp_path / "out.safetensors") as spool:
        kept = spool.keep([writer.raw("a", "F32", (len(first) // 4,), first)])
        kept += spool.keep([writer.raw("b", "F32", (2,), second), writer.raw("c", "F32", (0,), b"")])
        assert [b"".join(piece.chunks()) for piece in kept] == [first, second, b""]
        assert [b"".join(piece.chunks()) for piece in kept] == [first, second, b""]
        assert [piece.entry.name for piece in kept] == ["a", "b", "c"]
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"no/out.safetensors  cannot be written"):
        Spool(tmp_path / "no" / "out.safetensors")


def test_a_resized_file_is_not_held_in_memory(tmp_path: Path) -> None:
    """A file of 40 modules and 63 MB takes the memory of a few modules."""
    rng, rank = np.random.default_rng(0), 64
    up, down = rng.standard_normal((3072, rank)).astype(np.float32), rng.standard_normal((rank, 3072)).astype(np.float32)
    pieces = []
    for number in range(40):
        root = f"lora_unet_single_blocks_{number % 38}_{'linear2' if number < 38 else 'modulation_lin'}"
        pieces += [
            writer.raw(f"{root}.lora_{side}.weight", "F32", v.shape, v.tobytes()) for side, v in (("up", up), ("down", down))
        ]
    source, output = tmp_path / "in.safetensors", tmp_path / "out.safetensors"
    writer.write_safetensors(source, pieces, {})
    tracemalloc.start()
    try:
        resize(source, output, ResizeOptions(method="fixed", new_rank=rank, save_precision="fp32"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert output.stat().st_size > 60e6
    assert peak < 40e6
