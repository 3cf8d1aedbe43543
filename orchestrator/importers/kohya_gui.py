"""bmaltais' kohya_ss: the JSON that its LoRA page saves. Numbers may be texts there, and "" or 0 mean "not passed on"."""

from __future__ import annotations

import shlex
from typing import Any, Final

from orchestrator.importers import Fate, Found, sd_scripts_toml, words

# LoRA_type -> (network_module, algo of LyCORIS); conv_dim counts where the type is one with convolutions.
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
# What is read here by name; the other names are options of sd-scripts.
_READ: Final = words(
    "LoRA_type max_resolution train_batch_size train_data_dir reg_data_dir epoch lr_warmup additional_parameters sdxl"
    " use_wandb LyCORIS_preset stop_text_encoder_training conv_dims conv_alphas dataset_config"
)
# Of the interface, or about where to run: nothing of a training is in them.
_INTERFACE: Final = words(
    "model_list num_cpu_threads_per_process num_processes num_machines multi_gpu gpu_ids main_process_port dynamo_backend"
    " dynamo_mode dynamo_use_dynamic dynamo_use_fullgraph extra_accelerate_launch_args noise_offset_type unit train_on_input"
)


def read(name: str, table: dict[str, Any]) -> Found:
    """Read the GUI's JSON."""
    found = Found(str(table.get("output_name") or name), "kohya_ss")
    said = {key: _number(value) for key, value in table.items()}
    kind = str(said.get("LoRA_type", "Standard"))
    module, algo = _TYPES.get(kind.lower(), (kind, ""))
    found.options["network_module"] = module
    args = {key: said[key] for key in _NETWORK if _given(said.get(key))}
    if module == "networks.lora":
        args = {key: value for key, value in args.items() if algo and key in {"conv_dim", "conv_alpha"}}
    elif module == "lycoris.kohya":
        args["algo"] = algo
        args.pop("factor", None) if args.get("factor") == -1 or algo != "lokr" else None
        preset = said.get("LyCORIS_preset")
        if preset not in (None, "", "full"):
            args["preset"] = preset
    found.options["network_args"] = args
    for key, value in said.items():
        if key in (*_READ, *_INTERFACE, *_NETWORK, *_DATASET):
            continue
        if key == "max_grad_norm" and value == 0:
            found.options[key] = 1.0
            found.say(Fate.CHANGED, key, "training.max_grad_norm", "the GUI never passed 0 on: sd-scripts clipped at 1.0")
        elif _given(value):
            found.options[_RENAMED.get(key, key)] = value
    _rest(found, said)
    unused = [key for key in (*_INTERFACE, *_NETWORK) if _given(said.get(key)) and key not in args]
    if unused:
        found.say(Fate.LOST, ", ".join(unused), why=f"of the interface, or of another type than {kind}")
    given = {key: said[key] for key in _DATASET if said.get(key) not in ("", None)}
    given |= {"resolution": said.get("max_resolution") or "512,512", "batch_size": said.get("train_batch_size") or 1}
    sd_scripts_toml.folders(found, given, said.get("train_data_dir"), said.get("reg_data_dir"))
    return found


def _rest(found: Found, said: dict[str, Any]) -> None:
    """Take the settings that mean something else than their name says."""
    options = found.options
    if said.get("use_wandb") is True:
        options["log_with"] = "wandb"
    if said.get("sdxl") is True:
        found.extra["architecture"] = "sdxl"
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
    warmup = said.get("lr_warmup")
    if isinstance(warmup, int | float) and warmup and "lr_warmup_steps" not in options:
        options["lr_warmup_steps"] = warmup / 100
    if options.get("max_token_length") == 75:
        del options["max_token_length"]
    if "max_train_epochs" not in options and "max_train_steps" not in options and _given(said.get("epoch")):
        options["max_train_epochs"] = said["epoch"]
    more = said.get("additional_parameters")
    if isinstance(more, str) and more:
        options.update(_argv(more))
    gone = dict.fromkeys(("stop_text_encoder_training", "conv_dims", "conv_alphas"), "sd-scripts v0.10.1 has no such setting")
    for key, why in (gone | {"dataset_config": "import that TOML itself"}).items():
        if _given(said.get(key)):
            found.say(Fate.LOST, key, why=why)


def _given(value: Any) -> bool:
    """Return whether the GUI passed a value on: it left out "", false and every zero."""
    return value not in ("", None, False, 0, [], {})


def _number(value: Any) -> Any:
    """Return a text that is a number as one, and 64.0 as 64."""
    if isinstance(value, str):
        try:
            value = float(value) if value.strip() else value
        except ValueError:
            return value
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _argv(text: str) -> dict[str, Any]:
    """Return ``--name=value --switch`` as a table."""
    try:
        parts = shlex.split(text, posix=True)
    except ValueError:
        return {}
    found: dict[str, Any] = {}
    name = ""
    for word in parts:
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            found[name] = _number(value) if equals else True
        elif name:
            found[name] = _number(word)
    return found
