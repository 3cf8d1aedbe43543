"""Translate network_module and network_args to [network]."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from orchestrator.engines.sdscripts import network_args
from orchestrator.importers import layer_choices, lycoris_presets
from orchestrator.importers.notes import Disposition, ImportedSettings
from orchestrator.importers.values import argument_value, number, path, take, whole
from orchestrator.models.registry import ARCHITECTURES

if TYPE_CHECKING:
    from orchestrator.recipe import Family

_LYCORIS: Final = {"dropout": "dropout", "use_tucker": "tucker", "use_cp": "tucker", "bypass_mode": "bypass"}
_NUMBERS: Final = re.compile(r"\s*\d+(\.\d+)?\s*(,\s*\d+(\.\d+)?\s*)*")
_ALPHA: Final = "the trainer takes the rank for 0"
_TRUE_TEXT: Final = (
    "off here; there it is the text False, which LyCORIS takes for true where the rank is small: set it to true to repeat that"
)
_OFF: Final = "off, as in a recipe without it"
_PRESET_2023: Final = {
    "enable_conv": True,
    "unet_target_module": ["Transformer2DModel", "ResnetBlock2D", "Downsample2D", "Upsample2D"],
    "unet_target_name": [],
    "text_encoder_target_module": ["CLIPAttention", "CLIPMLP"],
    "text_encoder_target_name": [],
}


def network(settings: ImportedSettings, remaining: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Return the table [network] of imported settings, and its family."""
    args = remaining.pop("network_args", {})
    args = dict(args) if isinstance(args, dict) else {}
    own = ARCHITECTURES[settings.extra["architecture"]].network_module
    if not {"network_module", "network_dim"} & remaining.keys():
        why = "none is named: networks.lora with sd-scripts' rank"
        settings.note(Disposition.CHANGED, "the network", "network.family", why)
    family = _family(settings, str(remaining.pop("network_module", own)), args)
    table: dict[str, Any] = {"family": family}
    table["dim"] = take(settings, remaining, "network_dim", "network.dim", whole) or 4
    alpha = take(settings, remaining, "network_alpha", "network.alpha", number)
    table["alpha"] = 1 if alpha is None else alpha
    _convolutions(settings, table, args)
    if alpha == 0:
        table["alpha"] = table["dim"]
        settings.note(Disposition.CHANGED, "network_alpha", "network.alpha", _ALPHA)
    table |= layer_choices.network(settings, args, family)
    for key, where in _LYCORIS.items():
        value = take(settings, args, key, f"network.{where}", argument_value)
        if value:
            table[where] = value
        elif value is not None:
            settings.note(Disposition.KEPT, key, why=_OFF)
    _dropout_and_preset(settings, remaining, args, table)
    if rest := _further(settings, args, table["family"]):
        table["args"] = rest
    weights = take(settings, remaining, "network_weights", "network.weights", path)
    if weights:
        table["weights"] = weights
    return table, family


def _family(settings: ImportedSettings, module: str, args: dict[str, Any]) -> str:
    """Return the family of a network module, lora for unsupported ones."""
    family, entry = "lora", ARCHITECTURES[settings.extra["architecture"]]
    if module == "lycoris.kohya":
        algo = str(args.get("algo", "locon")).lower()
        family = {"lora": "locon"}.get(algo, algo)
    names = ("network_module", "algo") if args.pop("algo", None) else ("network_module",)
    own = entry.network_module
    trained = tuple(network_args.ARGS) if entry.lycoris is None or module == own else entry.lycoris
    if module in (own, "lycoris.kohya") and family in trained:
        for name in names:
            settings.note(Disposition.KEPT, name, "network.family")
        return family
    what = module if module != "lycoris.kohya" else f"LyCORIS {family}"
    title = f" for {entry.title}" if family in network_args.ARGS and module == "lycoris.kohya" else ""
    for name in names:
        settings.note(Disposition.LOST, name, "network.family", f"recipes cannot train {what}{title}; lora is used")
    for key in [*args]:
        if key not in ("conv_dim", "conv_alpha") and not str(key).startswith("loraplus"):
            del args[key]
            settings.note(Disposition.LOST, key, why=f"of {what}, which recipes cannot train")
    return "lora"


