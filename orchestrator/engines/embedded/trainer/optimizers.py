"""Optimizers and learning rate schedules under sd-scripts' names."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any

import torch
from diffusers.optimization import SchedulerType, get_scheduler
from transformers.optimization import Adafactor

from orchestrator.errors import Problem, RecipeError, near_miss

if TYPE_CHECKING:
    from argparse import Namespace

    from orchestrator.engines.embedded.trainer.network_spec import BuiltNetwork

# Elementwise, so a stack of layers trains exactly like its layers one by one.
_ELEMENTWISE = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam, "sgd": torch.optim.SGD, "sgdnesterov": torch.optim.SGD}


def optimizer_class(name: str) -> str:
    """Return the name of an optimizer in lower case.

    Raises:
        RecipeError: this engine does not have the optimizer.
    """
    lower = (name or "AdamW").lower()
    if lower.endswith("8bit"):
        hint = "bitsandbytes needs a GPU; use --optimizer_type AdamW, which has the same settings"
        raise RecipeError(Problem("--optimizer_type", f"{name} is not in the embedded engine", hint))
    if lower not in _ELEMENTWISE and lower != "adafactor":
        names = ["AdamW", "Adam", "SGD", "Adafactor"]
        raise RecipeError(
            Problem("--optimizer_type", f"{name} is unknown{near_miss(name, names)}", f"known: {', '.join(names)}")
        )
    return lower


def arguments(pairs: list[str]) -> dict[str, Any]:
    """Parse ``key=value`` pairs whose values are Python literals.

    Raises:
        RecipeError: a pair without ``=``, or a value that is not a literal.
    """
    result: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals:
            raise RecipeError(Problem("--optimizer_args", f"{pair!r} has no ="))
        try:
            result[key] = ast.literal_eval(text)
        except (ValueError, SyntaxError) as error:
            raise RecipeError(Problem("--optimizer_args", f"{pair!r}: {error}")) from error
    return result


def groups(built: BuiltNetwork, args: Namespace, network_args: dict[str, str]) -> tuple[list[dict[str, Any]], list[str]]:
    """Return parameter groups and their names.

    A half with rate 0 has no group. LoRA+ ratios raise the rate of ``lora_up``.

    Raises:
        RecipeError: there is nothing to train.
    """
    result: list[dict[str, Any]] = []
    names: list[str] = []
    default = network_args.get("loraplus_lr_ratio")
    halves = (
        ("textencoder", built.text, args.text_encoder_lr, network_args.get("loraplus_text_encoder_lr_ratio", default)),
        ("unet", built.unet, args.unet_lr, network_args.get("loraplus_unet_lr_ratio", default)),
    )
    for name, half, own_rate, ratio in halves:
        rate = args.learning_rate if own_rate is None else own_rate
        plain = [p for key, p in half.named_parameters() if ratio is None or "lora_up" not in key]
        plus = [p for key, p in half.named_parameters() if ratio is not None and "lora_up" in key]
        for suffix, members, factor in (("", plain, 1.0), (" plus", plus, float(ratio or 1.0))):
            if members and rate:
                result.append({"params": members, "lr": rate * factor})
                names.append(name + suffix)
    if not result:
        raise RecipeError(Problem("--learning_rate", "nothing would be trained: every rate is 0, or no module is selected"))
    return result, names


def make_optimizer(name: str, members: list[dict[str, Any]], extra: dict[str, Any], rate: float) -> torch.optim.Optimizer:
    """Make the optimizer.

    Raises:
        RecipeError: the optimizer does not have one of the arguments.
    """
    kind = optimizer_class(name)
    try:
        if kind == "adafactor":
            return _adafactor(members, extra, rate)
        fused = {"fused": True} if kind in {"adamw", "adam"} else {}
        nesterov = {"nesterov": True, "momentum": 0.9} if kind == "sgdnesterov" else {}
        optimizer: torch.optim.Optimizer = _ELEMENTWISE[kind](members, lr=rate, **{**fused, **nesterov, **extra})
    except (TypeError, ValueError) as error:
        raise RecipeError(Problem("--optimizer_args", str(error))) from error
    return optimizer


def _adafactor(members: list[dict[str, Any]], extra: dict[str, Any], rate: float) -> torch.optim.Optimizer:
    """Make transformers' Adafactor.

    With ``relative_step`` (the default) it computes its own rates, as in sd-scripts.
    """
    relative = extra["relative_step"] = bool(extra.get("relative_step", True) or extra.get("warmup_init"))
    if relative:
        members = [{**group, "lr": None} for group in members]
    result: torch.optim.Optimizer = Adafactor(members, lr=None if relative else rate, **extra)
    return result


def make_schedule(args: Namespace, optimizer: torch.optim.Optimizer, steps: int) -> Any:
    """Make the learning rate schedule, or None for Adafactor's own rates.

    Raises:
        RecipeError: the schedule is unknown, or has no warmup.
    """
    if optimizer.param_groups[0]["lr"] is None:
        return None
    names = [kind.value for kind in SchedulerType]
    if args.lr_scheduler not in names:
        what = f"{args.lr_scheduler} is unknown{near_miss(args.lr_scheduler, names)}"
        raise RecipeError(Problem("--lr_scheduler", what, f"known: {', '.join(names)}"))
    warmup = warmup_steps(args.lr_warmup_steps, steps)
    if args.lr_scheduler == "constant" and warmup:
        what = "constant does not require `num_warmup_steps`; set 0, or use constant_with_warmup"
        raise RecipeError(Problem("--lr_warmup_steps", what))
    return get_scheduler(
        args.lr_scheduler,
        optimizer,
        num_warmup_steps=warmup,
        num_training_steps=steps,
        num_cycles=args.lr_scheduler_num_cycles,
        power=args.lr_scheduler_power,
    )


def warmup_steps(text: str, steps: int) -> int:
    """Return the warmup steps from ``100``, ``0.1`` or ``10%``.

    Ratios and percentages are of the steps of the run.
    """
    try:
        if text.endswith("%"):
            return int(float(text[:-1]) / 100 * steps)
        value = float(text)
    except ValueError as error:
        raise RecipeError(Problem("--lr_warmup_steps", f"{text!r} is not a number, ratio or percentage")) from error
    return int(value * steps) if value < 1 else int(value)
