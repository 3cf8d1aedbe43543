"""Translate options of train_network.py to [training]."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from orchestrator.engines.sdscripts import parser_options
from orchestrator.importers.notes import Disposition, ImportedSettings
from orchestrator.importers.values import argument_value, number, take, whole
from orchestrator.models.registry import ARCHITECTURES
from orchestrator.recipe import trainer_names
from orchestrator.recipe.trainer_names import words

if TYPE_CHECKING:
    from collections.abc import Callable

# Of sd-scripts.
_DEFAULT_STEPS: Final = 1600
_DEFAULT_RATE: Final = 2e-6
_DEFAULT_WORKERS: Final = 8
# Options with the same name in [training].
_SAME: Final = words(
    "learning_rate text_encoder_lr unet_lr lr_scheduler lr_scheduler_num_cycles seed mixed_precision save_precision"
    " gradient_checkpointing gradient_accumulation_steps max_grad_norm log_prefix save_every_n_steps sample_every_n_steps"
)
_SWITCHES: Final = {"use_8bit_adam": "AdamW8bit", "use_lion_optimizer": "Lion"}
_WHOLE: Final = (
    "lr_scheduler_num_cycles",
    "seed",
    "gradient_accumulation_steps",
    "save_every_n_steps",
    "sample_every_n_steps",
)


def training(
    settings: ImportedSettings, remaining: dict[str, Any], steps: int | None, epochs: int | None = None
) -> dict[str, Any]:
    """Return the [training] table, of steps or of epochs."""
    table: dict[str, Any] = {"epochs": epochs} if epochs else {"steps": steps or _DEFAULT_STEPS}
    if not (steps or epochs):
        settings.note(
            Disposition.LOST,
            "the number of steps",
            "training.steps",
            f"it is not set; {_DEFAULT_STEPS}, the trainer's default, is used",
        )
    if remaining.get("log_prefix") == f"{settings.name}-":
        del remaining["log_prefix"]
        settings.note(Disposition.KEPT, "log_prefix", why="a recipe without one gives the same")
    _rates(settings, remaining)
    for name in _SAME:
        convert: Callable[[Any], Any] = (
            whole if name in _WHOLE else (_rate if name.endswith(("lr", "rate", "norm")) else lambda value: value)
        )
        value = take(settings, remaining, name, f"training.{name}", convert)
        if value is not None and value != "":
            table[name] = value
    if not 0 <= table.get("seed", -1) < 2**32:
        table["seed"] = 1
        settings.note(Disposition.CHANGED, "seed", "training.seed", "it was random; a recipe fixes it")
    if "save_precision" not in table:
        table["save_precision"] = "float"
        why = "it is not set, and sd-scripts saves what it trains"
        settings.note(Disposition.CHANGED, "save_precision", "training.save_precision", why)
    table["optimizer"] = _optimizer(settings, remaining)
    _optimizer_args(settings, remaining.pop("optimizer_args", None), table)
    args = table.get("optimizer_args", {})
    if table["optimizer"].lower() == "adafactor" and (args.get("relative_step", True) or args.get("warmup_init")):
        table["lr_scheduler"] = "adafactor"
        for key in ("learning_rate", "text_encoder_lr", "unet_lr"):
            if table.pop(key, None) is not None:
                settings.note(Disposition.CHANGED, key, why="adafactor with relative_step computes its own rate")
    elif "learning_rate" not in table:
        table["learning_rate"] = _DEFAULT_RATE
        settings.note(Disposition.CHANGED, "learning_rate", "training.learning_rate", "it is not set: sd-scripts' default")
    _flow(settings, remaining, table)
    if "text_encoders" in settings.extra:
        table["text_encoders"] = settings.extra["text_encoders"]
    _warmup(settings, remaining, table)
    _trained_parts(settings, remaining, table)
    _execution(settings, remaining, table)
    return table


def _flow(settings: ImportedSettings, remaining: dict[str, Any], table: dict[str, Any]) -> None:
    """Set the options with a typed key, except the script's defaults."""
    options = parser_options.of(ARCHITECTURES[settings.extra["architecture"]].trainer_script)
    keys = {name: name for name in trainer_names.PLAIN} | {"discrete_flow_shift": "flow_shift", "training_shift": "flow_shift"}
    for name, key in keys.items():
        option, value = options.get(name), remaining.get(name)
        if option is None or value is None:
            continue
        if option.default == value:
            del remaining[name]
            settings.note(Disposition.KEPT, name, why="it is sd-scripts' default")
            continue
        convert: Callable[[Any], Any] = {"float": number, "int": whole}.get(option.type, lambda same: same)
        taken = take(settings, remaining, name, f"training.{key}", convert)
        if taken is not None:
            table[key] = taken


