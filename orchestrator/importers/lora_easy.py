"""Read TOML files of LoRA_Easy_Training_Scripts.

[X_args.args] are options, [X_args.dataset_args] and [[subsets]] the dataset.
"""

from __future__ import annotations

from typing import Any

from orchestrator.importers import sd_scripts_toml
from orchestrator.importers.notes import Disposition, ImportedSettings

_OWN = {"warmup_ratio", "tag_occurrence", "tag_file_location", "keep_tokens_separator", "name"}  # of its interface


def is_lora_easy(table: dict[str, Any]) -> bool:
    """Return True if a table has the sections of LoRA_Easy."""
    return any(
        name.endswith("_args") and isinstance(part, dict) and {"args", "dataset_args"} & set(part)
        for name, part in table.items()
    )


def read(name: str, table: dict[str, Any]) -> ImportedSettings:
    """Read the table of one file."""
    settings = ImportedSettings(name, "LoRA_Easy_Training_Scripts")
    dataset: dict[str, Any] = {}
    for part, inside in table.items():
        if not isinstance(inside, dict):
            continue
        args = inside.get("args", {})
        for key, value in (args if isinstance(args, dict) else {}).items():
            if key in _OWN:
                continue
            settings.options[key] = value
        shared = inside.get("dataset_args", {})
        dataset |= shared if isinstance(shared, dict) else {}
        if not {"args", "dataset_args"} & set(inside) and inside and part != "subsets":
            settings.note(Disposition.LOST, part, why="not a known section of such a file")
    for key in ("network_args", "optimizer_args"):
        if key in settings.options:
            settings.options[key] = sd_scripts_toml.pairs(settings.options[key])
    ratio = table.get("optimizer_args", {}).get("args", {}).get("warmup_ratio")
    if isinstance(ratio, int | float) and ratio:
        settings.options["lr_warmup_steps"] = float(ratio)
    sd_scripts_toml.add_datasets(settings, {"datasets": [{**dataset, "subsets": table.get("subsets", [])}]})
    return settings
