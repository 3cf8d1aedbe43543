"""Combinations that sd-scripts' trainer rejects late or ignores.

Source: sd-scripts v0.10.1 (library/train_util.py: get_optimizer, get_scheduler_fix, verify_training_args). Each was tried.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.engines.sdscripts import (
    architecture_constraints,
    network_args,
    optimizer_args,
    training_samples,
    training_states,
)
from orchestrator.errors import near_miss, near_or_all
from orchestrator.models import blocks
from orchestrator.models.registry import ARCHITECTURES
from orchestrator.recipe import limits
from orchestrator.weights.families import expected_tensors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.recipe import Recipe
    from orchestrator.recipe.base import Conflict

# transformers' SchedulerType without reduce_lr_on_plateau, which the trainer calls wrongly; diffusers' piecewise_constant.
SCHEDULES = (
    "linear",
    "cosine",
    "cosine_with_restarts",
    "polynomial",
    "constant",
    "constant_with_warmup",
    "inverse_sqrt",
    "cosine_with_min_lr",
    "warmup_stable_decay",
    "piecewise_constant",
    "adafactor",
)
_OPTIONS = "training.options"
# Names that the trainer reads in any case. It looks other names up in torch.optim, as they are written.
OPTIMIZERS = (
    "AdamW",
    "AdamW8bit",
    "PagedAdamW",
    "PagedAdamW8bit",
    "PagedAdamW32bit",
    "Lion",
    "Lion8bit",
    "PagedLion8bit",
    "SGDNesterov",
    "SGDNesterov8bit",
    "DAdaptation",
    "DAdaptAdamPreprint",
    "DAdaptAdaGrad",
    "DAdaptAdam",
    "DAdaptAdan",
    "DAdaptAdanIP",
    "DAdaptLion",
    "DAdaptSGD",
    "Prodigy",
    "Adafactor",
    "RAdamScheduleFree",
    "AdamWScheduleFree",
    "SGDScheduleFree",
)
# Without LBFGS and SparseAdam, which need a closure or sparse gradients, and Muon, which takes matrices only.
TORCH_OPTIMIZERS = ("ASGD", "Adadelta", "Adagrad", "Adam", "Adamax", "NAdam", "RAdam", "RMSprop", "Rprop", "SGD")
_LOWEST_FACTOR = 0.1  # get_optimizer warns up to here


def problems(recipe: Recipe) -> Iterator[Conflict]:
    """Yield (dotted key, problem) for combinations that would not train.

    The trainer would stop, or do something else.
    """
    entry = ARCHITECTURES[recipe.base.architecture]
    layer = expected_tensors.unfit(recipe, expected_tensors.of(recipe))
    if layer is not None:
        what = f"{recipe.network.family} cannot split {layer.out} channels ({layer.name}) into blocks of at most this size"
        yield "network.dim", what
    step = entry.bucket_step
    if recipe.dataset.enable_bucket and recipe.dataset.bucket_reso_steps % step:
        yield "dataset.bucket_reso_steps", f"is {recipe.dataset.bucket_reso_steps}; the trainer takes multiples of {step} only"
    blocks = entry.block_lists  # networks/lora.py get_block_dims_and_alphas
    for name in network_args.BLOCK_LISTS:
        values = recipe.network.args.get(name)
        if blocks and isinstance(values, str) and (count := len(values.split(","))) != blocks:
            yield f"network.args.{name}", f"has {count} values; {recipe.base.architecture} takes {blocks}"
    yield from _block_weights(recipe)
    yield from _optimizer(recipe)
    yield from architecture_constraints.problems(recipe)
    yield from _schedule(recipe)
    yield from _states(recipe)
    yield from _options(recipe)
    yield from training_samples.problems(recipe)


def _block_weights(recipe: Recipe) -> Iterator[Conflict]:
    """Yield block weights that change no layer that is trained."""
    model = expected_tensors.of(recipe)
    if recipe.block_weights is None or expected_tensors.predict(recipe, model) is None:
        return
    weights, architecture = recipe.weights(), recipe.base.architecture
    if set(weights.by_name().values()) == {1.0} or any(weights.block_of(part) == "" for part in weights.parts):
        return  # layers outside of blocks are not predicted
    trained = expected_tensors.modules(recipe, model)
    if all(weights.of(layer.name, blocks.block_of(layer.name, architecture)) == 1 for layer in trained):
        what = "change no layer that is trained"
        yield "block_weights", f'{what}; weigh other blocks, or leave them out: unset = ["block_weights"]'


def _optimizer(recipe: Recipe) -> Iterator[Conflict]:
    """Yield an unknown optimizer, and rates that the optimizer cannot use."""
    training = recipe.training
    name = training.optimizer
    if (
        "." not in name
        and name.lower() not in {optimizer.lower() for optimizer in OPTIMIZERS}
        and name not in TORCH_OPTIMIZERS
    ):
        near = near_miss(name, (*OPTIMIZERS, *TORCH_OPTIMIZERS))
        yield "training.optimizer", f'is "{name}", which sd-scripts does not have{near}'
    yield from optimizer_args.problems(training)
    if not limits.finds_rate(name):
        return
    own = f"{name} finds its own rate; learning rates are factors of it"
    rates = [rate for rate in training.rates() if rate]
    key = next((key for key in ("text_encoder_lr", "unet_lr") if getattr(training, key) is not None), "learning_rate")
    if rates and max(rates) <= _LOWEST_FACTOR:
        key = "learning_rate" if training.learning_rate in rates else key
        yield f"training.{key}", f"is {getattr(training, key)}: {own}, about 1; set 1.0"
    elif len(set(rates)) > 1:
        what = f"is {getattr(training, key)}, and learning_rate {training.learning_rate}: {own}, one for all parts"
        yield f"training.{key}", f'{what}; leave it out: unset = ["training.{key}"]'
    for ratio in ("loraplus_lr_ratio", "loraplus_unet_lr_ratio", "loraplus_text_encoder_lr_ratio"):
        if recipe.network.args.get(ratio) not in (None, 1):
            yield f"network.args.{ratio}", f"gives parts rates of their own: {own}, one for all parts; leave it out"


def _schedule(recipe: Recipe) -> Iterator[Conflict]:
    training = recipe.training
    name, other = training.lr_scheduler, training.options.get("lr_scheduler_type")
    if name not in SCHEDULES:
        yield "training.lr_scheduler", f'is "{name}"{near_or_all(name, SCHEDULES)}'
    if name == "piecewise_constant" and not training.options.get("lr_scheduler_args"):
        yield "training.lr_scheduler", f'is "{name}"; its rules are missing: {_OPTIONS}.lr_scheduler_args = ["step_rules=..."]'
    if name == "adafactor" and not training.relative_step:
        yield "training.lr_scheduler", 'is "adafactor", which needs the optimizer Adafactor with relative_step = true'
    if training.lr_warmup_steps and (other or training.relative_step):
        scheduler = f"lr_scheduler_type {other}" if other else "Adafactor with relative_step"
        yield "training.lr_warmup_steps", f"is {training.lr_warmup_steps}; {scheduler} takes none"


def _states(recipe: Recipe) -> Iterator[Conflict]:
    training, key = recipe.training, "training.state_every_n_steps"
    if training.state_every_n_steps is None:
        return
    if why := network_args.no_resume(recipe.network):
        yield key, f"a stopped training could not be resumed: {why}; leave it out"
    if training.optimizer.lower().endswith("schedulefree"):
        yield (
            key,
            f"{training.optimizer} has no schedule to save, so its states are incomplete and none is resumed; leave it out",
        )
    elif (other := training.options.get("lr_scheduler_type")) or training.lr_scheduler not in training_states.ENDS_AT_ZERO:
        schedule = f'lr_scheduler = "{training.lr_scheduler}"' if not other else f'options.lr_scheduler_type = "{other}"'
        what = f"is set with {schedule}: sd-scripts v0.10.1 would train up to an epoch too long when it is resumed"
        yield key, f"{what}; leave it out, or choose {' or '.join(training_states.ENDS_AT_ZERO)}, which end at 0"
    if (training.gradient_accumulation_steps or 1) > 1:
        what = "sd-scripts v0.10.1 counts batches as steps when it resumes with gradient_accumulation_steps"
        yield key, f"{what}; leave one of them out"
    every = training.save_every_n_steps
    if every is not None and training.state_every_n_steps != every:
        what = f"is {training.state_every_n_steps}; sd-scripts saves states where it saves the LoRA, every {every} steps"
        yield key, f"{what} (training.save_every_n_steps)"


def _options(recipe: Recipe) -> Iterator[Conflict]:
    training, network, options = recipe.training, recipe.network, recipe.training.options
    for option, needs in (
        ("adaptive_noise_scale", "noise_offset"),
        ("scale_v_pred_loss_like_noise_pred", "v_parameterization"),
    ):
        if options.get(option) and not options.get(needs):
            yield f"{_OPTIONS}.{option}", f"needs {_OPTIONS}.{needs}"
    if options.get("v_pred_like_loss") and options.get("v_parameterization"):
        yield f"{_OPTIONS}.v_pred_like_loss", "is for a model without v_parameterization"
    for precision in ("fp16", "bf16"):
        if options.get(f"full_{precision}") and training.mixed_precision != precision:
            yield f"{_OPTIONS}.full_{precision}", f'needs training.mixed_precision = "{precision}"'
    if options.get("fused_backward_pass") and training.optimizer.lower() != "adafactor":
        yield f"{_OPTIONS}.fused_backward_pass", "is for the optimizer Adafactor"
    if options.get("sample_at_first") and training.sample_every_n_steps is None:
        yield f"{_OPTIONS}.sample_at_first", "needs training.sample_every_n_steps: without it there is no prompt file"
    if options.get("base_weights") and network.family == "lora" and network.conv_dim is None:
        what = "with networks.lora also trains the 3x3 convolutions"
        yield f"{_OPTIONS}.base_weights", f"{what}; set network.conv_dim, or leave it out"
