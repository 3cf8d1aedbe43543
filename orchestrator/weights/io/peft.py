"""Read the alphas that diffusers and PEFT store beside the tensors.

``lora_adapter_metadata`` is a JSON table of {component}.lora_alpha, .r, .alpha_pattern, .rank_pattern, .use_rslora (diffusers
0.34 and later, loaders/lora_base.py _pack_dict_with_prefix). PEFT's own files, whose names begin with base_model, have the
same settings in adapter_config.json in their folder (peft config.py save_pretrained). Without either, alpha is the rank.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import TYPE_CHECKING

from orchestrator.errors import Problem, RecipeError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from orchestrator.weights.io.safetensors_io import Header

KEY = "lora_adapter_metadata"
CONFIG = "adapter_config.json"

_PEFT = "base_model.model."
_LONGEST = 1 << 20
_SETTINGS = ("r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora")


def stated_alpha(metadata: Mapping[str, str], module: str, rank: int | None) -> float | None:
    """Return the alpha in the metadata for a module's path, or None.

    Rank-stabilized files divide it by the root of the rank. Their alpha is multiplied by that root here, so that alpha / rank
    is their scale too.

    Raises:
        RecipeError: the entry is not a table, or its alpha is not a number. A wrong scale would be silent.
    """
    if KEY not in metadata:
        return None
    try:
        table = json.loads(metadata[KEY])
    except (ValueError, RecursionError) as error:
        raise RecipeError(Problem(KEY, "is not JSON", "the alphas of this file are not known")) from error
    component, _, path = module.replace(_PEFT, "base_model.", 1).partition(".")
    if not isinstance(table, dict):
        raise RecipeError(Problem(KEY, "is not a table", "the alphas of this file are not known"))
    patterns = table.get(f"{component}.alpha_pattern") or {}
    named = patterns.items() if isinstance(patterns, dict) else ()
    alpha = next((value for name, value in named if f".{path}".endswith(f".{name}")), table.get(f"{component}.lora_alpha"))
    if alpha is None:
        return None
    if not isinstance(alpha, int | float) or isinstance(alpha, bool):
        raise RecipeError(Problem(f"{KEY}: {component}.lora_alpha", f"{str(alpha)[:40]!r} is not a number"))
    return float(alpha) * (math.sqrt(rank) if rank and table.get(f"{component}.use_rslora") is True else 1.0)


def with_config(header: Header, modules: Iterable[str]) -> Header:
    """Return a header with the settings of adapter_config.json as metadata.

    There they stay with the file's changed copies, whatever their folder.

    Raises:
        RecipeError: adapter_config.json is not a JSON table.
    """
    config = header.path.with_name(CONFIG)
    if KEY in header.metadata or not any(module.startswith(_PEFT) for module in modules) or not config.is_file():
        return header
    try:
        with config.open(encoding="utf-8") as file:
            table = json.loads(file.read(_LONGEST))
    except (OSError, ValueError, RecursionError) as error:
        raise RecipeError(
            Problem(str(config), "cannot be read as JSON", f"{header.path.name} has its alphas there")
        ) from error
    if not isinstance(table, dict):
        raise RecipeError(Problem(str(config), "is not a table", f"{header.path.name} has its alphas there"))
    settings = {f"base_model.{name}": table[name] for name in _SETTINGS if name in table}
    return replace(header, metadata={**header.metadata, KEY: json.dumps(settings)})


def without(metadata: Mapping[str, str], *, renamed: bool) -> dict[str, str]:
    """Return ``metadata`` without the table of alphas.

    A file that keeps PEFT's own names gets an empty table: an adapter_config.json beside it no longer describes it.
    """
    kept = {key: value for key, value in metadata.items() if key != KEY}
    return kept | {KEY: "{}"} if not renamed and '"base_model.' in metadata.get(KEY, "") else kept
