"""JSON settings of bmaltais' kohya_ss GUI (its LoRA page).

What the interface passes to sd-scripts, and on which condition: kohya_gui/lora_gui.py, train_model (config_toml_data). It
leaves out "", false and every zero. Numbers may be texts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from orchestrator.engines.sdscripts import parser_options
from orchestrator.errors import Problem, RecipeError
from orchestrator.importers import architectures, command_line, kohya_gui_network, leaves, sd_scripts_toml
from orchestrator.importers import kohya_gui_names as names
from orchestrator.importers.kohya_gui_network import is_set
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
    kohya_gui_network.network(settings, values)
    elsewhere = {*names.READ, *names.ARGUMENTS, *names.OF_MODULE, *names.MODELS}
    for key in values:
        if key not in elsewhere:
            _option(settings, key, values)
    kohya_gui_network.rates(settings, values)
    kohya_gui_network.t5_rate(settings, values)
    _schedule(settings, values)
    _remaining(settings, values)
    _additional(settings, values.get("additional_parameters"))
    _set(settings, "max_resolution", values.get("max_resolution") or "512,512")
    settings.options.setdefault("train_batch_size", 1)
    _epochs(settings, values.get("epoch"))
    sd_scripts_toml.add_images(settings, folder or Path())
    return settings


def _option(settings: ImportedSettings, key: str, values: dict[str, Any]) -> None:
    """Set the option of a setting, or note why it has none."""
    value = values[key]
    if own := _own_option(settings, key):
        if is_set(value):
            settings.options[own], settings.origin[own] = value, key
    elif why := _not_passed(key, values):
        if is_set(value):
            settings.note(Disposition.LOST, key, why=why)
    elif key == "max_grad_norm" and value == 0:
        settings.options[key] = 1.0
        why = "the GUI does not pass 0 on: sd-scripts clipped at 1.0"
        settings.note(Disposition.CHANGED, key, "training.max_grad_norm", why)
    elif is_set(value) or (key == "max_data_loader_n_workers" and value == 0):
        _set(settings, key, value)


def _epochs(settings: ImportedSettings, epochs: Any) -> None:
    lengths = ("max_train_steps", "max_train_epochs", "dataset_config")
    if is_set(epochs) and not any(settings.options.get(key) for key in lengths):
        settings.extra["interface_epochs"] = epochs
    elif is_set(epochs):
        why = "the interface counts steps by it only where neither steps, epochs nor a dataset configuration are set"
        settings.note(Disposition.LOST, "epoch", why=why)


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


def _schedule(settings: ImportedSettings, values: dict[str, Any]) -> None:
    """Set the values of the learning rate's schedule."""
    options = settings.options
    for key in ("optimizer_args", "lr_scheduler_args"):
        table = pairs(values.get(key))
        empty = [name for name, value in table.items() if value == ""]
        for name in empty:
            del table[name]
            settings.note(Disposition.LOST, f"{key}.{name}", why="it has no value")
        if not table and not empty and is_set(values.get(key)):
            settings.note(Disposition.LOST, key, why=f"{str(values[key])[:40]!r} holds no NAME=VALUE")
        if table:
            options[key] = table if key == "optimizer_args" else [f"{name}={value}" for name, value in table.items()]
    cycles = values.get("lr_scheduler_num_cycles")
    if is_set(cycles):
        options["lr_scheduler_num_cycles"] = cycles
    elif cycles == "" and "restarts" in str(values.get("lr_scheduler")) and is_set(values.get("epoch")):
        options["lr_scheduler_num_cycles"] = values["epoch"]
        why = "it is empty, and the interface passes the number of epochs"
        settings.note(Disposition.CHANGED, "lr_scheduler_num_cycles", "training.lr_scheduler_num_cycles", why)
    warmup = values.get("lr_warmup")
    if not is_set(warmup) or not isinstance(warmup, int | float):
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
    if is_set(kind := values.get("noise_offset_type")):
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


def _plain(value: Any) -> Any:
    """Return a switch, nothing or a number that stands in a text."""
    return names.WORDS[value] if isinstance(value, str) and value in names.WORDS else plain_number(value)
