"""Arguments that each optimizer takes besides parameters and rate.

Sources: the constructors of torch 2.14, bitsandbytes 0.48, lion-pytorch 0.2.3, prodigyopt 1.1.2, dadaptation 3.2, schedulefree
1.4 and transformers 4.54. Names of all versions are taken, so that none is refused that one of them takes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from orchestrator.errors import near_or_all

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.recipe import Training
    from orchestrator.recipe.base import Conflict


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_ADAM: Final = "betas eps weight_decay amsgrad maximize foreach capturable differentiable fused decoupled_weight_decay"
_SGD: Final = "momentum dampening weight_decay nesterov maximize foreach differentiable fused"
_8BIT: Final = "betas eps weight_decay amsgrad optim_bits args min_8bit_size percentile_clipping block_wise is_paged"
_ADAPTED: Final = (
    "betas eps weight_decay momentum log_every decouple use_bias_correction no_prox d0 growth_rate fsdp_in_use"  # of all kinds
)
_FREE: Final = "betas eps weight_decay warmup_steps r weight_lr_power foreach momentum silent_sgd_phase"
_TAKES: Final = {
    "adamw": _words(_ADAM),
    "adam": _words(_ADAM),
    "adamax": _words(_ADAM),
    "radam": _words(_ADAM),
    "nadam": _words(f"{_ADAM} momentum_decay"),
    "sgd": _words(_SGD),
    "sgdnesterov": _words(_SGD) - {"nesterov"},
    "asgd": _words("lambd alpha t0 weight_decay foreach maximize differentiable capturable"),
    "adadelta": _words("rho eps weight_decay foreach capturable maximize differentiable"),
    "adagrad": _words("lr_decay weight_decay initial_accumulator_value eps foreach maximize differentiable fused"),
    "rmsprop": _words("alpha eps weight_decay momentum centered capturable foreach maximize differentiable"),
    "rprop": _words("etas step_sizes capturable foreach maximize differentiable"),
    "adafactor": _words("eps clip_threshold decay_rate beta1 weight_decay scale_parameter relative_step warmup_init"),
    "lion": _words("betas weight_decay use_triton decoupled_weight_decay cautious_factor"),
    "prodigy": _words(
        "betas beta3 eps weight_decay decouple use_bias_correction safeguard_warmup d0 d_coef growth_rate fsdp_in_use slice_p"
    ),
    "sgdnesterov8bit": _words(f"{_8BIT} momentum dampening"),
    **dict.fromkeys(
        ("adamw8bit", "pagedadamw", "pagedadamw8bit", "pagedadamw32bit", "lion8bit", "pagedlion8bit"), _words(_8BIT)
    ),
    **dict.fromkeys(("adamwschedulefree", "radamschedulefree", "sgdschedulefree"), _words(_FREE)),
}


def problems(training: Training) -> Iterator[Conflict]:
    """Yield (dotted key, problem) for arguments that the optimizer refuses, minutes after the start."""
    name = training.optimizer.removeprefix("torch.optim.").lower()
    takes = _words(_ADAPTED) if name.startswith("dadapt") else _TAKES.get(name)
    if takes is None:
        return
    for argument in training.optimizer_args:
        if argument not in takes and argument not in {"lr", "params"}:  # recipe/limits.py names these two
            what = f"{training.optimizer} has no such argument{near_or_all(argument, sorted(takes))}"
            yield f"training.optimizer_args.{argument}", what
