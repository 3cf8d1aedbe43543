"""JSON settings of bmaltais' kohya_ss GUI (its LoRA page).

What the interface passes to sd-scripts, and on which condition: kohya_gui/lora_gui.py, train_model (config_toml_data). It
leaves out "", false and every zero. Numbers may be texts.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Final

from orchestrator.engines.sdscripts import parser_options
from orchestrator.errors import Problem, RecipeError
from orchestrator.importers import architectures, leaves, sd_scripts_toml
from orchestrator.importers.notes import Disposition, ImportedSettings, words
from orchestrator.importers.values import argv, pairs
from orchestrator.models.registry import ARCHITECTURES

_PAGE: Final = {"LoRA_type", "network_dim", "network_alpha", "text_encoder_lr", "unet_lr"}
_CONV: Final = words("conv_dim conv_alpha")
_DROPOUT: Final = words("rank_dropout module_dropout")
_NATIVE: Final = words(
    "down_lr_weight mid_lr_weight up_lr_weight block_lr_zero_threshold block_dims block_alphas conv_block_dims"
    " conv_block_alphas rank_dropout module_dropout"
)
_PLUS: Final = words("loraplus_lr_ratio loraplus_unet_lr_ratio loraplus_text_encoder_lr_ratio")
_SCALED: Final = (*_CONV, *_DROPOUT, "train_norm", "rank_dropout_scale")
_TUCKER: Final = (*_SCALED, "use_tucker", "bypass_mode", "dora_wd", "use_scalar")
# LoRA_type -> network_module, algo of LyCORIS, and the settings that become network_args.
_TYPES: Final[dict[str, tuple[str, str, tuple[str, ...]]]] = {
    "standard": ("networks.lora", "", _NATIVE),
    "kohya locon": ("networks.lora", "", (*_CONV, *_NATIVE)),
    "lora-fa": ("networks.lora_fa", "", _NATIVE),
    "kohya dylora": ("networks.dylora", "", (*_CONV, *_NATIVE, "unit")),
    "kohya loha": ("networks.loha", "", (*_CONV, *_DROPOUT, "use_tucker")),
    "kohya lokr": ("networks.lokr", "", (*_CONV, *_DROPOUT, "use_tucker", "factor")),
    "locon": ("lycoris.kohya", "locon", _TUCKER),
    "lycoris/locon": ("lycoris.kohya", "locon", _TUCKER),
    "lycoris/loha": ("lycoris.kohya", "loha", _TUCKER),
    "lycoris/lokr": ("lycoris.kohya", "lokr", (*_TUCKER, "factor", "use_cp", "decompose_both")),
    "lycoris/dylora": ("lycoris.kohya", "dylora", (*_CONV, *_DROPOUT, "use_tucker", "unit", "train_norm")),
    "lycoris/glora": ("lycoris.kohya", "glora", (*_SCALED, "use_tucker")),
    "lycoris/diag-oft": ("lycoris.kohya", "diag-oft", (*_SCALED, "use_tucker", "constrain", "rescaled")),
    "lycoris/boft": ("lycoris.kohya", "boft", (*_SCALED, "use_tucker")),
    "lycoris/native fine-tuning": ("lycoris.kohya", "full", (*_DROPOUT, "rank_dropout_scale", "train_norm")),
    "lycoris/ia3": ("lycoris.kohya", "ia3", (*_CONV, "train_on_input")),
}
_ARGUMENTS: Final = {*_TUCKER, *_NATIVE, *_PLUS, *words("factor use_cp decompose_both unit constrain rescaled train_on_input")}
_RENAMED: Final = {
    "optimizer": "optimizer_type",
    "lora_network_weights": "network_weights",
    "max_resolution": "resolution",
    "constrain": "constraint",
    "unit": "block_size",
    "sdxl_no_half_vae": "no_half_vae",
    "sdxl_cache_text_encoder_outputs": "cache_text_encoder_outputs",
}
# Read by name in this module; the other names are options of sd-scripts.
_READ: Final = words(
    "LoRA_type max_resolution epoch lr_warmup additional_parameters sdxl v2 use_wandb LyCORIS_preset xformers"
    " text_encoder_lr t5xxl_lr unet_lr optimizer_args lr_scheduler_args lr_scheduler_num_cycles noise_offset_type"
)
# The script is chosen by the first of these that is on.
_MODELS: Final = {
    "sdxl": ("sdxl", "SDXL"),
    "flux1_checkbox": ("flux", "FLUX.1"),
    "sd3_checkbox": ("sd3", "Stable Diffusion 3"),
    "hunyuan_image_checkbox": ("hunyuan_image", "HunyuanImage 2.1"),
    "anima_checkbox": ("anima", "Anima"),
    "lumina_checkbox": ("lumina", "Lumina Image 2.0"),
    "v2": ("sd2", "Stable Diffusion 2"),
}
# Arguments of the own network module of FLUX.1 and SD3.
_OF_MODULE: Final = words(
    "train_blocks split_qkv train_t5xxl img_attn_dim img_mlp_dim img_mod_dim single_dim txt_attn_dim txt_mlp_dim txt_mod_dim"
    " single_mod_dim in_dims train_double_block_indices train_single_block_indices ggpo_sigma ggpo_beta"
)
_OTHER_MODELS: Final = words(
    "ae clip_l clip_g t5xxl t5xxl_lr model_type discrete_flow_shift model_prediction_type timestep_sampling split_mode"
    " train_blocks t5xxl_max_token_length enable_all_linear guidance_scale mem_eff_save apply_t5_attn_mask split_qkv"
    " train_t5xxl cpu_offload_checkpointing blocks_to_swap single_blocks_to_swap double_blocks_to_swap show_timesteps"
    " show_timesteps_resolution img_attn_dim img_mlp_dim img_mod_dim single_dim txt_attn_dim txt_mlp_dim txt_mod_dim"
    " single_mod_dim in_dims train_double_block_indices train_single_block_indices clip_g_dropout_rate logit_mean logit_std"
    " mode_scale pos_emb_random_crop_rate save_clip save_t5xxl t5xxl_device t5xxl_dtype weighting_scheme fp8_base_unet"
    " train_lora_ggpo ggpo_sigma ggpo_beta"
)
# Prefixes of the settings of one model, by its architecture's training script; the longest first.
_OTHER_PREFIXES: Final = {
    "flux1_": "flux",
    "sd3_": "sd3",
    "hunyuan_image_": "hunyuan_image",
    "hunyuan_": "hunyuan_image",
    "anima_": "anima",
    "lumina_": "lumina",
}
_OWN_TYPES: Final = ("flux1", "sd3", "anima", "lumina", "hunyuanimage-2.1")
_FILLED_IN: Final = 1e-4  # DEFAULT_UNET_LR of its interface
# Settings of the interface or the launcher, without influence on the training.
_INTERFACE: Final = words(
    "model_list num_cpu_threads_per_process num_processes num_machines multi_gpu gpu_ids main_process_port dynamo_backend"
    " dynamo_mode dynamo_use_dynamic dynamo_use_fullgraph extra_accelerate_launch_args lowvram"
)
_REMOVED: Final = words("stop_text_encoder_training conv_dims conv_alphas")
_NOISE: Final = {
    "noise_offset": "Original",
    "adaptive_noise_scale": "Original",
    "noise_offset_random_strength": "Original",
    "multires_noise_iterations": "Multires",
    "multires_noise_discount": "Multires",
}


def read(name: str, table: dict[str, Any], folder: Path | None = None) -> ImportedSettings:
    """Read the JSON of the GUI.

    Args:
        name: of the file.
        table: its content.
        folder: of the file; the dataset configuration that it names can be there.

    Raises:
        RecipeError: it is of another page, or for a model that recipes do not train.
    """
    if _PAGE.isdisjoint(table):
        hint = "import reads those of its LoRA page, which have LoRA_type"
        raise RecipeError(Problem(name, "these are settings for another page of kohya_ss (no LoRA)", hint))
    settings = ImportedSettings(str(table.get("output_name") or name), "kohya_ss")
    settings.leaves = _leaves(table)
    values = {key: _number(value) for key, value in table.items()}
    chosen = next((key for key in _MODELS if values.get(key) is True), None)
    settings.extra["architecture"] = "sd1"
    if chosen is not None:
        architectures.named(settings, *_MODELS[chosen])
        settings.note(Disposition.KEPT, chosen, "base.architecture")
    _network(settings, values)
    for key, value in values.items():
        if key in _READ or key in _ARGUMENTS or key in _OF_MODULE or key in _MODELS:
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
    option = _RENAMED.get(key, key)
    settings.options[option] = value
    if option != key and key in settings.leaves:
        settings.origin[option] = key


def _own_option(settings: ImportedSettings, key: str) -> str:
    """Return the option of the model's own script that a setting becomes, or ""."""
    entry = ARCHITECTURES[settings.extra["architecture"]]
    prefix = next((prefix for prefix in _OTHER_PREFIXES if key.startswith(prefix)), "")
    if not entry.files or (prefix and entry.trainer_script != f"{_OTHER_PREFIXES[prefix]}_train_network.py"):
        return ""
    option = key.removeprefix(prefix)
    own = {file.option for file in entry.files} | parser_options.of(entry.trainer_script).keys()
    return option if (prefix or key in _OTHER_MODELS) and option in own else ""