def _rates(settings: ImportedSettings, remaining: dict[str, Any]) -> None:
    """Leave lists of rates only where they are one per text encoder."""
    entry = ARCHITECTURES[settings.extra["architecture"]]
    for name in ("text_encoder_lr", "unet_lr", "learning_rate"):
        value = remaining.get(name)
        if value == []:
            del remaining[name]
        elif isinstance(value, list) and len(set(map(str, value))) > 1:
            if name == "text_encoder_lr" and entry.layer_choice.text_rates and len(value) == len(entry.model.text_encoders):
                continue
            remaining[name] = value[0]
            settings.note(
                Disposition.CHANGED, name, f"training.{name}", "the trainer takes the first one for all text encoders"
            )


def _rate(value: Any) -> Any:
    """Return a rate, or one for each text encoder."""
    several = isinstance(value, list) and len(set(map(str, value))) > 1
    return [number(item) for item in value] if several else number(value)


def _optimizer_args(settings: ImportedSettings, args: Any, table: dict[str, Any]) -> None:
    """Set the arguments of the optimizer."""
    read: dict[str, Any] = {}
    for key, item in (args if isinstance(args, dict) else {}).items():
        value = argument_value(item)
        if value is None or isinstance(value, dict | set):
            settings.note(Disposition.LOST, f"optimizer_args.{key}", why=f"a recipe has no {value!r}")
            continue
        read[key] = value
        settings.note(Disposition.KEPT, _argument(settings, key), f"training.optimizer_args.{key}")
    if read:
        table["optimizer_args"] = read
        settings.note(Disposition.KEPT, "optimizer_args", "training.optimizer_args")


def _argument(settings: ImportedSettings, key: str) -> str:
    """Return the path of the leaf that holds an argument of the optimizer."""
    return next((path for path in settings.leaves if path.endswith(f"optimizer_args.{key}")), f"optimizer_args.{key}")


def _warmup(settings: ImportedSettings, remaining: dict[str, Any], training: dict[str, Any]) -> None:
    warmup = remaining.pop("lr_warmup_steps", None)
    if warmup:
        # A float is a ratio there, an integer a number of steps.
        try:
            count = float(warmup)
            ratio = isinstance(warmup, float) or "." in str(warmup)
            if ratio and "steps" not in training:
                settings.note(
                    Disposition.LOST, "lr_warmup_steps", why="a share of steps, which are not counted on this machine"
                )
                return
            steps = int(count * training["steps"] if ratio else count)
        except (ValueError, TypeError, OverflowError):
            settings.note(Disposition.LOST, "lr_warmup_steps", why=f"{str(warmup)[:60]!r} cannot be read")
            return
        if not steps:
            settings.note(Disposition.LOST, "lr_warmup_steps", why="less than one step")
            return
        if training.get("lr_scheduler", "constant") == "constant":
            training["lr_scheduler"] = "constant_with_warmup"
            settings.note(Disposition.CHANGED, "lr_scheduler", "training.lr_scheduler", "the constant schedule has no warm-up")
        training["lr_warmup_steps"] = steps
        settings.note(
            Disposition.CHANGED if ratio else Disposition.KEPT,
            "lr_warmup_steps",
            "training.lr_warmup_steps",
            f"{count:.0%} of {training['steps']} steps" if ratio else "",
        )


