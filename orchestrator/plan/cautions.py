"""Find values that train, but seldom well, before the training.

Each caution is a Problem with where, what and the next command. None stops a run.
"""

from __future__ import annotations

import functools
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from orchestrator.errors import Problem, counted
from orchestrator.models.layers import layers
from orchestrator.models.registry import ARCHITECTURES
from orchestrator.plan import estimate
from orchestrator.recipe import limits
from orchestrator.recipe.limits import Range
from orchestrator.weights.families import expected_tensors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from orchestrator.models.registry import ArchitectureName
    from orchestrator.plan.inputs import ProjectInputs
    from orchestrator.recipe import Recipe

_FAST, _FAST_LION = 0.01, 0.001  # learning rates
_STILL = 1e-5  # rate x steps: the most that a weight moves; trained weights are about 1e-3 to 1e-2
_MANY_STEPS = 100_000
_MANY_SAMPLES = 1000
_SIDE = 256  # pixels; below, the base models draw nothing that is recognized
_NARROW = 64  # channels; layers below are the first and last ones, and hardly add to a file
_HEAVY = 10.0
_SLIGHT = 1e-4
_USUAL: dict[str, tuple[Range, str]] = {
    "base.clip_skip": (Range(1, 4, "the early layers of the text encoder know little of the caption"), "1 or 2"),
    "dataset.batch_size.default": (Range(1, 64, "a batch of that size seldom fits into a GPU"), "1 to 8"),
    "dataset.caption_tag_dropout_rate": (Range(0, 0.9, "hardly a tag is trained"), "0 to 0.2"),
    "network.dropout": (Range(0, 0.8, "hardly a part of the LoRA is trained in a step"), "0.1 to 0.3"),
    "network.args.loraplus_lr_ratio": (Range(1, 64, "it multiplies the learning rate of half of the LoRA"), "16"),
    "training.gradient_accumulation_steps": (Range(1, 64, "each step takes that many batches"), "1 to 8"),
    "training.optimizer_args.weight_decay": (Range(0, 1, "the LoRA shrinks while it learns"), "0.01 to 0.1"),
    "merge.unmapped": (Range(-_HEAVY, _HEAVY, "it multiplies that part of the LoRA"), "0 to 1"),
    "resize.sv_ratio": (Range(1, 1000, "hardly a singular value is that small, so that nothing is reduced"), "8 to 64"),
    "render.scale": (Range(0, 30, "images burn out"), "5 to 9"),
    "render.multiplier": (Range(0.1, 3, "the images do not show the LoRA as it is used"), "0.6 to 1"),
    "release.preferred_weight": (Range(0.1, 3, "programs load the LoRA with it"), "0.6 to 1"),
    "guards.max_loss": (Range(0.5, float("inf"), "the first losses of a sound training may be above it"), "10"),
    "guards.stall_seconds": (Range(30, float("inf"), "loading a base model takes longer"), "900"),
    "guards.max_gpu_celsius": (Range(60, float("inf"), "a GPU at work is hotter"), "80 to 90"),
}
"""Values that are not odd, and those that are usual."""


def find(recipe: Recipe, inputs: ProjectInputs) -> list[Problem]:
    """Return the cautions of a recipe, each with its dotted key."""
    cautions = [*_values(recipe), *_rates(recipe), *_network(recipe), *_steps(recipe), *_images(recipe)]
    cautions += [*_resize(recipe, inputs), *_passes(recipe, inputs), *_shared_images(recipe, inputs)]
    return [Problem(f"{recipe.name}: {key}", what, hint) for key, what, hint in cautions]


_Caution = tuple[str, str, str]  # dotted key, what, cure


def _values(recipe: Recipe) -> Iterator[_Caution]:
    for key, (range_, usual) in _USUAL.items():
        value: object = recipe
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else getattr(value, part, None)
        if isinstance(value, int | float) and not range_.has(value):
            yield key, f"is {value:g}: {range_.otherwise}", f"{usual} is usual"
    weights = recipe.weights().by_name() if recipe.block_weights is not None else {}
    for name, weight in weights.items():
        if abs(weight) > _HEAVY:
            yield "block_weights", f"{name} is {weight:g}, which multiplies that block", "0 to 1 is usual, -1 to 2 is possible"
            break