def _not_passed(key: str, values: dict[str, Any]) -> str:
    """Return why the interface does not pass a setting on, or ""."""
    noise = values.get("noise_offset_type") or "Original"
    if key in _INTERFACE:
        return "of the interface or the launcher, without influence on the training"
    if key in _REMOVED:
        return "sd-scripts v0.10.1 has no such setting"
    if key in _OTHER_MODELS or key.startswith(tuple(_OTHER_PREFIXES)):
        return "the script of this model has no such option"
    if key.startswith("sdxl_") and values.get("sdxl") is not True:
        return "kohya_ss passes it on with sdxl only"
    if key in _NOISE and noise != _NOISE[key]:
        return f'kohya_ss passes it on with noise_offset_type = "{_NOISE[key]}" only'
    return ""


def _network(settings: ImportedSettings, values: dict[str, Any]) -> None:
    """Set the network module and the arguments that its type passes on."""
    kind = str(values.get("LoRA_type", "Standard"))
    module, algo, passed = _TYPES.get(kind.lower(), (kind, "", ()))
    own = ARCHITECTURES[settings.extra["architecture"]].network_module
    if own != "networks.lora" and kind.lower() in (*_OWN_TYPES, "standard"):
        module, passed = own, _OF_MODULE
    settings.options["network_module"] = module
    settings.origin["network_module"] = "LoRA_type"
    if "use_tucker" not in values and "use_tucker" in passed:
        passed = (*passed, "use_cp")  # its name in older versions
    args: dict[str, Any] = {}
    for key in (_ARGUMENTS | set(_OF_MODULE)) & values.keys():
        value = values[key]
        if key in passed or key in _PLUS:
            # LyCORIS trains convolutions at network_dim unless conv_dim is given, and kohya_ss gives it, 0 included.
            explicit = key == "conv_dim" and module == "lycoris.kohya" and value == 0
            if (_is_set(value) or explicit) and not (key == "factor" and value == -1):
                args[_RENAMED.get(key, key)] = value
                settings.origin[_RENAMED.get(key, key)] = key
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
    given = {key: _rate(values[key]) for key in keys if key in values and values[key] is not None}
    for key, only in keys.items():
        other = given.get(next(name for name in keys if name != key), _FILLED_IN)
        if given.get(key):
            settings.options[key] = values[key]
        elif key in given and other:
            settings.options[only] = True
            settings.note(Disposition.CHANGED, key, "training.train", "0 means there: this part is not trained")
        elif key in given:
            settings.note(Disposition.KEPT, key, why="0 for both parts means there: both are trained at learning_rate")