def _convolutions(settings: ImportedSettings, network: dict[str, Any], args: dict[str, Any]) -> None:
    """Set rank and alpha of the convolutions. 0 as rank excludes them."""
    lycoris = network["family"] not in ("lora", "full")
    excluded = network["family"] != "lora" and str(args.get("conv_dim")) in ("0", "0.0")
    rank = take(settings, args, "conv_dim", "network.conv_dim", whole)
    alpha = take(settings, args, "conv_alpha", "network.conv_alpha", number)
    if excluded:
        for key in ("conv_dim", "conv_alpha"):
            settings.note(Disposition.CHANGED, key, why="rank 0: no convolutions are trained, as without it in a recipe")
        return
    if rank:
        network["conv_dim"] = rank
    elif lycoris:
        network["conv_dim"] = network["dim"]
        why = "LyCORIS uses network_dim as its default; a recipe needs it"
        settings.note(Disposition.CHANGED, "conv_dim", "network.conv_dim", why)
    if alpha:
        network["conv_alpha"] = alpha
    elif "conv_dim" in network and (alpha == 0 or (lycoris and network["alpha"] == 0)):
        network["conv_alpha"] = network["conv_dim"]
        settings.note(Disposition.CHANGED, "conv_alpha", "network.conv_alpha", _ALPHA)


def _further(settings: ImportedSettings, args: dict[str, Any], family: Family) -> dict[str, Any]:
    """Return the arguments without a recipe key of their own."""
    rest: dict[str, Any] = {}
    kinds = network_args.taken(family, ARCHITECTURES[settings.extra["architecture"]])
    for key, item in args.items():
        value = _network_argument(kinds, key, item)
        if key in network_args.BLOCK_LISTS and not _NUMBERS.fullmatch(str(value)):
            settings.note(Disposition.LOST, key, why=f"{str(value)[:60]!r} is no list of numbers")
        elif key == "decompose_both" and value is False:
            settings.note(Disposition.CHANGED, key, f"network.args.{key}", _TRUE_TEXT)
        elif value in ("", None, False):  # 0, too
            settings.note(Disposition.KEPT, key, why=_OFF)
        else:
            rest[key] = value
            settings.note(Disposition.KEPT, key, f"network.args.{key}")
    return rest


def _network_argument(kinds: dict[str, str], key: str, item: Any) -> Any:
    """Return a network argument as a recipe takes it: a list as text."""
    if kinds.get(key) == "text":
        return ",".join(map(str, item)) if isinstance(item, list | tuple) else str(item).strip("'")
    value = argument_value(item)
    whole_number = isinstance(value, float) and value.is_integer() and kinds.get(key) == "whole"
    return int(value) if whole_number else value


def _dropout_and_preset(
    settings: ImportedSettings, remaining: dict[str, Any], args: dict[str, Any], network: dict[str, Any]
) -> None:
    entry = ARCHITECTURES[settings.extra["architecture"]]
    dropout = take(settings, remaining, "network_dropout", "network.dropout", number)
    if dropout:
        network["dropout"] = dropout
    preset = args.pop("preset", None) or None
    if settings.extra.get("lycoris_2023"):
        network["preset"] = _PRESET_2023
    elif set(settings.extra.get("preset", {"": 0})) <= set(_PRESET_2023):
        network["preset"] = settings.extra["preset"]
        settings.note(Disposition.KEPT, "preset", "network.preset")
    elif network["family"] != "lora" and preset in lycoris_presets.MODULES:
        network["preset"] = lycoris_presets.MODULES[preset]
        settings.note(Disposition.KEPT, "preset", "network.preset")
    elif network["family"] != "lora" and (classes := entry.lycoris_modules):
        network["preset"] = {"enable_conv": False, "unet_target_module": list(classes)}
        why = f"it is not a file here, and {entry.lycoris_preset}: attention and feed-forward are trained"
        settings.note(Disposition.CHANGED, "preset", "network.preset", why)
    elif preset == "full":
        settings.note(Disposition.KEPT, "preset", why="it is LyCORIS' default")
    elif preset is not None:
        settings.note(Disposition.LOST, "preset", "network.preset", f"{preset}: write its modules into [network.preset]")
