"""JSON settings of bmaltais' kohya_ss GUI (its LoRA page).

What the interface passes to sd-scripts, and on which condition: kohya_gui/lora_gui.py, train_model (config_toml_data). It
leaves out "", false and every zero. Numbers may be texts.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from orchestrator.engines.sdscripts import parser_options
from orchestrator.errors import Problem, RecipeError
from orchestrator.importers import architectures, command_line, leaves, sd_scripts_toml
from orchestrator.importers import kohya_gui_names as names
from orchestrator.importers.notes import Disposition, ImportedSettings
from orchestrator.importers.values import argv, pairs, plain_number
from orchestrator.models.registry import ARCHITECTURES


def read(name: str, table: dict[str, Any], folder: Path | None = None) -> ImportedSettings:
    """Read the JSON of the GUI.

    Args:
        name: of the file.
        table: its content.
        folder: of the file; the dataset configuration that it names can be there.

    Raises:
        RecipeError: it is of another page, or for a model that recipes do not train.
    """
    if names.PAGE.isdisjoint(table):
        hint = "import reads those of its LoRA page, which have LoRA_type"
        raise RecipeError(Problem(name, "these are settings for another page of kohya_ss (no LoRA)", hint))
    settings = ImportedSettings(str(table.get("output_name") or name), "kohya_ss")
    settings.leaves = _leaves(table)
    values = {key: _plain(value) for key, value in table.items()}
    chosen = next((key for key in names.MODELS if values.get(key) is True), None)
    settings.extra["architecture"] = "sd1"
    if chosen is not None:
        architectures.named(settings, *names.MODELS[chosen])
        settings.note(Disposition.KEPT, chosen, "base.architecture")
    _network(settings, values)
    for key, value in values.items():
        if key in names.READ or key in names.ARGUMENTS or key in names.OF_MODULE or key in names.MODELS:
            continue
        own = _own_option(settings, key)
        if own and _is_set(value):
            settings.options[own] = value
            settings.origin[own] = key
        elif own:
            continue
        elif why := _not_passed(key, values):
            if _is_set(value):
                settings.note(Disposition.LOST, key, why=why)
        elif key == "max_grad_norm" and value == 0:
            settings.options[key] = 1.0
            settings.note(
                Disposition.CHANGED, key, "training.max_grad_norm", "the GUI does not pass 0 on: sd-scripts clipped at 1.0"
            )
        elif _is_set(value) or (key == "max_data_loader_n_workers" and value == 0):
            _set(settings, key, value)
    _rates(settings, values)
    _t5_rate(settings, values)
    _schedule(settings, values)
    _remaining(settings, values)
    _additional(settings, values.get("additional_parameters"))
    _set(settings, "max_resolution", values.get("max_resolution") or "512,512")
    settings.options.setdefault("train_batch_size", 1)
    epochs = values.get("epoch")
    lengths = ("max_train_steps", "max_train_epochs", "dataset_config")
    if _is_set(epochs) and not any(settings.options.get(key) for key in lengths):
        settings.extra["interface_epochs"] = epochs
    elif _is_set(epochs):
        why = "the interface counts steps by it only where neither steps, epochs nor a dataset configuration are set"
        settings.note(Disposition.LOST, "epoch", why=why)
    sd_scripts_toml.add_images(settings, folder or Path())
    return settings


def _leaves(table: dict[str, Any]) -> dict[str, Any]:
    """Return the values of the file, with those of its lists of arguments."""
    result: dict[str, Any] = {}
    for path, value in leaves.of(table):
        inner: dict[str, Any] = {}
        if path == "optimizer_args":
            inner = pairs(value)
        elif path == "additional_parameters" and isinstance(value, str):
            inner = {f"--{name}": " ".join(given) or True for name, given in argv(value).items()}
        result |= {f"{path}.{name}": item for name, item in inner.items()} if inner else {path: value}
    return result


def _set(settings: ImportedSettings, key: str, value: Any) -> None:
    """Set the option that a setting becomes."""
    option = names.RENAMED.get(key, key)
    settings.options[option] = value
    if option != key and key in settings.leaves:
        settings.origin[option] = key


def _own_option(settings: ImportedSettings, key: str) -> str:
    """Return the option of the model's script that a setting sets, or ""."""
    entry = ARCHITECTURES[settings.extra["architecture"]]
    prefix = next((prefix for prefix in names.OTHER_PREFIXES if key.startswith(prefix)), "")
    if prefix and entry.trainer_script != f"{names.OTHER_PREFIXES[prefix]}_train_network.py":
        return ""
    option = key.removeprefix(prefix)
    own = {file.option for file in entry.files} | parser_options.of(entry.trainer_script).keys()
    passed = names.OF_MODEL.get(entry.trainer_script.removesuffix("_train_network.py"), ())
    return option if (prefix or key in passed) and option in own else ""


def _not_passed(key: str, values: dict[str, Any]) -> str:
    """Return why the interface does not pass a setting on, or ""."""
    noise = values.get("noise_offset_type") or "Original"
    if key in names.INTERFACE:
        return "of the interface or the launcher, without influence on the training"
    if key in names.REMOVED:
        return "sd-scripts v0.10.1 has no such setting"
    if key in names.OTHER_MODELS or key.startswith(tuple(names.OTHER_PREFIXES)):
        return "kohya_ss does not pass it on for this model"
    if key.startswith("sdxl_") and values.get("sdxl") is not True:
        return "kohya_ss passes it on with sdxl only"
    if key == "vae" and any(f"{prefix}vae" in values for prefix in _prefixes(values)):
        return "this model has a setting of its own for it"
    if key in names.NOISE and noise != names.NOISE[key]:
        return f'kohya_ss passes it on with noise_offset_type = "{names.NOISE[key]}" only'
    return ""


