"""Find combinations of recipe values that cannot work."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pydantic import ValidationError

from orchestrator.errors import OrchestratorError, near_miss
from orchestrator.models import registry
from orchestrator.models.registry import ARCHITECTURES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.recipe import Network, Recipe, Training

Conflict = tuple[str, str]  # dotted key, message

_TUCKER = ("locon", "loha", "lokr")
_RESIZABLE = ("lora", "locon", "dylora")
_NONLINEAR = ("diag-oft", "boft")
_WITHOUT_WEIGHTS = 'leave them out (unset = ["block_weights"]), or train another family'


def check(recipe: Recipe) -> list[Conflict]:
    """Return every impossible combination as (dotted key, message)."""
    return [
        *_strings(recipe),
        *_network(recipe),
        *_training(recipe),
        *_dataset(recipe),
        *_merge(recipe),
        *_resize(recipe),
        *_render(recipe),
        *_select(recipe),
        *_retries(recipe),
    ]


def _strings(recipe: Recipe) -> Iterator[Conflict]:
    """Find values that a trainer would read as options."""
    training, network = recipe.training, recipe.network
    values: dict[str, object] = {
        f"training.{key}": getattr(training, key) for key in ("optimizer", "lr_scheduler", "log_prefix")
    }
    values |= {f"training.options.{key}": value for key, value in training.options.items()}
    values |= {f"training.optimizer_args.{key}": value for key, value in training.optimizer_args.items()}
    values |= {f"network.args.{key}": value for key, value in network.args.items()}
    values |= {"base.checkpoint": recipe.base.checkpoint, "base.vae": recipe.base.vae, "network.weights": network.weights}
    values |= {f"base.files.{name}": file.file for name, file in recipe.base.files.items()}
    values["render.sampler"] = recipe.render.sampler
    values |= {f"merge.options.{key}": value for key, value in recipe.merge.options.items()}
    values |= {f"resize.options.{key}": value for key, value in (recipe.resize.options if recipe.resize else {}).items()}
    for key, value in values.items():
        for text in value if isinstance(value, tuple) else (value,):
            if isinstance(text, str) and text.startswith("-"):
                yield key, f"is {text!r}; a value that begins with - would be read as an option"
            elif isinstance(text, str) and not text.isprintable():
                yield key, f"is {text!r}; control characters have no meaning here"
    yield from _python(recipe)


_IMPORTED: tuple[str, ...] = ("torch.optim", "bitsandbytes.optim", "transformers.optimization", "dadaptation", "prodigyopt")
_IMPORTED += ("prodigyplus", "lion_pytorch", "schedulefree", "pytorch_optimizer", "came_pytorch", "adv_optm", "heavyball")


def _python(recipe: Recipe) -> Iterator[Conflict]:
    """Find values that make a trainer import a module. Only an optimizer may."""
    training = recipe.training
    values: dict[str, object] = {"training.optimizer": training.optimizer, "training.lr_scheduler": training.lr_scheduler}
    values["training.options.lr_scheduler_type"] = training.options.get("lr_scheduler_type", "")
    for key, value in values.items():
        if not isinstance(value, str):
            continue  # the trainer's own check names the values that it takes
        if value and not all(part.isidentifier() for part in value.split(".")):
            yield key, f"is {value!r}; takes a name, or a class as torch.optim.AdamW"
        elif "." in value and ("._" in value or not value.startswith(tuple(f"{module}." for module in _IMPORTED))):
            yield key, f"is {value!r}, which the trainer would import; of modules that hold optimizers: {', '.join(_IMPORTED)}"
    for key, names in (("training.optimizer_args", [*training.optimizer_args]), ("network.args", [*recipe.network.args])):
        for name in names:
            if not name.isidentifier():
                yield f"{key}.{name}", "is not the name of an argument"


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
    """Find patterns of layers that are no regular expressions."""
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
        yield "training.unet_lr", 'training.train = "text_encoder" does not train the U-Net'
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


def _dora(network: Network) -> bool:
    """Return whether the network saves dora_scale.

    It normalizes the sum of weight and delta, so that no factor scales the delta alone.
    """
    return bool(network.args.get("dora_wd")) and network.family in _TUCKER


def _merge(recipe: Recipe) -> Iterator[Conflict]:
    network = recipe.network
    if recipe.merge.options and recipe.merge.tool != "sd-scripts":
        yield "merge.options", 'are those of sd-scripts; set merge.tool = "sd-scripts", or leave them out'
    if recipe.block_weights is not None:
        try:
            parsed = recipe.weights()
            weights = [*parsed.by_name().values(), parsed.outside]
        except OrchestratorError as error:
            # A recipe of another architecture usually has them from a part that is for SD1.5.
            other = recipe.base.architecture != registry.DEFAULT and not isinstance(recipe.block_weights, dict)
            way = '; or leave them out: unset = ["block_weights"]' if other else ""
            for problem in error.problems:
                key = "merge.order" if problem.where == "order" else "block_weights"
                yield key, problem.what + (f"; {problem.hint}" if problem.hint else "") + way
        else:
            left = {1, 0} if recipe.merge.zeroed == "prune" else {1}  # no tensor of such a module is multiplied
            if _dora(network) and not left.issuperset(weights):
                yield "block_weights", f"a {network.family} with dora_wd cannot be scaled by a tensor; {_WITHOUT_WEIGHTS}"
            if recipe.merge.compat and any(weight < 0 for weight in weights):
                yield "block_weights", f"negative weights are an error in {recipe.merge.compat}; leave merge.compat out"
        if network.family in _NONLINEAR:
            yield "block_weights", f"{network.family} cannot be scaled by a tensor; {_WITHOUT_WEIGHTS}"


def _resize(recipe: Recipe) -> Iterator[Conflict]:
    network, resize = recipe.network, recipe.resize
    if resize is None:
        return
    if network.family not in _RESIZABLE:
        yield "resize", f"a {network.family} has no single pair of factors to compress; lora and locon do"
    elif _dora(network):
        yield "resize", "dora_wd saves more than a product of factors; leave one of them out"
    elif network.tucker:
        yield "resize", "a Tucker LoCon has three factors; compressing it needs `convert --to plain` first"
    methods = resize.methods()
    if len(methods) > 1:
        yield "resize", f"takes one of {', '.join(methods)}"
    if not methods and resize.new_rank is None:
        yield "resize", "has neither sv_ratio, sv_fro, sv_cumulative, size_mb nor new_rank"
    if resize.options and resize.tool != "sd-scripts":
        yield "resize.options", 'are those of sd-scripts; set resize.tool = "sd-scripts", or leave them out'


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
        known = {*_strings(recipe), *_training(recipe)}
        for key, message in (*_strings(retried), *_training(retried)):
            if (key, message) not in known:
                yield where, f"makes {key} wrong: it {message}"


def _select(recipe: Recipe) -> Iterator[Conflict]:
    select, training = recipe.select, recipe.training
    if not training.steps:  # of epochs, not counted yet
        return
    chosen: dict[str, tuple[int, ...]] = {"select.step": (select.step,) if select.step is not None else ()}
    chosen["select.steps"] = select.steps if isinstance(select.steps, tuple) else ()
    saved = recipe.saved_steps()
    for key, steps in chosen.items():
        missing = [step for step in steps if step not in saved]
        if missing:
            yield key, f"lists {', '.join(map(str, missing))}; the training saves {', '.join(map(str, saved))}"
    if (select.steps or select.keep) and training.save_every_n_steps is None:
        yield "select.steps" if select.steps else "select.keep", "needs training.save_every_n_steps: only the last is saved"
    if select.steps and not recipe.render.prompts:
        yield "select.steps", "needs render.prompts: a step is shown by its images"


def _render(recipe: Recipe) -> Iterator[Conflict]:
    cover = recipe.release.cover
    if cover and recipe.render.prompts and cover not in recipe.render.prompts:
        yield "release.cover", f'is "{cover}"{near_miss(cover, recipe.render.prompts)}; names one of render.prompts'
    for key in ("width", "height"):
        sides = {f"render.{key}": getattr(recipe.render, key)}
        sides |= {f"render.prompts.{name}.{key}": getattr(prompt, key) for name, prompt in recipe.render.prompts.items()}
        for where, side in sides.items():
            if side is not None and side % 8:
                yield where, f"is {side}; sides of images are multiples of 8"
