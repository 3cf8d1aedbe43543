"""Facts of a file from its header."""

from __future__ import annotations

from typing import TYPE_CHECKING

import made_runs
from orchestrator.release import facts
from orchestrator.weights.io.safetensors_io import read_header
from weights_samples import lora

if TYPE_CHECKING:
    from pathlib import Path


def test_block_weights_are_a_list_for_unets_and_names_elsewhere() -> None:
    recipe = made_runs.loaded("krnk-locon").recipe
    assert facts._block_weights([0.5] * 26, recipe) == {"name": "", "values": ["0.5"] * 26}
    assert facts._block_weights({"MID1": 0.0}, recipe)["values"][-1] == "MID1=0"
    flux = recipe.model_copy(update={"base": recipe.base.model_copy(update={"architecture": "flux"})})
    assert facts._block_weights([0.0, *[1.0] * 19, *[0.5] * 38], flux)["values"] == ["BASE=0", "D=1", "S=0.5"]


def test_cores_are_named_as_they_stand_in_the_file(tmp_path: Path) -> None:
    for family, cores in (("locon-tucker", ["lora_mid"]), ("loha-tucker", ["hada_t1"]), ("lokr-tucker", ["lokr_t2"])):
        assert facts.weights(read_header(lora(tmp_path / "x.safetensors", family)))["cores"] == cores
    readers = facts._readers(read_header(tmp_path / "x.safetensors"))
    assert "Forge (2025-06): an error" in readers["refuses"]
    assert any(text.startswith("A1111") for text in readers["reads"])


def test_sizes_and_ranks_are_read_from_the_header(tmp_path: Path) -> None:
    recipe = made_runs.loaded("krnk-locon").recipe
    result = facts.weights(read_header(made_runs.lora(tmp_path / "x.safetensors", recipe, rank=3)))
    assert result["ranks"] == {"min": 3, "max": 3, "median": 3, "distinct": 1}
    assert result["tucker"] is True
    assert result["dtype"] == "F16"