def _small(recipe: Recipe) -> bool:
    """Return whether the base model is a small one, of other sizes and rates than its architecture."""
    return recipe.base.is_small or recipe.engine == "embedded"


def _rates(recipe: Recipe) -> Iterator[_Caution]:
    training = recipe.training
    if training.relative_step or _small(recipe) or not limits.step_is_rate(training.optimizer):
        return
    fast = _FAST_LION if "lion" in training.optimizer.lower() else _FAST
    for key, rate in limits.rates(recipe).items():
        if rate > fast:
            usual = "0.00001 to 0.0001" if fast == _FAST_LION else "0.00001 to 0.001"
            yield key, f"is {rate:g}, more than a LoRA mostly survives with {training.optimizer}", f"{usual} is usual"
        elif 0 < rate * training.steps < _STILL:
            what = f"is {rate:g}: in {training.steps} steps no weight moves by more than {rate * training.steps:.0e}"
            yield key, f"{what}, too little to be seen", "0.00001 to 0.001 is usual"


def _network(recipe: Recipe) -> Iterator[_Caution]:
    network = recipe.network
    for name, rank, alpha in (
        ("", network.dim, network.alpha),
        ("conv_", network.conv_dim, network.conv_alpha),
    ):
        if rank is None or alpha is None or network.family not in limits.RANKED:
            continue
        scale = alpha / rank
        if not _SLIGHT <= scale <= _HEAVY:
            effect = "multiplies" if scale > 1 else "divides"
            what = f"is {alpha:g} with rank {rank}: alpha / rank {effect} the LoRA by {max(scale, 1 / scale):g}"
            yield f"network.{name}alpha", what, f"{rank} for 1, {rank / 2:g} for a half"
    if (
        network.family not in limits.RANKED
        or _small(recipe)
        or max(network.dim, network.conv_dim or 0) <= _least_rank(recipe.base.architecture)
    ):
        return
    trained = expected_tensors.modules(recipe, expected_tensors.of(recipe))
    for key, rank, convolutions in (("network.dim", network.dim, False), ("network.conv_dim", network.conv_dim, True)):
        full = [most for each in trained if (each.kernel > 1) is convolutions and (most := each.full_rank) >= _NARROW]
        if rank is not None and (small := sum(most < rank for most in full)):
            what = f"is {rank}; {small} of {len(full)} layers have a smaller rank, and the rest of their tensors is of no use"
            yield key, what, f"up to {min(full)} is used in every layer"


@functools.cache
def _least_rank(architecture: ArchitectureName) -> int:
    """Return the smallest rank of an architecture's layers, but the few that are narrow."""
    return min(most for layer in layers(ARCHITECTURES[architecture].model) if (most := layer.full_rank) >= _NARROW)


