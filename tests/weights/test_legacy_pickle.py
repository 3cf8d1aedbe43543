"""LoRA files that are pickles."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from orchestrator.errors import RecipeError
from orchestrator.weights.convert import convert
from orchestrator.weights.io.legacy_pickle import unpickled
from weights_samples import LAYERS, TE, read, tensors

if TYPE_CHECKING:
    from pathlib import Path


def test_a_pickle_is_read_on_request_with_tensors_only(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    made = tensors("lora", LAYERS[TE], 4, np.random.default_rng(0))
    parts = {f"{TE}.{part}": torch.from_numpy(value) for part, value in made.items()}
    torch.save(parts, tmp_path / "old.pt")
    with unpickled(tmp_path / "old.pt", tmp_path) as path:
        convert(path, tmp_path / "new.safetensors")
    assert set(read(tmp_path / "new.safetensors")) == set(parts)
    torch.save(parts, tmp_path / "named.safetensors")
    with pytest.raises(RecipeError, match="despite its name"):
        read(tmp_path / "named.safetensors")
    with unpickled(tmp_path / "named.safetensors", tmp_path) as path:
        assert set(read(path)) == set(parts)
    with pytest.raises(RecipeError, match="leave out --unpickle"), unpickled(tmp_path / "new.safetensors", tmp_path):
        pass
    torch.save({"a": print}, tmp_path / "evil.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    for name in ("evil.pt", "list.pt"):
        with pytest.raises(RecipeError), unpickled(tmp_path / name, tmp_path):
            pass
    assert not list(tmp_path.glob(".*"))


def test_pickles_of_other_forms_are_named(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.save([torch.ones(2, 2), torch.ones(2, 2)], tmp_path / "list.pt")
    torch.save({"string_to_param": {"*": torch.ones(2)}, "name": "x"}, tmp_path / "word.pt")
    for name, what in (("list.pt", "lora_diffusion"), ("word.pt", "textual inversion")):
        with pytest.raises(RecipeError, match=what) as caught, unpickled(tmp_path / name, tmp_path):
            pass
        assert caught.value.problems[0].hint
    torch.save({f"{TE}.alpha": torch.ones(1).to(torch.float8_e4m3fn)}, tmp_path / "eight.pt")
    with unpickled(tmp_path / "eight.pt", tmp_path) as path:
        assert read(path)[f"{TE}.alpha"] == 1
