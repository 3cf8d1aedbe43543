"""LoRA_Easy_Training_Scripts: a TOML with [X_args.args] (options), [X_args.dataset_args] (dataset) and [[subsets]]."""

from __future__ import annotations

from typing import Any

from orchestrator.importers import Fate, Found, sd_scripts_toml

_OWN = {"warmup_ratio", "tag_occurrence", "tag_file_location", "keep_tokens_separator", "name"}  # of its own interface


def looks(table: dict[str, Any]) -> bool:
    """Return whether a table is such a file."""
    return any(
        name.endswith("_args") and isinstance(part, dict) and {"args", "dataset_args"} & set(part)
        for name, part in table.items()
    )


def read(name: str, table: dict[str, Any]) -> Found:
    """Read one file."""
    found = Found(name, "LoRA_Easy_Training_Scripts")
    dataset: dict[str, Any] = {}
    for part, inside in table.items():
        if not isinstance(inside, dict):
            continue
        args = inside.get("args", {})
        for key, value in (args if isinstance(args, dict) else {}).items():
            if key in _OWN:
                continue
            found.options[key] = value
        more = inside.get("dataset_args", {})
        dataset |= more if isinstance(more, dict) else {}
        if not {"args", "dataset_args"} & set(inside) and inside and part != "subsets":
            found.say(Fate.LOST, part, why="no known part of such a file")
    for key in ("network_args", "optimizer_args"):
        if key in found.options:
            found.options[key] = sd_scripts_toml.pairs(found.options[key])
    ratio = table.get("optimizer_args", {}).get("args", {}).get("warmup_ratio")
    if isinstance(ratio, int | float) and ratio:
        found.options["lr_warmup_steps"] = float(ratio)
    sd_scripts_toml.datasets(found, {"datasets": [{**dataset, "subsets": table.get("subsets", [])}]})
    return found
