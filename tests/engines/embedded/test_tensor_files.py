"""Torch tensors in safetensors files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file, save_file

import embedded_tiny as tiny
from orchestrator.engines.embedded.trainer import tensor_files

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_tensors_of_every_layout_and_precision(tmp_path: Path, dtype: torch.dtype) -> None:
    kernel = torch.randn(4, 3, 2, 2).to(dtype).contiguous(memory_format=torch.channels_last)
    tensors = {"b": kernel, "a": torch.tensor(2.5, dtype=dtype), "c": torch.randn(5, 3).to(dtype).T}
    tensor_files.write_lora(tmp_path / "lora.safetensors", tensors, {"ss_seed": "1"})
    loaded = load_file(tmp_path / "lora.safetensors")
    assert loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[name], tensor) and loaded[name].dtype is dtype for name, tensor in tensors.items())
    metadata = tiny.metadata(tmp_path / "lora.safetensors")
    assert metadata.keys() == {"ss_seed", "sshs_model_hash", "sshs_legacy_hash"}


def test_parameters_have_the_bytes_of_safetensors(tmp_path: Path) -> None:
    tensors = {"b": torch.nn.Parameter(torch.randn(4, 3)), "a": torch.randn(2)}
    tensor_files.write_parameters(tmp_path / "state.safetensors", tensors)
    save_file({name: value.detach() for name, value in tensors.items()}, tmp_path / "expected.safetensors")
    assert (tmp_path / "state.safetensors").read_bytes() == (tmp_path / "expected.safetensors").read_bytes()
