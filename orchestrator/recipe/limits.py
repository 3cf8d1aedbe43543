"""Find single values with which a training fails late, or learns nothing.

Sources: library/train_util.py, library/custom_train_functions.py and networks/lora.py of sd-scripts v0.10.1, and the
constructors of the optimizers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.models.layers import layers
from orchestrator.models.registry import ARCHITECTURES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.recipe import Recipe, Training
    from orchestrator.recipe.base import Conflict

LARGEST_RATE = 0.1
"""Of an optimizer whose step is as large as the rate: weights of a LoRA are mostly smaller."""
_LARGEST_FACTOR = 10.0  # of an optimizer that finds its own rate
_SCALED_BY_GRADIENT = ("sgd", "asgd", "adadelta")  # their step is not as large as the rate
_OWN_RATE = ("prodigy", "dadapt")
RANKED = ("lora", "locon", "loha", "dylora", "glora")  # of a lokr, a rank beyond all layers means full factors
_DRAWING_STEPS = 1000  # timesteps of every noise schedule
_RENDERED = (64, 8192)  # pixels


@dataclass(frozen=True, slots=True)
class Range:
    """The values of a number, and the effect of others."""

    least: float
    most: float
    otherwise: str
    open_: bool = False
    """The ends are not among the values."""

    def has(self, value: float) -> bool:
        """Return whether the range has ``value``."""
        return self.least < value < self.most if self.open_ else self.least <= value <= self.most

    def __str__(self) -> str:
        if self.most == math.inf:
            return f"more than {self.least:g}" if self.open_ else f"{self.least:g} or more"
        return f"a number between {self.least:g} and {self.most:g}" if self.open_ else f"{self.least:g} to {self.most:g}"


_AWAY = "the training would move away from the images"
_NOISE = "the noise would hide the images"
_TIMESTEP = "the noise schedule has 1000 timesteps"
_REFUSED = "the optimizer refuses it"
OPTIONS = {
    "min_snr_gamma": Range(0, math.inf, _AWAY),
    "prior_loss_weight": Range(0, math.inf, _AWAY),
    "scale_weight_norms": Range(0, math.inf, "norms are not negative"),
    "noise_offset": Range(-1, 1, _NOISE),
    "ip_noise_gamma": Range(0, 1, _NOISE),
    "adaptive_noise_scale": Range(-1, 1, _NOISE),
    "multires_noise_iterations": Range(0, 64, _NOISE),
    "multires_noise_discount": Range(0, 1, _NOISE),
    "min_timestep": Range(0, 999, _TIMESTEP),
    "max_timestep": Range(1, 1000, _TIMESTEP),
    "huber_c": Range(0, math.inf, "the trainer takes its logarithm", open_=True),
    "huber_scale": Range(0, math.inf, _AWAY, open_=True),
    "lr_scheduler_power": Range(0, math.inf, "the rate would grow without limit", open_=True),
    "vae_batch_size": Range(1, math.inf, "no image would be encoded"),
}
_OPTIMIZER_ARGS = {
    "weight_decay": Range(0, 100, "weights would grow, or vanish within steps"),
    "eps": Range(0, 1, _REFUSED),
    "momentum": Range(0, 1, _REFUSED),
    "d_coef": Range(0, 100, "the rate that it finds is multiplied by it", open_=True),
    "d0": Range(0, 1, "it is the first guess of the rate", open_=True),
    "growth_rate": Range(1, math.inf, "the rate could not grow"),
}
_BETA = Range(0, 1, _REFUSED)


def check(recipe: Recipe) -> Iterator[Conflict]:
    """Find values outside of the range that can work."""
    training, render = recipe.training, recipe.render
    yield from _rates(recipe)
    yield from _ranks(recipe)
    yield from _dropouts(recipe)
    yield from _options(training)
    yield from _optimizer_args(training)
    cycles = training.lr_scheduler_num_cycles
    if training.lr_scheduler == "cosine_with_restarts" and cycles and training.steps and cycles > training.steps:
        yield "training.lr_scheduler_num_cycles", f"is {cycles} in {training.steps} steps; a cycle takes a step or more"
    for name, classes in recipe.dataset.batch_size.items():
        if name.startswith("0x") or name.endswith("x0"):
            yield f"dataset.batch_size.{name}", f"is {classes} for images without pixels; takes WIDTHxHEIGHT, as 512x768"
    if render.steps > _DRAWING_STEPS:
        yield "render.steps", f"is {render.steps}; a noise schedule has {_DRAWING_STEPS}, and 20 to 30 draw an image"
    least, most = _RENDERED
    for key, side in render.sides().items():
        if not (least <= side <= most):
            yield key, f"is {side}; images have sides of {least} to {most} pixels"


def step_is_rate(optimizer: str) -> bool:
    """Return whether a step of the optimizer is about as large as the rate."""
    return not optimizer.rpartition(".")[2].lower().startswith((*_SCALED_BY_GRADIENT, *_OWN_RATE))


def finds_rate(optimizer: str) -> bool:
    """Return whether learning rates are factors of the optimizer's own."""
    return optimizer.rpartition(".")[2].lower().startswith(_OWN_RATE)