def _steps(recipe: Recipe) -> Iterator[_Caution]:
    training = recipe.training
    if training.steps > _MANY_STEPS:
        yield "training.steps", f"is {training.steps:,}: days to months on one GPU", "1000 to 10000 is usual"
    for key, lost in (
        ("save_every_n_steps", "only the last step is saved"),
        ("state_every_n_steps", "no state is saved, and a stopped training starts again"),
        ("sample_every_n_steps", "no sample is drawn"),
    ):
        every = getattr(training, key)
        if every is not None and every > training.steps:
            yield (
                f"training.{key}",
                f"is {every} of {training.steps} steps: {lost}",
                f"{max(1, training.steps // 5)}, for five of them",
            )
    every = training.sample_every_n_steps
    if every and (count := training.steps // every * len(recipe.render.prompts)) > _MANY_SAMPLES:
        yield "training.sample_every_n_steps", f"is {every}: {count:,} images are drawn while training", "200 is usual"
    cycles = training.lr_scheduler_num_cycles
    if cycles and cycles > 1 and training.lr_scheduler != "cosine_with_restarts":
        what = f"is {cycles}; {training.lr_scheduler} has no cycles"
        yield "training.lr_scheduler_num_cycles", what, 'training.lr_scheduler = "cosine_with_restarts" has'


def _images(recipe: Recipe) -> Iterator[_Caution]:
    dataset, small = recipe.dataset, _small(recipe)
    title = ARCHITECTURES[recipe.base.architecture].title
    if dataset.caption_dropout_rate == 1 or dataset.caption_dropout_every_n_epochs == 1:
        key = "caption_dropout_rate" if dataset.caption_dropout_rate == 1 else "caption_dropout_every_n_epochs"
        yield f"dataset.{key}", "is 1: no caption is ever trained, so that no trigger word is learned", "0 to 0.1 is usual"
    if small:
        return
    for key, sides in (("resolution_classes", dataset.resolution_classes[:1]), ("sizes", dataset.sizes)):
        for side in sides:
            if side < (_SIDE if key == "resolution_classes" else _SIDE // 4):
                yield f"dataset.{key}", f"has {side}; {title} draws nothing recognizable at that size", f"{_SIDE} or more"
    step = dataset.bucket_reso_steps
    for side in dataset.resolution_classes:
        if side % step and side >= step:
            what = f"has {side}; images are trained at multiples of {step}"
            yield "dataset.resolution_classes", what, f"{side // step * step} or {-(-side // step) * step}"
    for key in ("width", "height"):
        if (side := getattr(recipe.render, key)) < _SIDE:
            yield f"render.{key}", f"is {side}; {title} draws nothing recognizable at that size", f"{_SIDE} or more"


def _resize(recipe: Recipe, inputs: ProjectInputs) -> Iterator[_Caution]:
    """Yield a caution where a resize has nothing to reduce."""
    resize, network = recipe.resize, recipe.network
    if resize is None:
        return
    if resize.size_mb is not None:
        predicted = estimate.tensors(recipe, inputs)
        if predicted is not None and predicted.tensor_bytes <= resize.size_mb * 2**20:
            what = f"is {resize.size_mb:g}, and the LoRA has {predicted.tensor_bytes / 2**20:.2f} MiB: nothing is reduced"
            yield "resize.size_mb", what, "less, or leave resize out"
    if resize.methods() or resize.new_rank is None:
        return
    most = max([network.dim, network.conv_dim or 0, *network.layer_dims.values()])
    if resize.new_rank >= most:
        what = f"is {resize.new_rank}, and the LoRA has rank {most}: nothing is reduced"
        yield "resize.new_rank", what, f"less than {most}, or sv_ratio = 16 instead"


def _passes(recipe: Recipe, inputs: ProjectInputs) -> Iterator[_Caution]:
    """Yield a caution where the training ends before every image was trained."""
    counts, training = inputs.counts(recipe), recipe.training
    steps = counts.batches_per_epoch / (training.gradient_accumulation_steps or 1)
    if training.steps and steps > training.steps:
        what = (
            f"is {training.steps}, and one pass over all images with their repeats takes {steps:.0f}: some are never trained"
        )
        yield "training.steps", what, f"{steps:.0f} or more, or fewer repeats (dataset.repeats)"


def _shared_images(recipe: Recipe, inputs: ProjectInputs) -> Iterator[_Caution]:
    """Yield a caution for each source with copies of another one's images.

    One file in two sources is an error of the dataset.
    """
    sources = recipe.dataset.sources
    captions = {source.caption_files for source in sources.values()}
    owners: dict[str, dict[str, Path]] = defaultdict(dict)
    for file in inputs.images(recipe):
        if file.path.suffix not in captions:
            owners[file.digest][file.role.partition("/")[0]] = file.path
    copied = [tuple(paths) for paths in owners.values() if len(set(paths.values())) > 1]
    for names, count in Counter(copied).items():
        regular = [name for name in names if sources[name].regularization]
        if regular and len(regular) < len(names):
            (first, *_), last = [name for name in names if name not in regular], regular[0]
            what = (
                f"has {counted(count, 'image')} of dataset.sources.{first}: they would be the subject and its opposite at once"
            )
            cure = "regularization takes images of the class without the subject"
        else:
            first, last = names[0], names[-1]
            what = f"has {counted(count, 'image')} of dataset.sources.{first}, which are trained {len(names)} times as often"
            cure = f"leave dataset.sources.{last} out, or raise repeats of dataset.sources.{first}"
        yield f"dataset.sources.{last}.images", what, cure
