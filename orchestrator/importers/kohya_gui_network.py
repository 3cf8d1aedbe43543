"""Read the network, its arguments and the learning rates of kohya_ss' settings."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from orchestrator.importers import kohya_gui_names as names
from orchestrator.importers.notes import Disposition
from orchestrator.models.registry import ARCHITECTURES

if TYPE_CHECKING:
    from orchestrator.importers.notes import ImportedSettings


def network(settings: ImportedSettings, values: dict[str, Any]) -> None:
    """Set the network module and the arguments that its type passes on."""
    kind = str(values.get("LoRA_type", "Standard"))
    module, algo, passed = names.TYPES.get(kind.lower(), (kind, "", ()))
    own = ARCHITECTURES[settings.extra["architecture"]].network_module
    if own != "networks.lora" and kind.lower() in (*names.OWN_TYPES, "standard"):
        module, passed = own, names.OF_MODULE
    settings.options["network_module"] = module
    settings.origin["network_module"] = "LoRA_type"
    if "use_tucker" not in values and "use_tucker" in passed:
        passed = (*passed, "use_cp")  # its name in older versions
    args: dict[str, Any] = {}
    for key in (names.ARGUMENTS | set(names.OF_MODULE)) & values.keys():
        value = values[key]
        if key in passed or key in names.PLUS:
            # LyCORIS trains convolutions at network_dim unless conv_dim is given, and kohya_ss gives both, 0 included.
            explicit = key in ("conv_dim", "conv_alpha") and module == "lycoris.kohya" and value == 0 and value is not False
            explicit = explicit or (key == "decompose_both" and value is False)
            if (is_set(value) or explicit) and not (key == "factor" and value == -1):
                args[names.RENAMED.get(key, key)] = value
                settings.origin[names.RENAMED.get(key, key)] = key
        elif is_set(value) and not (key == "factor" and value == -1):
            settings.note(Disposition.LOST, key, why=f"kohya_ss does not pass it on for the type {kind}")
    if values.get("factor") == -1:
        settings.note(Disposition.KEPT, "factor", why="it is LyCORIS' default")
    preset = values.get("LyCORIS_preset")
    if module == "lycoris.kohya":
        args["algo"] = algo
        settings.origin["algo"] = "LoRA_type"
        if preset not in (None, "", "full"):
            args["preset"] = preset
            settings.origin[f"preset {preset}"] = settings.origin["preset"] = "LyCORIS_preset"
        elif preset:
            settings.note(Disposition.KEPT, "LyCORIS_preset", why="it is LyCORIS' default")
    elif preset:
        settings.note(Disposition.LOST, "LyCORIS_preset", why=f"kohya_ss does not pass it on for the type {kind}")
    settings.options["network_args"] = args


def rates(settings: ImportedSettings, values: dict[str, Any]) -> None:
    """Set the rates of both parts. 0 there means: do not train it.

    resolve_network_train_flags of kohya_gui/lora_gui.py; with both 0, both parts are trained at learning_rate. Where a file
    has one rate only, the interface fills in a rate for the other part.
    """
    keys = {"text_encoder_lr": "network_train_unet_only", "unet_lr": "network_train_text_encoder_only"}
    given: dict[str, Any] = {}
    for key in keys:
        if values.get(key) is None:
            continue
        try:
            given[key] = _rate(values[key])
        except (ValueError, TypeError):
            settings.note(Disposition.LOST, key, why=f"{str(values[key])[:40]!r} is no rate; learning_rate is used")
    for key, only in keys.items():
        other = given.get(next(name for name in keys if name != key), names.FILLED_IN)
        if given.get(key):
            settings.options[key] = given[key]
        elif key in given and other:
            settings.options[only] = True
            settings.note(Disposition.CHANGED, key, "training.train", "0 means there: this part is not trained")
        elif key in given:
            settings.note(Disposition.KEPT, key, why="0 for both parts means there: both are trained at learning_rate")


def t5_rate(settings: ImportedSettings, values: dict[str, Any]) -> None:
    """Set the rate of T5, passed as the second one of a list.

    The second rate is that of all text encoders behind the first (networks/lora_sd3.py); networks/lora.py ignores it.
    """
    rate = values.get("t5xxl_lr")
    if not is_set(rate):
        return
    entry = ARCHITECTURES[settings.extra["architecture"]]
    encoders, first = len(entry.model.text_encoders), settings.options.get("text_encoder_lr")
    if not entry.layer_choice.text_rates or isinstance(first, list):
        settings.note(Disposition.LOST, "t5xxl_lr", why="the trainer of this model takes one rate for all text encoders")
    elif first is None or (encoders == len(("clip_l", "t5xxl")) and values.get("train_t5xxl") is not True):
        settings.note(Disposition.LOST, "t5xxl_lr", why="T5 is not trained")
    else:
        settings.options["text_encoder_lr"] = [first] + [rate] * (encoders - 1)
        settings.note(Disposition.KEPT, "t5xxl_lr", "training.text_encoder_lr")


def _rate(value: Any) -> float | list[float]:
    """Return a rate, or the different rates of a list. Nothing is 0.

    Raises:
        ValueError: it is neither.
    """
    words = re.split(r"[\s,]+", value.strip("[]() ")) if isinstance(value, str) else value
    rates = [float(word) for word in (words if isinstance(words, list) else [words]) if word not in ("", None)]
    if not all(math.isfinite(rate) and rate >= 0 for rate in rates):
        raise ValueError(value)
    return rates if len(set(rates)) > 1 else rates[0] if rates else 0.0


def is_set(value: Any) -> bool:
    """Return True if the GUI passed a value on.

    It left out "", false and every zero.
    """
    return value not in ("", None, False, 0, [], {})
