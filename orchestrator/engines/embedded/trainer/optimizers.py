"""Optimizers and learning rate schedules by sd-scripts' names."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any

import torch
from diffusers.optimization import SchedulerType, get_scheduler

from orchestrator.errors import Problem, RecipeError, near_miss

if TYPE_CHECKING:
    from argparse import Namespace

    from orchestrator.engines.embedded.trainer.network import Built

# Elementwise, so a stack of layers trains exactly as its layers would one by one.
_ELEMENTWISE = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam, "sgd": torch.optim.SGD, "sgdnesterov": torch.optim.SGD}


def optimizer_class(name: str) -> str:
    """The name in lower case.

    Raises:
        RecipeError: not an optimizer of this engine.
    """
    lower = (name or "AdamW").lower()
    if lower.endswith("8bit"):
        hint = "bitsandbytes needs a GPU; use --optimizer_type AdamW, which takes the same settings"
        raise RecipeError(Problem("--optimizer_type", f"{name} is not in the embedded engine", hint))
    if lower not in _ELEMENTWISE and lower != "adafactor":
        known = ["AdamW", "Adam", "SGD", "Adafactor"]
        raise RecipeError(
            Problem("--optimizer_type", f"{name} is unknown{near_miss(name, known)}", f"known: {', '.join(known)}")
        )
    return lower


def arguments(pairs: list[str]) -> dict[str, Any]:
    """``key=value`` pairs with Python literals as values.

    Raises:
        RecipeError: a pair without ``=`` or a value that is no literal.
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


def groups(built: Built, args: Namespace, given: dict[str, str]) -> tuple[list[dict[str, Any]], list[str]]:
    """Parameter groups and their names; a half whose rate is 0 is left out, LoRA+ ratios raise the rate of ``lora_up``."""
    result: list[dict[str, Any]] = []
    names: list[str] = []
    default = given.get("loraplus_lr_ratio")
    halves = (
        ("textencoder", built.text, args.text_encoder_lr, given.get("loraplus_text_encoder_lr_ratio", default)),
        ("unet", built.unet, args.unet_lr, given.get("loraplus_unet_lr_ratio", default)),
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
        raise RecipeError(Problem("--learning_rate", "nothing would be trained: every rate is 0 or no module was chosen"))
    return result, names


def make_optimizer(name: str, members: list[dict[str, Any]], extra: dict[str, Any], rate: float) -> torch.optim.Optimizer:
    """Make the optimizer.

    Raises:
        RecipeError: it does not take one of the arguments.
    """
    kind = optimizer_class(name)
    try:
        if kind == "adafactor":
            return _adafactor(members, extra, rate)
        fused = {"fused": True} if kind in {"adamw", "adam"} else {}
        nesterov = {"nesterov": True, "momentum": 0.9} if kind == "sgdnesterov" else {}
        made: torch.optim.Optimizer = _ELEMENTWISE[kind](members, lr=rate, **{**fused, **nesterov, **extra})
    except (TypeError, ValueError) as error:
        raise RecipeError(Problem("--optimizer_args", str(error))) from error
    return made


def _adafactor(members: list[dict[str, Any]], extra: dict[str, Any], rate: float) -> torch.optim.Optimizer:
    """Adafactor of transformers. With ``relative_step`` (its default) it finds its own rates, as sd-scripts arranges it."""
    from transformers.optimization import Adafactor  # noqa: PLC0415

    relative = extra["relative_step"] = bool(extra.get("relative_step", True) or extra.get("warmup_init"))
    if relative:
        members = [{**group, "lr": None} for group in members]
    result: torch.optim.Optimizer = Adafactor(members, lr=None if relative else rate, **extra)
    return result


def make_schedule(args: Namespace, optimizer: torch.optim.Optimizer, steps: int) -> Any:
    """Make the learning rate schedule, or None where Adafactor finds its own rates.

    Raises:
        RecipeError: unknown name, or a warmup that this schedule does not have.
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
    """Steps from ``100``, ``0.1`` or ``10%`` of the steps of the run."""
    try:
        if text.endswith("%"):
            return int(float(text[:-1]) / 100 * steps)
        value = float(text)
    except ValueError as error:
        raise RecipeError(Problem("--lr_warmup_steps", f"{text!r} is not a number, ratio or percentage")) from error
    return int(value * steps) if value < 1 else int(value)
