"""Settings of programs that import does not read are refused by name."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator.errors import RecipeError
from orchestrator.importers import reader

if TYPE_CHECKING:
    from pathlib import Path

TABLES: dict[str, dict[str, Any]] = {
    "OneTrainer": {"__version": 7, "training_method": "LORA", "learning_rate": 3e-4, "lora_rank": 16},
    "ai-toolkit": {"job": "extension", "config": {"name": "x", "process": [{"type": "sd_trainer"}]}},
    "SimpleTuner": {"--model_type": "lora", "--lora_rank": 16, "--max_train_steps": 100},
    "diffusers": {"pretrained_model_name_or_path": "x", "instance_data_dir": "d", "learning_rate": 1e-4, "rank": 4},
    "musubi-tuner": {"general": {"resolution": [960, 544]}, "datasets": [{"video_directory": "v", "target_frames": [1]}]},
    "diffusion-pipe": {"output_dir": "o", "model": {"type": "flux"}, "adapter": {"type": "lora", "rank": 32}, "epochs": 3},
    "ComfyUI": {"nodes": [], "links": []},
}


@pytest.mark.parametrize("program", TABLES)
def test_a_table_of_another_program(tmp_path: Path, program: str) -> None:
    (tmp_path / "a.json").write_text(json.dumps(TABLES[program]), "utf-8")
    with pytest.raises(RecipeError, match=f"settings of {program}") as error:
        reader.read(str(tmp_path / "a.json"))
    assert "orchestrator new" in error.value.problems[0].hint


@pytest.mark.parametrize(
    ("program", "name", "text"),
    [
        ("ai-toolkit", "a.yaml", "---\njob: extension\nconfig:\n  name: x\n"),
        ("diffusers", "a.sh", "accelerate launch train_dreambooth_lora_sdxl.py --rank=4\n"),
        ("musubi-tuner", "a.toml", '[[datasets]]\nimage_directory = "d"\n'),
        ("diffusion-pipe", "a.toml", "resolutions = [512]\n[[directory]]\npath = 'd'\n"),
    ],
)
def test_a_text_of_another_program(tmp_path: Path, program: str, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, "utf-8")
    with pytest.raises(RecipeError, match=f"settings of {program}"):
        reader.read(str(tmp_path / name))