def _t5_rate(settings: ImportedSettings, values: dict[str, Any]) -> None:
    """Set the rate of T5, which the interface passes as the last one of a list."""
    rate = values.get("t5xxl_lr")
    if not _is_set(rate):
        return
    if values.get("train_t5xxl") is not True or "network_train_unet_only" in settings.options:
        settings.note(Disposition.LOST, "t5xxl_lr", why="T5 is not trained")
        return
    encoders = ARCHITECTURES[settings.extra["architecture"]].model.text_encoders
    others = settings.options.get("text_encoder_lr", values.get("learning_rate", 0))
    settings.options["text_encoder_lr"] = [others] * (len(encoders) - 1) + [rate]
    settings.note(Disposition.KEPT, "t5xxl_lr", "training.text_encoder_lr")


def _rate(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _schedule(settings: ImportedSettings, values: dict[str, Any]) -> None:
    """Set the values of the learning rate's schedule."""
    options = settings.options
    for key in ("optimizer_args", "lr_scheduler_args"):
        table = pairs(values.get(key))
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
    if options.get("max_token_length") == 75:
        del options["max_token_length"]
        settings.note(Disposition.KEPT, "max_token_length", why="it is sd-scripts' default")
    if options.get("wandb_run_name") and options["wandb_run_name"] == values.get("output_name"):
        del options["wandb_run_name"]
        settings.note(Disposition.KEPT, "wandb_run_name", why="the recipe's name")
    if _is_set(kind := values.get("noise_offset_type")):
        settings.note(Disposition.KEPT, "noise_offset_type", why=f"it chooses the settings of {kind}")


def _additional(settings: ImportedSettings, text: Any) -> None:
    """Read the arguments that the interface appends to the command."""
    if not isinstance(text, str) or not text.strip():
        return
    known = parser_options.of(ARCHITECTURES[settings.extra["architecture"]].trainer_script)
    for name, given in argv(text).items():
        option = known.get(name)
        if option is not None and option.many:
            value: Any = [_number(word) if option.type != "str" else word for word in given]
        elif not given:
            value = True
        elif len(given) > 1:
            value = given  # which no such option takes
        else:
            value = given[0] if option is not None and option.type == "str" else _number(given[0])
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


def _number(value: Any) -> Any:
    """Return the number in a text, and 64.0 as 64."""
    if isinstance(value, str):
        try:
            value = float(value) if value.strip() else value
        except ValueError:
            return value
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value