def _trained_parts(settings: ImportedSettings, remaining: dict[str, Any], training: dict[str, Any]) -> None:
    """Translate the trained parts."""
    unet, text = remaining.pop("network_train_unet_only", False), remaining.pop("network_train_text_encoder_only", False)
    if unet or text:
        training["train"] = "unet" if unet else "text_encoder"
        other = "text_encoder_lr" if unet else "unet_lr"
        if training.pop(other, None) is not None:
            settings.note(Disposition.LOST, other, why="this part is not trained")
        for name in ("network_train_unet_only", "network_train_text_encoder_only"):
            settings.note(Disposition.KEPT, name, "training.train")
        if unet and text:
            why = "with network_train_unet_only it trains nothing there; the U-Net is trained here"
            settings.note(Disposition.LOST, "network_train_text_encoder_only", why=why)
    elif not ARCHITECTURES[settings.extra["architecture"]].model.text_encoders:
        training["train"] = "unet"
        settings.note(Disposition.CHANGED, "network_train_unet_only", "training.train", "no text encoder is trained")


def _caches(settings: ImportedSettings, remaining: dict[str, Any], training: dict[str, Any]) -> None:
    """Translate the caches of latents and of outputs of text encoders."""
    disk_only = ARCHITECTURES[settings.extra["architecture"]].disk_cache_only
    for name in ("cache_latents", "cache_text_encoder_outputs"):
        disk, memory = remaining.pop(f"{name}_to_disk", False), remaining.pop(name, False)
        if memory and not disk and disk_only and name == "cache_text_encoder_outputs":
            training[name] = "disk"
            settings.note(Disposition.CHANGED, name, f"training.{name}", disk_only)
        elif disk or memory:
            training[name] = "disk" if disk else "memory"
            for option in (name, f"{name}_to_disk"):
                settings.note(Disposition.KEPT, option, f"training.{name}")


def _execution(settings: ImportedSettings, remaining: dict[str, Any], training: dict[str, Any]) -> None:
    """Translate attention, caches, data loading and saving."""
    attention = [name for name in ("xformers", "sdpa", "mem_eff_attn") if remaining.pop(name, False)]
    training["attention"] = {"xformers": "xformers", "sdpa": "sdpa"}.get(attention[0] if attention else "", "sdpa")
    for name in attention or ["attention"]:
        kept = Disposition.KEPT if training["attention"] == name else Disposition.CHANGED
        why = "" if attention else "it is not set; sdpa is faster, and gives the same"
        settings.note(kept, name, "training.attention", why)
    _caches(settings, remaining, training)
    workers = take(settings, remaining, "max_data_loader_n_workers", "training.data_loader_workers", whole)
    training["data_loader_workers"] = _DEFAULT_WORKERS if workers is None else workers
    if remaining.pop("persistent_data_loader_workers", False) and training["data_loader_workers"]:
        training["persistent_workers"] = True
        settings.note(Disposition.KEPT, "persistent_data_loader_workers", "training.persistent_workers")
    if remaining.pop("save_state", False):
        every = training.get("save_every_n_steps")
        training["state_every_n_steps"] = every
        why = "" if every else "a recipe saves states every N steps"
        settings.note(Disposition.KEPT if every else Disposition.LOST, "save_state", "training.state_every_n_steps", why)
    for name in ("save_last_n_steps", "save_last_n_steps_state"):
        if remaining.pop(name, None) is not None:
            settings.note(
                Disposition.CHANGED, name, "training.keep_states", "a recipe counts states, not steps; its default is used"
            )
    log = remaining.pop("log_with", None)
    if log:
        training["wandb"] = True if log != "tensorboard" else None
        why = "" if training["wandb"] else "a recipe logs to TensorBoard always"
        settings.note(Disposition.KEPT, "log_with", "training.wandb" if training["wandb"] else "", why)


def _optimizer(settings: ImportedSettings, remaining: dict[str, Any]) -> str:
    for switch, optimizer in _SWITCHES.items():
        if remaining.pop(switch, False):
            remaining["optimizer_type"] = optimizer
            settings.note(Disposition.KEPT, switch, "training.optimizer")
    name = take(settings, remaining, "optimizer_type", "training.optimizer", str)
    if not name:
        settings.note(Disposition.CHANGED, "optimizer_type", "training.optimizer", "AdamW, sd-scripts' default")
    return name or "AdamW"