def rates(recipe: Recipe) -> dict[str, float]:
    """Return the learning rates that a recipe sets, by dotted key."""
    training = recipe.training
    found: dict[str, float] = {}
    for name in ("learning_rate", "text_encoder_lr", "unet_lr"):
        value = getattr(training, name)
        values = value if isinstance(value, tuple) else () if value is None else (value,)
        found |= {f"training.{name}": max(values)} if values else {}
    return found | {f"network.layer_lrs.{pattern}": rate for pattern, rate in recipe.network.layer_lrs.items()}


def _rates(recipe: Recipe) -> Iterator[Conflict]:
    optimizer = recipe.training.optimizer
    if recipe.training.relative_step:
        return
    for key, rate in rates(recipe).items():
        if step_is_rate(optimizer) and rate > LARGEST_RATE:
            what = (
                f"is {rate:g}; a step of {optimizer} moves every weight by about the rate, so that nothing of the LoRA is left"
            )
            yield key, f"{what}: 0.00001 to 0.001 is usual; a rate of 1 is for optimizers that find their own, as Prodigy"
        elif finds_rate(optimizer) and rate > _LARGEST_FACTOR:
            yield key, f"is {rate:g}; {optimizer} finds its own rate and multiplies it by this: set 1"


def _ranks(recipe: Recipe) -> Iterator[Conflict]:
    """Find ranks above every layer of the base model."""
    network, entry = recipe.network, ARCHITECTURES[recipe.base.architecture]
    if network.family not in RANKED or recipe.base.is_small:
        return
    most = max(layer.full_rank for layer in layers(entry.model))
    ranks = {"network.dim": network.dim, "network.conv_dim": network.conv_dim}
    ranks |= {f"network.layer_dims.{pattern}": rank for pattern, rank in network.layer_dims.items()}
    for key, rank in ranks.items():
        if rank is not None and rank > most:
            yield key, f"is {rank}; no layer of {entry.title} has a rank above {most}, and 4 to 128 is usual"


def _dropouts(recipe: Recipe) -> Iterator[Conflict]:
    args = recipe.network.args
    values = {"network.dropout": recipe.network.dropout}
    values |= {f"network.args.{name}": args.get(name) for name in ("rank_dropout", "module_dropout")}  # type: ignore[misc]
    for key, value in values.items():
        if isinstance(value, int | float) and value == 1:
            yield key, "is 1, which drops everything: nothing would be trained; 0.1 to 0.3 is usual"


def _options(training: Training) -> Iterator[Conflict]:
    options = training.options
    for name, range_ in OPTIONS.items():
        value = options.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and not range_.has(value):
            yield f"training.options.{name}", f"is {value:g}; takes {range_}: {range_.otherwise}"
    first, last = options.get("min_timestep", 0), options.get("max_timestep", _DRAWING_STEPS)
    if isinstance(first, int) and isinstance(last, int) and 0 < last <= first <= _DRAWING_STEPS:
        yield "training.options.min_timestep", f"is {first}, and max_timestep {last}: min_timestep is the smaller one"


def _optimizer_args(training: Training) -> Iterator[Conflict]:
    args = training.optimizer_args
    for name, range_ in _OPTIMIZER_ARGS.items():
        values = args.get(name)
        for value in values if isinstance(values, tuple) else (values,):
            if isinstance(value, int | float) and not isinstance(value, bool) and not range_.has(value):
                yield f"training.optimizer_args.{name}", f"is {value:g}; takes {range_}: {range_.otherwise}"
    betas = args.get("betas", ())
    if not isinstance(betas, tuple) or any(
        not isinstance(beta, int | float) or not _BETA.has(beta) or beta == 1 for beta in betas
    ):
        yield "training.optimizer_args.betas", f"is {betas!r}; takes two numbers from 0 to below 1, as [0.9, 0.999]"
    for name in ("lr", "params"):
        if name in args:
            yield f"training.optimizer_args.{name}", "set training.learning_rate instead"
