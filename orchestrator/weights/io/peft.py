"""Read the scales that diffusers and PEFT store beside the tensors.

``lora_adapter_metadata`` is a JSON table of {component}.lora_alpha, .r, .alpha_pattern, .rank_pattern, .use_rslora (diffusers
0.34 and later, loaders/lora_base.py _pack_dict_with_prefix). PEFT's own files, whose names begin with base_model, have the
same settings in adapter_config.json in their folder (peft config.py save_pretrained). LoHa and LoKr call their alpha
``alpha`` there. Without either table, alpha is the rank, as other programs read such files.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from orchestrator.errors import Problem, RecipeError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from orchestrator.weights.io.safetensors_io import Header

KEY = "lora_adapter_metadata"
CONFIG = "adapter_config.json"
MODEL = "adapter_model.safetensors"

_PEFT = "base_model.model."
_LONGEST = 1 << 20
_FLOAT = 3e38  # of float32; NaN and an integer beyond every float are numbers of JSON too
_SETTINGS = ("peft_type", "r", "lora_alpha", "alpha", "rank_pattern", "alpha_pattern", "use_rslora")
_TYPES = ("LORA", "LOHA", "LOKR")
_CHANGED_BASES = ("pissa", "olora", "corda", "lora_ga", "loftq")
"""Initializations that also change the base model (peft tuners/lora/layer.py, *_init)."""
_VARIANTS = (
    *("fan_in_fan_out", "use_qalora", "alora_invocation_tokens", "arrow_config", "kasa_config", "use_bdlora"),
    *("layer_replication", "target_parameters", "lora_bias"),
)
"""Settings of LoraConfig with another delta than up times down (peft tuners/lora/variants.py)."""
MERGE = "merge it into its base with PEFT's merge_and_unload"


def stated_alpha(metadata: Mapping[str, str], module: str, rank: int | None) -> float | None:
    """Return the alpha in the metadata for a module's path, or None.

    Rank-stabilized files divide it by the root of the rank. Their alpha is multiplied by that root here, so that alpha / rank
    is their scale too.

    Raises:
        RecipeError: the entry is not a table, or its alpha is not a number. A wrong scale would be silent.
    """
    table, component, path = _table(metadata, module)
    usual = next((table[key] for name in ("lora_alpha", "alpha") if (key := f"{component}.{name}") in table), None)
    alpha = _matching(table, f"{component}.alpha_pattern", path, usual)
    if alpha is None:
        return None
    number = _number(f"{component}.lora_alpha", alpha)
    return number * (math.sqrt(rank) if rank and table.get(f"{component}.use_rslora") is True else 1.0)


def stated_scale(metadata: Mapping[str, str], module: str) -> float:
    """Return alpha / rank of a module whose shapes have no rank, or 1.

    PEFT applies the rank of the settings to a LoKr of two whole matrices too (peft tuners/lokr/layer.py update_layer).

    Raises:
        RecipeError: as :func:`stated_alpha`, and for its rank.
    """
    alpha = stated_alpha(metadata, module, None)
    table, component, path = _table(metadata, module)
    rank = _matching(table, f"{component}.rank_pattern", path, table.get(f"{component}.r"))
    return 1.0 if alpha is None or rank is None else alpha / _number(f"{component}.r", rank)


def _table(metadata: Mapping[str, str], module: str) -> tuple[dict[str, Any], str, str]:
    """Return the settings, and the component and path of a module in them."""
    try:
        table = json.loads(metadata.get(KEY, "{}"))
    except (ValueError, RecursionError) as error:
        raise RecipeError(Problem(KEY, "is not JSON", "the alphas of this file are not known")) from error
    if not isinstance(table, dict):
        raise RecipeError(Problem(KEY, "is not a table", "the alphas of this file are not known"))
    component, _, path = module.replace(_PEFT, "base_model.", 1).partition(".")
    return table, component, path


def _number(name: str, value: Any) -> float:
    """Return a number other than 0, which alpha / rank cannot be here."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not -_FLOAT <= value <= _FLOAT:
        raise RecipeError(Problem(f"{KEY}: {name}", f"{str(value)[:40]!r} is not a number of float32"))
    if not value:
        raise RecipeError(Problem(f"{KEY}: {name}", "is 0, which turns the LoRA off", "which alpha was it trained with?"))
    return float(value)


def _matching(table: Mapping[str, Any], name: str, path: str, usual: Any) -> Any:
    """Return the value of the first pattern of the table that ends ``path``.

    PEFT matches patterns as regular expressions after a dot (peft utils/other.py get_pattern_key).

    Raises:
        RecipeError: a pattern is not a regular expression, or one that could take forever.
    """
    patterns = table.get(name) or {}
    for pattern, value in patterns.items() if isinstance(patterns, dict) else ():
        if re.search(r"\)[*+{]", pattern) or len(re.findall(r"[*+{]", pattern)) > 3:
            raise RecipeError(Problem(f"{KEY}: {name}", f"{pattern[:60]!r} repeats too much to be matched"))
        try:
            if re.fullmatch(rf"(?:.*\.)?(?:{pattern})", path):
                return value
        except re.error as error:
            raise RecipeError(Problem(f"{KEY}: {name}", f"{pattern[:60]!r} is not a regular expression")) from error
    return usual


def with_config(header: Header) -> Header:
    """Return a header with the settings of adapter_config.json as metadata.

    There they stay with the file's changed copies, whatever their folder.

    Raises:
        RecipeError: adapter_config.json is not a JSON table, or describes an adapter whose delta is not read here.
    """
    config = header.path.with_name(CONFIG)
    if KEY in header.metadata or not lacks_scales(header) or not config.is_file():
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
    if problems := [Problem(f"{config}: {name}", what, hint) for name, what, hint in _refusals(table)]:
        raise RecipeError(problems)
    settings = {f"base_model.{name}": table[name] for name in _SETTINGS if name in table}
    return replace(header, metadata={**header.metadata, KEY: json.dumps(settings)})


def lacks_scales(header: Header) -> bool:
    """Return whether a file of PEFT has no table of its alphas."""
    return KEY not in header.metadata and any(key.startswith(_PEFT) for key in header.entries)


def _refusals(table: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield setting, reason and way out of each setting with another delta."""
    kind = table.get("peft_type", "LORA")
    if kind not in _TYPES:
        yield "peft_type", f"{kind} of PEFT is not a LoRA, a LoHa or a LoKr", MERGE
        return
    start = str(table.get("init_lora_weights", "")).lower()
    if start.startswith(_CHANGED_BASES):
        hint = "save_pretrained(…, path_initial_model_for_weight_conversion=…) of PEFT makes a plain LoRA of it"
        yield "init_lora_weights", f"{start} changed the base model, and the file is a delta to that", hint
    whole = table.get("lora_alpha") == table.get("r") and not (table.get("alpha_pattern") or table.get("rank_pattern"))
    for name in _VARIANTS:
        if table.get(name) and not (name == "lora_bias" and whole):
            yield name, "changes more than the product of two factors", MERGE


def without(metadata: Mapping[str, str], *, renamed: bool) -> dict[str, str]:
    """Return ``metadata`` without the table of alphas.

    A file that keeps PEFT's own names gets an empty table: an adapter_config.json beside it no longer describes it.
    """
    kept = {key: value for key, value in metadata.items() if key != KEY}
    return kept | {KEY: "{}"} if not renamed and '"base_model.' in metadata.get(KEY, "") else kept
