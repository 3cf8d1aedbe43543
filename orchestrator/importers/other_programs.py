"""Recognize settings of programs that import does not read."""

from __future__ import annotations

import re
from typing import Any, Final

from orchestrator.errors import Problem, RecipeError

# Program: sets of keys at the top, any of which is of it alone.
_KEYS: Final[dict[str, tuple[set[str], ...]]] = {
    "OneTrainer": ({"training_method"}, {"concept_file_name"}),
    "ai-toolkit": ({"job", "config"},),
    "SimpleTuner": ({"data_backend_config"}, {"model_family"}, {"--model_type"}, {"--lora_rank"}, {"--data_backend_config"}),
    "diffusion-pipe": ({"model", "adapter"}, {"model", "dataset", "output_dir"}, {"directory", "resolutions"}),
    "diffusers": ({"instance_data_dir"}, {"instance_prompt"}, {"rank", "pretrained_model_name_or_path"}, {"dataset_name"}),
    "EveryDream2": ({"resume_ckpt", "data_root"},),
    "ComfyUI (a workflow)": ({"nodes", "links"},),
}
_DATASETS: Final = {"image_directory", "video_directory", "image_jsonl_file", "video_jsonl_file"}
_TEXTS: Final = {
    "ai-toolkit": re.compile(r"^job:\s*['\"]?(?:extension|train)\b", re.MULTILINE),
    "diffusers": re.compile(r"\btrain_(?:text_to_image|dreambooth|controlnet|kandinsky)\w*\.py\b"),
    "musubi-tuner": re.compile(
        r"\b(?:hv|wan|fpack|flux_kontext|flux_2|qwen_image|zimage|kandinsky5|hv_1_5)_train_network\.py\b"
    ),
    "SimpleTuner": re.compile(r"\bsimpletuner\s+train\b|\bTRAINER_EXTRA_ARGS\b"),
}
_HINT: Final = "start from  python -m orchestrator new  with its images, and set rank, rates and steps as they are there"


def refuse(where: str, table: dict[str, Any]) -> None:
    """Refuse a table of another program by the program's name.

    Raises:
        RecipeError: it is of another program.
    """
    datasets = table.get("datasets")
    inner = [each for each in datasets if isinstance(each, dict)] if isinstance(datasets, list) else []
    if any(_DATASETS & each.keys() for each in (*inner, table.get("general") or {}) if isinstance(each, dict)):
        raise _of("musubi-tuner", where)
    for program, signs in _KEYS.items():
        if any(keys <= table.keys() for keys in signs):
            raise _of(program, where)


def refuse_text(where: str, text: str) -> None:
    """Refuse a script or YAML file of another program by the program's name.

    Raises:
        RecipeError: it is of another program.
    """
    for program, sign in _TEXTS.items():
        if sign.search(text):
            raise _of(program, where)


def _of(program: str, where: str) -> RecipeError:
    return RecipeError(Problem(where, f"these are settings of {program}, which import does not read", _HINT))
