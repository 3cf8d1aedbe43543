"""Translate options of train_network.py to [training]."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from orchestrator.importers.notes import Disposition, ImportedSettings, words
from orchestrator.importers.values import literal, number, take, whole

if TYPE_CHECKING:
    from collections.abc import Callable

_DEFAULT_STEPS: Final = 1600  # of sd-scripts
# Options with the same name in [training].
_SAME: Final = words(
    "learning_rate text_encoder_lr unet_lr lr_scheduler lr_scheduler_num_cycles seed mixed_precision save_precision"
    " gradient_checkpointing gradient_accumulation_steps max_grad_norm log_prefix save_every_n_steps sample_every_n_steps"
)
_WHOLE: Final = (
    "lr_scheduler_num_cycles",
    "seed",
    "gradient_accumulation_steps",
    "save_every_n_steps",
    "sample_every_n_steps",
)


def training(settings: ImportedSettings, remaining: dict[str, Any], steps: int | None) -> dict[str, Any]:
    """Return the [training] table."""
    table: dict[str, Any] = {"steps": steps or _DEFAULT_STEPS}
    if steps is None:
        settings.note(
            Disposition.LOST,
            "the number of steps",
            "training.steps",
            f"it is not set, or images could not be counted; {_DEFAULT_STEPS} is used",
        )
    if remaining.get("log_prefix") == f"{settings.name}-":
        del remaining["log_prefix"]  # a recipe without one gives the same
    for name in _SAME:
        convert: Callable[[Any], Any] = (
            whole if name in _WHOLE else (number if name.endswith(("lr", "rate", "norm")) else lambda value: value)
        )
        value = take(settings, remaining, name, f"training.{name}", convert)
        if value is not None and value != "":
            table[name] = value
    if "seed" not in table:
        table["seed"] = 1
        settings.note(Disposition.CHANGED, "seed", "training.seed", "it was random; a recipe fixes it")
    table["optimizer"] = _optimizer(settings, remaining)
    args = remaining.pop("optimizer_args", None)
    if isinstance(args, dict) and args:
        read = {key: literal(value) for key, value in args.items()}
        table["optimizer_args"] = {key: list(value) if isinstance(value, tuple) else value for key, value in read.items()}
        settings.note(Disposition.KEPT, "optimizer_args", "training.optimizer_args")
    args = table.get("optimizer_args", {})
    if table["optimizer"].lower() == "adafactor" and (args.get("relative_step", True) or args.get("warmup_init")):
        table["lr_scheduler"] = "adafactor"
        for key in ("learning_rate", "text_encoder_lr", "unet_lr"):
            if table.pop(key, None) is not None:
                settings.note(Disposition.CHANGED, key, why="adafactor with relative_step computes its own rate")
    elif "learning_rate" not in table:
        table["learning_rate"] = table.get("unet_lr", 2e-6)
        settings.note(
            Disposition.CHANGED,
            "learning_rate",
            "training.learning_rate",
            "it is not set; the U-Net's, or sd-scripts' default, is used",
        )
    _warmup(settings, remaining, table)
    _execution(settings, remaining, table)
    return table


def _warmup(settings: ImportedSettings, remaining: dict[str, Any], training: dict[str, Any]) -> None:
    warmup = remaining.pop("lr_warmup_steps", None)
    if warmup:
        # A float is a ratio there, an integer a number of steps.
        count = float(warmup)
        steps = int(count if count >= 1 else count * training["steps"])
        if training.get("lr_scheduler", "constant") == "constant":
            training["lr_scheduler"] = "constant_with_warmup"
            settings.note(Disposition.CHANGED, "lr_scheduler", "training.lr_scheduler", "the constant schedule has no warm-up")
        training["lr_warmup_steps"] = steps
        settings.note(
            Disposition.KEPT if count >= 1 else Disposition.CHANGED,
            "lr_warmup_steps",
            "training.lr_warmup_steps",
            "" if count >= 1 else f"{steps} steps",
        )


def _execution(settings: ImportedSettings, remaining: dict[str, Any], training: dict[str, Any]) -> None:
    """Translate the trained parts, attention, caches, data loading and saving."""
    unet, text = remaining.pop("network_train_unet_only", False), remaining.pop("network_train_text_encoder_only", False)
    if unet or text:
        training["train"] = "unet" if unet else "text_encoder"
        training.pop("text_encoder_lr" if unet else "unet_lr", None)
        settings.note(Disposition.KEPT, "network_train_…_only", "training.train")
    attention = [name for name in ("xformers", "sdpa", "mem_eff_attn") if remaining.pop(name, False)]
    training["attention"] = {"xformers": "xformers", "sdpa": "sdpa"}.get(attention[0] if attention else "", "sdpa")
    settings.note(
        Disposition.KEPT if training["attention"] in attention else Disposition.CHANGED,
        attention[0] if attention else "attention",
        "training.attention",
    )
    disk, memory = remaining.pop("cache_latents_to_disk", False), remaining.pop("cache_latents", False)
    if disk or memory:
        training["cache_latents"] = "disk" if disk else "memory"
        settings.note(Disposition.KEPT, "cache_latents", "training.cache_latents")
    workers = take(settings, remaining, "max_data_loader_n_workers", "training.data_loader_workers", whole)
    training["data_loader_workers"] = 2 if workers is None else workers
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
        settings.note(Disposition.KEPT, "log_with", "training.wandb" if training["wandb"] else "")
    if remaining.get("max_train_epochs") is None and remaining.pop("save_every_n_epochs", None):
        settings.note(Disposition.LOST, "save_every_n_epochs", why="recipes count steps: training.save_every_n_steps")


def _optimizer(settings: ImportedSettings, remaining: dict[str, Any]) -> str:
    if remaining.pop("use_8bit_adam", False):
        remaining["optimizer_type"] = "AdamW8bit"
    if remaining.pop("use_lion_optimizer", False):
        remaining["optimizer_type"] = "Lion"
    name = take(settings, remaining, "optimizer_type", "training.optimizer", str)
    if not name:
        settings.note(Disposition.CHANGED, "optimizer_type", "training.optimizer", "AdamW, sd-scripts' default")
    return name or "AdamW"
