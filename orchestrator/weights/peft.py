"""What diffusers notes of PEFT's settings in a file's metadata: the alphas, which its tensors do not hold.

``lora_adapter_metadata`` is a JSON table of {component}.lora_alpha, .r, .alpha_pattern, .rank_pattern, .use_rslora (diffusers
0.34 and later, loaders/lora_base.py _pack_dict_with_prefix). Files without it have alpha = rank.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

from orchestrator.errors import Problem, RecipeError

if TYPE_CHECKING:
    from collections.abc import Mapping

KEY = "lora_adapter_metadata"


def stated_alpha(metadata: Mapping[str, str], module: str, rank: int | None) -> float | None:
    """Return the alpha that the metadata state for a module's path (unet.down_blocks.0…); None where they state none.

    Rank-stabilized files divide it by the root of the rank; here it is the alpha that comes to the same divided by the rank.

    Raises RecipeError where the table is none, or its alpha is no number: a wrong scale would be silent.
    """
    if KEY not in metadata:
        return None
    try:
        table = json.loads(metadata[KEY])
    except (ValueError, RecursionError) as error:
        raise RecipeError(Problem(KEY, "is not JSON", "the alphas of this file are not known")) from error
    component, _, path = module.partition(".")
    if not isinstance(table, dict):
        raise RecipeError(Problem(KEY, "is no table", "the alphas of this file are not known"))
    patterns = table.get(f"{component}.alpha_pattern") or {}
    named = patterns.items() if isinstance(patterns, dict) else ()
    alpha = next((value for name, value in named if f".{path}".endswith(f".{name}")), table.get(f"{component}.lora_alpha"))
    if alpha is None:
        return None
    if not isinstance(alpha, int | float) or isinstance(alpha, bool):
        raise RecipeError(Problem(f"{KEY}: {component}.lora_alpha", f"{str(alpha)[:40]!r} is no number"))
    return float(alpha) * (math.sqrt(rank) if rank and table.get(f"{component}.use_rslora") is True else 1.0)


def without(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return ``metadata`` without that table: for a file whose ranks and alphas are others now."""
    return {key: value for key, value in metadata.items() if key != KEY}
