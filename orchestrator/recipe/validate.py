"""Find combinations of recipe values that cannot work."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pydantic import ValidationError

from orchestrator.errors import near_miss
from orchestrator.models.registry import ARCHITECTURES
from orchestrator.recipe import limits, validate_outputs, validate_texts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.recipe import Network, Recipe, Training
    from orchestrator.recipe.base import Conflict

_TUCKER = ("locon", "loha", "lokr")


def check(recipe: Recipe) -> list[Conflict]:
    """Return every impossible combination as (dotted key, message)."""
    return [
        *validate_texts.check(recipe),
        *limits.check(recipe),
        *_network(recipe),
        *_training(recipe),
        *_dataset(recipe),
        *validate_outputs.check(recipe),
        *_retries(recipe),
    ]


def _network(recipe: Recipe) -> Iterator[Conflict]:
    network = recipe.network
    yield from _patterns(network)
    if network.conv_alpha is not None and network.conv_dim is None:
        yield "network.conv_alpha", "needs network.conv_dim: without it no convolution is trained"
    if network.conv_dim is not None and network.family == "full":
        yield "network.conv_dim", "full trains whole weights and has no rank of its own for convolutions"
    if network.tucker and network.family not in _TUCKER:
        yield "network.tucker", f"{network.family} has no Tucker convolutions; {', '.join(_TUCKER)} do"
    if network.tucker and network.conv_dim is None:
        yield "network.tucker", "needs network.conv_dim: Tucker applies to 3x3 convolutions"
    if network.family == "lora":
        if network.bypass:
            yield "network.bypass", "is an option of LyCORIS; networks.lora always does that"
        if network.preset is not None:
            yield "network.preset", "is an option of LyCORIS; networks.lora chooses its modules by conv_dim"
        if network.args.get("algo"):
            yield "network.args.algo", "is an option of LyCORIS; set network.family instead"
    else:
        taken = {"algo": "network.family", "conv_dim": "network.conv_dim", "conv_alpha": "network.conv_alpha"}
        taken |= {"use_tucker": "network.tucker", "use_cp": "network.tucker", "bypass_mode": "network.bypass"}
        taken |= {"preset": "network.preset", "dropout": "network.dropout"}
        for name in network.args:
            if name in taken:
                yield f"network.args.{name}", f"set {taken[name]} instead"


def _patterns(network: Network) -> Iterator[Conflict]:
    """Find patterns of layers that are not regular expressions."""
    for name in ("layer_dims", "layer_lrs", "exclude", "include"):
        for pattern in getattr(network, name):
            try:
                re.compile(pattern)
            except re.error as error:
                yield f"network.{name}", f"{pattern!r} is not a regular expression: {error}"


def _length(training: Training) -> Iterator[Conflict]:
    if training.steps and training.epochs:
        yield "training.epochs", 'is set with training.steps; leave one of them out: unset = ["training.steps"]'
    elif not training.steps and not training.epochs:
        yield "training.steps", "is missing"
    if training.lr_warmup_steps and training.lr_scheduler == "constant":
        yield "training.lr_warmup_steps", 'the constant schedule has no warm-up; use "constant_with_warmup"'
    if training.lr_warmup_steps and training.steps and training.lr_warmup_steps >= training.steps:
        yield "training.lr_warmup_steps", f"is {training.lr_warmup_steps} of {training.steps} steps: the rate never gets there"


def _training(recipe: Recipe) -> Iterator[Conflict]:
    training, dataset = recipe.training, recipe.dataset
    yield from _length(training)
    if training.cache_latents != "no" and (dataset.color_aug or dataset.random_crop):
        which = "color_aug" if dataset.color_aug else "random_crop"
        yield "training.cache_latents", f'is "{training.cache_latents}" with dataset.{which}, which changes every image anew'
    if training.persistent_workers and training.data_loader_workers == 0:
        yield "training.persistent_workers", "needs training.data_loader_workers > 0"
    if training.relative_step:
        message = (
            "Adafactor finds its own rate and ignores this one; unset it, or set training.optimizer_args.relative_step = false"
        )
        for key in ("learning_rate", "text_encoder_lr", "unet_lr"):
            if getattr(training, key) is not None:
                yield f"training.{key}", message
        if training.lr_scheduler not in ("adafactor", "constant"):  # constant is the default
            message = f'is "{training.lr_scheduler}"; Adafactor that finds its own rate has a schedule of its own'
            yield "training.lr_scheduler", f'{message}: set "adafactor"'
    elif training.learning_rate is None:
        yield "training.learning_rate", "is missing"
    if not any(training.rates()):
        yield "training.learning_rate", "is 0 for all trained parts: nothing would be trained"
    if training.train == "unet" and training.text_encoder_lr:
        yield "training.text_encoder_lr", 'training.train = "unet" does not train the text encoder'
    if training.train == "text_encoder" and training.unet_lr:
        denoiser = ARCHITECTURES[recipe.base.architecture].denoiser
        yield "training.unet_lr", f'training.train = "text_encoder" does not train the {denoiser}'
    yield from _validation(training)
    yield from _files(recipe)
    fixed = ARCHITECTURES[recipe.base.architecture].fixed_clip_skip
    if fixed and recipe.base.clip_skip != 1:
        yield "base.clip_skip", f"{fixed}; remove it"


def _validation(training: Training) -> Iterator[Conflict]:
    validation, every = training.validation, training.validation_interval
    if validation is None or every is None:
        return
    if (validation.split is None) == (not validation.images):
        yield "training.validation", "takes one of split (a share of the originals) and images (their names)"
    if training.steps and every > training.steps:
        yield "training.validation.every_n_steps", f"is {every} of {training.steps} steps: none would be validated"


def _files(recipe: Recipe) -> Iterator[Conflict]:
    """Find files that the architecture does not take, or lacks."""
    entry = ARCHITECTURES[recipe.base.architecture]
    files = {file.option: file for file in entry.files}
    for name in recipe.base.files:
        if name not in files:
            takes = f"takes {', '.join(files)}" if files else "takes no further files"
            yield f"base.files.{name}", f"{entry.title} {takes}{near_miss(name, files)}"
    for name, file in files.items():
        if file.required and name not in recipe.base.files:
            yield f"base.files.{name}", f'is missing: {entry.title} needs {file.kind.title}; write {name} = {{file = "…"}}'
    if entry.vae is None and recipe.base.vae:
        instead = next((f"base.files.{name} is {file.kind.title}" for name, file in files.items() if name == "ae"), "")
        yield "base.vae", f"the trainer of {entry.title} ignores it; remove it{f': {instead}' if instead else ''}"
    if entry.needs_vae and not recipe.base.vae:
        yield "base.vae", f"is missing: a checkpoint of {entry.title} holds no VAE"


def _dataset(recipe: Recipe) -> Iterator[Conflict]:
    dataset = recipe.dataset
    if not any(not source.regularization for source in dataset.sources.values()):
        yield "dataset.sources", "no source with images of the subject"
    if not dataset.originals and not dataset.sizes:
        yield "dataset.originals", "is false and dataset.sizes is empty: nothing to train on"
    for name in dataset.batch_size:
        width, _, height = name.partition("x")
        if name != "default" and not (width.isdigit() and height.isdigit()):
            yield f"dataset.batch_size.{name}", "takes WIDTHxHEIGHT, as 512x768, or default"
    if "default" not in dataset.batch_size:
        yield "dataset.batch_size", "needs `default` for the other classes"
    if not dataset.resolution_classes or list(dataset.resolution_classes) != sorted(set(dataset.resolution_classes)):
        yield "dataset.resolution_classes", "takes sides in pixels, each once, from small to large"
    if not dataset.caption_extension.startswith("."):
        yield "dataset.caption_extension", f'is "{dataset.caption_extension}"; begins with a dot'
    if dataset.min_bucket_reso > dataset.max_bucket_reso:
        yield "dataset.min_bucket_reso", "is larger than dataset.max_bucket_reso"
    for name, source in dataset.sources.items():
        if source.captions == "tagger" and not dataset.tagger_model:
            yield f"dataset.sources.{name}.captions", 'is "tagger"; set dataset.tagger_model to its ONNX file'
        if source.captions == "alike" and not source.regularization:
            yield f"dataset.sources.{name}.captions", 'is "alike", which is for a source with regularization = true'


def _retries(recipe: Recipe) -> Iterator[Conflict]:
    """Find retries that could not start.

    They are read after a fault, hours into a training.
    """
    for number, change in enumerate(recipe.guards.retry, start=1):
        where = f"guards.retry.{number}"
        if "epochs" in change:
            yield where, "changes training.epochs; a retry takes steps"
            continue
        try:
            retried = recipe.retried(change)
        except ValidationError as error:
            for item in error.errors():
                key = ".".join(str(part) for part in item["loc"] if not str(part).startswith("function-"))
                yield where, f"changes training.{key}: {item['msg'][:1].lower()}{item['msg'][1:]}"
            continue
        before = {*validate_texts.check(recipe), *limits.check(recipe), *_training(recipe)}
        for key, message in (*validate_texts.check(retried), *limits.check(retried), *_training(retried)):
            if (key, message) not in before:
                yield where, f"makes {key} wrong: it {message}"