def _prefixes(values: dict[str, Any]) -> list[str]:
    """Return the prefixes of the settings of the model that is switched on."""
    chosen = next((names.MODELS[key][0] for key in names.MODELS if values.get(key) is True), "")
    return [prefix for prefix, word in names.OTHER_PREFIXES.items() if word == chosen]


def _network(settings: ImportedSettings, values: dict[str, Any]) -> None:
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
            if (_is_set(value) or explicit) and not (key == "factor" and value == -1):
                args[names.RENAMED.get(key, key)] = value
                settings.origin[names.RENAMED.get(key, key)] = key
        elif _is_set(value) and not (key == "factor" and value == -1):
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


def _rates(settings: ImportedSettings, values: dict[str, Any]) -> None:
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


def _t5_rate(settings: ImportedSettings, values: dict[str, Any]) -> None:
    """Set the rate of T5, passed as the second one of a list.

    The second rate is that of all text encoders behind the first (networks/lora_sd3.py); networks/lora.py ignores it.
    """
    rate = values.get("t5xxl_lr")
    if not _is_set(rate):
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


def _schedule(settings: ImportedSettings, values: dict[str, Any]) -> None:
    """Set the values of the learning rate's schedule."""
    options = settings.options
    for key in ("optimizer_args", "lr_scheduler_args"):
        table = pairs(values.get(key))
        empty = [name for name, value in table.items() if value == ""]
        for name in empty:
            del table[name]
            settings.note(Disposition.LOST, f"{key}.{name}", why="it has no value")
        if not table and not empty and _is_set(values.get(key)):
            settings.note(Disposition.LOST, key, why=f"{str(values[key])[:40]!r} holds no NAME=VALUE")
        if table:
            options[key] = table if key == "optimizer_args" else [f"{name}={value}" for name, value in table.items()]
    cycles = values.get("lr_scheduler_num_cycles")
    if _is_set(cycles):
        options["lr_scheduler_num_cycles"] = cycles
    elif cycles == "" and "restarts" in str(values.get("lr_scheduler")) and _is_set(values.get("epoch")):
        options["lr_scheduler_num_cycles"] = values["epoch"]
        why = "it is empty, and the interface passes the number of epochs"
        settings.note(Disposition.CHANGED, "lr_scheduler_num_cycles", "training.lr_scheduler_num_cycles", why)
    warmup = values.get("lr_warmup")
    if not _is_set(warmup) or not isinstance(warmup, int | float):
        return
    if "lr_warmup_steps" in options:
        settings.note(Disposition.LOST, "lr_warmup", why="lr_warmup_steps overrides it")
    else:
        options["lr_warmup_steps"] = float(warmup / 100)
        settings.origin["lr_warmup_steps"] = "lr_warmup"


def _remaining(settings: ImportedSettings, values: dict[str, Any]) -> None:
    """Translate the settings without an option of the same name and meaning."""
    options = settings.options
    if values.get("use_wandb") is True:
        options["log_with"] = "wandb"
        settings.origin["log_with"] = "use_wandb"
    attention = values.get("xformers")
    if attention in (True, "xformers"):
        options["xformers"] = True
    elif attention == "sdpa":
        options["sdpa"] = True
        settings.origin["sdpa"] = "xformers"
    elif attention and "xformers" in settings.leaves:
        settings.origin["attention"] = "xformers"
    if options.get("wandb_run_name") and options["wandb_run_name"] == values.get("output_name"):
        del options["wandb_run_name"]
        settings.note(Disposition.KEPT, "wandb_run_name", why="the recipe's name")
    if _is_set(kind := values.get("noise_offset_type")):
        settings.note(Disposition.KEPT, "noise_offset_type", why=f"it chooses the settings of {kind}")


def _additional(settings: ImportedSettings, text: Any) -> None:
    """Read the arguments that the interface appends to the command."""
    if not isinstance(text, str) or not text.strip():
        return
    script = ARCHITECTURES[settings.extra["architecture"]].trainer_script
    for name, value in command_line.typed(argv(text), script).items():
        old = settings.origin.get(name, name)
        if name in settings.options and old in settings.leaves:
            settings.overridden[old] = f"additional_parameters override it with --{name}"
        settings.options[name] = pairs(value) if name in ("optimizer_args", "network_args") else value
        settings.origin[name] = f"additional_parameters.--{name}"
    if settings.origin.get("network_args"):
        args = settings.options["network_args"]
        settings.origin |= dict.fromkeys(args, settings.origin["network_args"])


def _is_set(value: Any) -> bool:
    """Return True if the GUI passed a value on.

    It left out "", false and every zero.
    """
    return value not in ("", None, False, 0, [], {})


def _plain(value: Any) -> Any:
    """Return a switch, nothing or a number that stands in a text."""
    return names.WORDS[value] if isinstance(value, str) and value in names.WORDS else plain_number(value)
