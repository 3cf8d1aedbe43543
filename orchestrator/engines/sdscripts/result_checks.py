"""Comparison of a training's log and file with recipe and prediction."""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any

from orchestrator.engines.sdscripts import arguments, network_args, training_states, typed_options
from orchestrator.engines.sdscripts.output_parser import OutputParser
from orchestrator.errors import Problem, RecipeError, counted
from orchestrator.models.registry import ARCHITECTURES, SMALL_BASE
from orchestrator.system.child import LOG
from orchestrator.system.files import read_json
from orchestrator.weights.families import expected_tensors
from orchestrator.weights.io.non_finite import non_finite_tensors
from orchestrator.weights.io.safetensors_io import read_header

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from orchestrator.recipe import Recipe
    from orchestrator.weights.io.safetensors_io import Header

Value = int | float | str
_PRECISION = {"float": "F32", "fp16": "F16", "bf16": "BF16"}
MANIFEST, EXPECTED = "dataset.json", "expected.json"


def expected(recipe: Recipe, checkpoint: Path | None, dataset: Path | None) -> dict[str, Value]:
    """Return the expected banner, by the names of ``OutputParser``.

    Args:
        recipe: the training's recipe.
        checkpoint: the base model if its own layers decide about modules (embedded engine).
        dataset: the built dataset. Its dataset.json holds the predicted numbers of images and batches.
    """
    network, training = recipe.network, recipe.training
    accumulation = training.gradient_accumulation_steps or 1
    values: dict[str, Value] = {"steps": training.steps, "gradient accumulation": accumulation}
    if network.family == "lora":
        values |= {"dim": network.dim, "alpha": float(network.alpha)}
        if network.conv_dim is not None:
            # networks/lora.py 435-442: without conv_alpha it is 1
            values |= {"conv_dim": network.conv_dim, "conv_alpha": float(network.conv_alpha or 1)}
    else:
        values["algo"] = network.family
    # The trainer creates modules for both and applies those that it trains (train_network.py 704-707).
    both = recipe.model_copy(update={"training": training.model_copy(update={"train": "both"})})
    predicted = expected_tensors.predict(both, expected_tensors.of(recipe, checkpoint))
    if predicted is not None:
        values |= {"text encoder modules": predicted.text_encoder, "U-Net modules": predicted.unet}
    return values | (_dataset(dataset / MANIFEST, training.steps, accumulation) if dataset else {})


