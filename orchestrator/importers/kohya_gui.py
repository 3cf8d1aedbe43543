"""JSON settings of bmaltais' kohya_ss GUI (its LoRA page).

Numbers may be texts there; "" and 0 were not passed on to sd-scripts.
"""

from __future__ import annotations

import shlex
from typing import Any, Final

from orchestrator.importers import sd_scripts_toml
from orchestrator.importers.notes import Disposition, ImportedSettings, words

# LoRA_type -> (network_module, algo of LyCORIS); conv_dim is used by the types with convolutions only.
_TYPES: Final = {
    "standard": ("networks.lora", ""),
    "kohya locon": ("networks.lora", "conv"),
    "kohya dylora": ("networks.dylora", ""),
    "kohya loha": ("networks.loha", ""),
    "lora-fa": ("networks.lora_fa", ""),
    "lycoris/locon": ("lycoris.kohya", "locon"),
    "lycoris/loha": ("lycoris.kohya", "loha"),
    "lycoris/lokr": ("lycoris.kohya", "lokr"),
    "lycoris/dylora": ("lycoris.kohya", "dylora"),
    "lycoris/glora": ("lycoris.kohya", "glora"),
    "lycoris/diag-oft": ("lycoris.kohya", "diag-oft"),
    "lycoris/boft": ("lycoris.kohya", "boft"),
    "lycoris/native fine-tuning": ("lycoris.kohya", "full"),
    "lycoris/ia3": ("lycoris.kohya", "ia3"),
}
_RENAMED: Final = {
    "optimizer": "optimizer_type",
    "lora_network_weights": "network_weights",
    "max_data_loader_n_workers": "max_data_loader_n_workers",
    "lr_warmup_steps": "lr_warmup_steps",
}
_NETWORK: Final = words(
    "conv_dim conv_alpha rank_dropout module_dropout factor decompose_both use_cp use_tucker use_scalar rs_lora dora_wd"
    " train_norm bypass_mode constrain rescaled block_size"
)
_DATASET: Final = words(
    "enable_bucket bucket_no_upscale bucket_reso_steps min_bucket_reso max_bucket_reso color_aug flip_aug random_crop"
    " shuffle_caption keep_tokens caption_extension caption_dropout_rate caption_dropout_every_n_epochs"
)
# Read by name in this module; the other names are options of sd-scripts.
_READ: Final = words(
    "LoRA_type max_resolution train_batch_size train_data_dir reg_data_dir epoch lr_warmup additional_parameters sdxl"
    " use_wandb LyCORIS_preset stop_text_encoder_training conv_dims conv_alphas dataset_config"
)
# Settings of the interface or the launcher, without influence on the training.
_INTERFACE: Final = words(
    "model_list num_cpu_threads_per_process num_processes num_machines multi_gpu gpu_ids main_process_port dynamo_backend"
    " dynamo_mode dynamo_use_dynamic dynamo_use_fullgraph extra_accelerate_launch_args noise_offset_type unit train_on_input"
)


def read(name: str, table: dict[str, Any]) -> ImportedSettings:
    """Read the JSON of the GUI."""
    settings = ImportedSettings(str(table.get("output_name") or name), "kohya_ss")
    values = {key: _number(value) for key, value in table.items()}
    kind = str(values.get("LoRA_type", "Standard"))
    module, algo = _TYPES.get(kind.lower(), (kind, ""))
    settings.options["network_module"] = module
    args = {key: values[key] for key in _NETWORK if _is_set(values.get(key))}
    if module == "networks.lora":
        args = {key: value for key, value in args.items() if algo and key in {"conv_dim", "conv_alpha"}}
    elif module == "lycoris.kohya":
        args["algo"] = algo
        if args.get("factor") == -1 or algo != "lokr":
            args.pop("factor", None)
        preset = values.get("LyCORIS_preset")
        if preset not in (None, "", "full"):
            args["preset"] = preset
    settings.options["network_args"] = args
    for key, value in values.items():
        if key in (*_READ, *_INTERFACE, *_NETWORK, *_DATASET):
            continue
        if key == "max_grad_norm" and value == 0:
            settings.options[key] = 1.0
            settings.note(
                Disposition.CHANGED, key, "training.max_grad_norm", "the GUI does not pass 0 on: sd-scripts clipped at 1.0"
            )
        elif _is_set(value):
            settings.options[_RENAMED.get(key, key)] = value
    _remaining(settings, values)
    unused = [key for key in (*_INTERFACE, *_NETWORK) if _is_set(values.get(key)) and key not in args]
    if unused:
        settings.note(Disposition.LOST, ", ".join(unused), why=f"part of the interface, or of another type than {kind}")
    shared = {key: values[key] for key in _DATASET if values.get(key) not in ("", None)}
    shared |= {"resolution": values.get("max_resolution") or "512,512", "batch_size": values.get("train_batch_size") or 1}
    sd_scripts_toml.add_folders(settings, shared, values.get("train_data_dir"), values.get("reg_data_dir"))
    return settings


def _remaining(settings: ImportedSettings, values: dict[str, Any]) -> None:
    """Translate the settings without an option of the same name and meaning."""
    options = settings.options
    if values.get("use_wandb") is True:
        options["log_with"] = "wandb"
    if values.get("sdxl") is True:
        settings.extra["architecture"] = "sdxl"
    attention = options.pop("xformers", None)
    if attention in (True, "xformers"):
        options["xformers"] = True
    elif attention == "sdpa":
        options["sdpa"] = True
    for key in ("optimizer_args", "lr_scheduler_args"):
        if isinstance(options.get(key), str):
            options[key] = sd_scripts_toml.pairs(options[key])
    if "lr_scheduler_args" in options:
        options["lr_scheduler_args"] = [f"{key}={value}" for key, value in options["lr_scheduler_args"].items()]
    warmup = values.get("lr_warmup")
    if isinstance(warmup, int | float) and warmup and "lr_warmup_steps" not in options:
        options["lr_warmup_steps"] = warmup / 100
    if options.get("max_token_length") == 75:
        del options["max_token_length"]
    if "max_train_epochs" not in options and "max_train_steps" not in options and _is_set(values.get("epoch")):
        options["max_train_epochs"] = values["epoch"]
    argv = values.get("additional_parameters")
    if isinstance(argv, str) and argv:
        options.update(_parse_argv(argv))
    removed = dict.fromkeys(
        ("stop_text_encoder_training", "conv_dims", "conv_alphas"), "sd-scripts v0.10.1 has no such setting"
    )
    for key, why in (removed | {"dataset_config": "import that TOML file itself"}).items():
        if _is_set(values.get(key)):
            settings.note(Disposition.LOST, key, why=why)


def _is_set(value: Any) -> bool:
    """Return True if the GUI passed a value on.

    It left out "", false and every zero.
    """
    return value not in ("", None, False, 0, [], {})


def _number(value: Any) -> Any:
    """Return the number in a text, and 64.0 as 64."""
    if isinstance(value, str):
        try:
            value = float(value) if value.strip() else value
        except ValueError:
            return value
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _parse_argv(text: str) -> dict[str, Any]:
    """Return ``--name=value --switch`` as a table."""
    try:
        parts = shlex.split(text, posix=True)
    except ValueError:
        return {}
    options: dict[str, Any] = {}
    name = ""
    for word in parts:
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            options[name] = _number(value) if equals else True
        elif name:
            options[name] = _number(word)
    return options