def _dataset(manifest: Path, steps: int, accumulation: int) -> dict[str, Value]:
    """Return the predicted images x repeats, batches and epochs."""
    try:
        fields = json.loads(manifest.read_text("utf-8"))
        images, regularization = int(fields["images_x_repeats"]), int(fields["regularization_x_repeats"])
        batches = int(fields["batches_per_epoch"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    values: dict[str, Value] = {"images": images, "regularization": regularization, "batches per epoch": batches}
    values |= {"validation images": len(held_out)} if (held_out := fields.get("held_out")) else {}
    if batches:
        values["epochs"] = math.ceil(steps / math.ceil(batches / accumulation))
    return values


def read_expected(work: Path) -> dict[str, Value]:
    """Return ``expected`` from the start of the training in ``work``.

    {} without a valid file.
    """
    return read_json(work / EXPECTED)


def finished(recipe: Recipe, work: Path, log: str, checkpoint: Path | None) -> list[Problem]:
    """Return the reasons why a training that exited 0 failed."""
    path = work / f"{recipe.name}.safetensors"
    where, hint = str(path), f"log: {work / LOG}"
    reasons = list(_log(log, recipe))
    try:
        header = read_header(path)
    except RecipeError as error:
        reason = error.problems[0].what.removeprefix("cannot be read: ")
        return [Problem(where, text, hint) for text in (*reasons, f"cannot be used: {reason}")]
    started = work / arguments.DATASET  # rewritten before every start
    if started.is_file() and path.stat().st_mtime < started.stat().st_mtime - 1:
        reasons.append("is older than this run: the trainer wrote no file")
    reasons += _tensors(recipe, header, checkpoint)
    reasons += _metadata(recipe, header.metadata, _trainer_steps(log, recipe.training.steps))
    if bad := non_finite_tensors(path):
        reasons.append(f"{counted(len(bad), 'tensor', 'hold')} NaN or infinity, as {bad[0]}")
    return [Problem(where, reason, hint) for reason in reasons]


def _log(log: str, recipe: Recipe) -> Iterator[str]:
    """Yield the problems of the last attempt in a log.

    No success, another step count, a loss that is not finite.
    """
    log = log[log.rfind("import network module: ") :] if "import network module: " in log else log
    if "model saved." not in log:
        yield 'the log lacks "model saved."'
    parser, fault, steps = OutputParser(), "", 0
    for piece in re.split(r"[\r\n]+", log):
        progress = parser(piece)
        if progress is not None:
            fault, steps = progress.fault or fault, max(steps, progress.done)
    if fault:
        yield fault
    elif steps != recipe.training.steps:
        yield f"{steps} steps were trained; training.steps is {recipe.training.steps}"


def _tensors(recipe: Recipe, header: Header, checkpoint: Path | None) -> Iterator[str]:
    """Compare names, shapes and types of the tensors with the prediction."""
    tensors, expected = header.entries, recipe.expect.tensor_bytes
    if expected is not None and header.tensor_bytes != expected:
        yield f"holds {header.tensor_bytes} bytes of tensors; expect.tensor_bytes is {expected}"
    types = sorted({entry.dtype for entry in tensors.values()})
    dtype = _PRECISION[recipe.training.save_precision]
    if types != [dtype]:
        yield f"holds {', '.join(types) or 'nothing'}; training.save_precision asks for {dtype}"
    model = expected_tensors.of(recipe, checkpoint)
    if expected_tensors.predict(recipe, model) is None:
        return
    names: dict[str, tuple[int, ...]] = {}
    for module in expected_tensors.modules(recipe, model):
        shapes = expected_tensors.of_layer(recipe, module) or {}
        names |= {f"{module.name}.{suffix}": shape for suffix, shape in shapes.items()}
    missing, extra = names.keys() - tensors.keys(), tensors.keys() - names.keys()
    if missing:
        yield f"lacks {counted(len(missing), 'expected tensor')}, as {min(missing)}"
    if extra:
        yield f"holds {counted(len(extra), 'unexpected tensor')}, as {min(extra)}"
    other = [
        name for name in sorted(names.keys() & tensors.keys()) if math.prod(tensors[name].shape) != math.prod(names[name])
    ]
    if other:
        first, shape, predicted = other[0], list(tensors[other[0]].shape), list(names[other[0]])
        yield f"{counted(len(other), 'tensor', 'have')} another shape than expected, as {first}: {shape}, expected {predicted}"


def _trainer_steps(log: str, steps: int) -> int:
    """Return ss_steps of a training by the trainer's own count.

    It is lower than ``steps`` after a resume in a later epoch (see ``training_states``).
    """
    last = log[log.rfind("import network module: ") :]
    skipped, batches = re.search(r"^skipping (\d+) steps", last, re.MULTILINE), training_states.BATCHES.search(last)
    if skipped is None or batches is None:
        return steps
    start, epoch = int(skipped[1]), int(batches[1])
    lost = training_states.lost(start, epoch)
    return math.ceil(steps / epoch) * epoch - lost if lost else steps


def _metadata(recipe: Recipe, metadata: dict[str, str], steps: int) -> Iterator[str]:
    """Compare the file's metadata with the recipe."""
    network, training, entry = recipe.network, recipe.training, ARCHITECTURES[recipe.base.architecture]
    version, modelspec = entry.v_prediction if training.options.get("v_parameterization") else ("", "")
    if recipe.base.is_small:
        version = modelspec = SMALL_BASE
    values: dict[str, Any] = {
        "ss_base_model_version": version or entry.base_model_version,
        "modelspec.architecture": f"{modelspec or entry.modelspec}/lora",
        "ss_steps": steps,
        "ss_max_train_steps": training.steps,
        "ss_network_module": network_args.module(recipe),
        "ss_network_dim": network.dim,
        "ss_network_alpha": network.alpha,
        "ss_seed": training.seed,
        "ss_mixed_precision": training.mixed_precision,
        "ss_lr_scheduler": training.lr_scheduler,
        "ss_output_name": recipe.name,
    }
    if training.learning_rate is not None:
        values["ss_learning_rate"] = training.learning_rate
    if training.text_encoder_lr is not None:
        values["ss_text_encoder_lr"] = training.text_encoder_lr
    if not entry.fixed_clip_skip:
        values["ss_clip_skip"] = recipe.base.clip_skip
    values |= {f"ss_{name}": value for name, value in typed_options.of(recipe).items()}
    if training.relative_step:
        del values["ss_lr_scheduler"]  # the trainer replaces it by adafactor's own
    for name, value in values.items():
        text = metadata.get(name)
        if text is not None and not _same(text, value):
            yield f"has {name} = {text}; the recipe has {value}"
    try:
        args = json.loads(metadata.get("ss_network_args", "{}"))
    except ValueError:
        args = {}
    for argument in network_args.of(recipe, ""):
        name, _, value = argument.partition("=")
        if name in args and not _same(str(args[name]), value):
            yield f"has network_args {name} = {args[name]}; the recipe has {value}"


def _same(text: str, value: Any) -> bool:
    """Return whether a text of the metadata means the value.

    A list of one item counts as the item.
    """
    if text == str(value):
        return True
    text = text.strip("[]")
    if isinstance(value, tuple):
        items = text.split(",")
        return len(items) == len(value) and all(map(_same, items, value))
    try:
        return math.isclose(float(text), float(value), rel_tol=1e-9)
    except (TypeError, ValueError):
        return text == str(value)
