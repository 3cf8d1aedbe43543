"""The read-back contract: what the trainer says and writes is compared with the recipe and with the plan's prediction."""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any

from orchestrator.engines.sdscripts import arguments, network_args, training_states
from orchestrator.engines.sdscripts.output_parser import OutputParser
from orchestrator.errors import Problem, RecipeError
from orchestrator.weights.families import expected_tensors
from orchestrator.weights.io.safetensors_io import non_finite_tensors, read_header

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from orchestrator.recipe import Recipe
    from orchestrator.weights.io.safetensors_io import Header

Value = int | float | str
_PRECISION = {"float": "F32", "fp16": "F16", "bf16": "BF16"}
MANIFEST, EXPECTED = "dataset.json", "expected.json"


def expected(recipe: Recipe, checkpoint: Path | None, dataset: Path | None) -> dict[str, Value]:
    """Return what the banner should say, by the names of ``OutputParser``.

    Args:
        recipe: what is trained.
        checkpoint: the base model (the embedded engine's decides about modules).
        dataset: the built dataset; its dataset.json holds the trainer's numbers as they were predicted.
    """
    network, training = recipe.network, recipe.training
    said: dict[str, Value] = {"steps": training.steps, "gradient accumulation": training.gradient_accumulation_steps or 1}
    if network.family == "lora":
        said |= {"dim": network.dim, "alpha": float(network.alpha)}
        if network.conv_dim is not None:
            # networks/lora.py 435-442: without conv_alpha it is 1
            said |= {"conv_dim": network.conv_dim, "conv_alpha": float(network.conv_alpha or 1)}
    else:
        said["algo"] = network.family
    # The trainer makes modules for both and applies those it trains (train_network.py 704-707).
    both = recipe.model_copy(update={"training": training.model_copy(update={"train": "both"})})
    predicted = expected_tensors.predict(both, expected_tensors.of(recipe, checkpoint))
    if predicted is not None:
        said |= {"text encoder modules": predicted.text_encoder, "U-Net modules": predicted.unet}
    return said | (_dataset(dataset / MANIFEST, training.steps, training.gradient_accumulation_steps or 1) if dataset else {})


def _dataset(manifest: Path, steps: int, accumulation: int) -> dict[str, Value]:
    """Return pictures x repeats, batches and epochs as the dataset step predicted them."""
    try:
        said = json.loads(manifest.read_text("utf-8"))
        images, regularization = int(said["images_x_repeats"]), int(said["regularization_x_repeats"])
        batches = int(said["batches_per_epoch"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    found: dict[str, Value] = {"images": images, "regularization": regularization, "batches per epoch": batches}
    if batches:
        found["epochs"] = math.ceil(steps / math.ceil(batches / accumulation))
    return found


def read_expected(work: Path) -> dict[str, Value]:
    """Return what ``expected`` said when the training in ``work`` was started; empty if nothing was written."""
    try:
        said = json.loads((work / EXPECTED).read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def finished(recipe: Recipe, work: Path, log: str, checkpoint: Path | None) -> list[Problem]:
    """Return why a training that exited 0 is no success; all reasons."""
    path = work / f"{recipe.name}.safetensors"
    where, said = str(path), list(_log(log, recipe))
    try:
        header = read_header(path)
    except RecipeError as error:
        reason = error.problems[0].what.removeprefix("cannot be read: ")
        return [Problem(where, what, f"log: {work / 'log.txt'}") for what in (*said, f"cannot be used: {reason}")]
    started = work / arguments.DATASET  # written anew before every start
    if started.is_file() and path.stat().st_mtime < started.stat().st_mtime - 1:
        said.append("is older than this run: the trainer wrote nothing")
    said += _tensors(recipe, header, checkpoint)
    said += _metadata(recipe, header.metadata, _counted(log, recipe.training.steps))
    if bad := non_finite_tensors(path):
        said.append(f"{len(bad)} tensors hold NaN or infinity, as {bad[0]}")
    return [Problem(where, what, f"log: {work / 'log.txt'}") for what in said]


def _log(log: str, recipe: Recipe) -> Iterator[str]:
    """Yield what is wrong with the last attempt in a log: no success, other step count, lost loss."""
    log = log[log.rfind("import network module: ") :] if "import network module: " in log else log
    if "model saved." not in log:
        yield 'the trainer did not say "model saved."'
    reader, fault, steps = OutputParser(), "", 0
    for piece in re.split(r"[\r\n]+", log):
        found = reader(piece)
        if found is not None:
            fault, steps = found.fault or fault, max(steps, found.done)
    if fault:
        yield fault
    elif steps != recipe.training.steps:
        yield f"{steps} steps were trained, {recipe.training.steps} asked for"


def _tensors(recipe: Recipe, header: Header, checkpoint: Path | None) -> Iterator[str]:
    """Compare names, shapes and types of the tensors with the prediction."""
    tensors, expected = header.entries, recipe.expect.tensor_bytes
    if expected is not None and header.tensor_bytes != expected:
        yield f"holds {header.tensor_bytes} bytes of tensors; expect.tensor_bytes is {expected}"
    types = sorted({entry.dtype for entry in tensors.values()})
    wanted = _PRECISION[recipe.training.save_precision]
    if types != [wanted]:
        yield f"holds {', '.join(types) or 'nothing'}; training.save_precision asks for {wanted}"
    model = expected_tensors.of(recipe, checkpoint)
    if expected_tensors.predict(recipe, model) is None:
        return
    names: dict[str, tuple[int, ...]] = {}
    for module in expected_tensors.modules(recipe, model):
        shapes = expected_tensors.tensors(recipe.network, module) or {}
        names |= {f"{module.name}.{suffix}": shape for suffix, shape in shapes.items()}
    missing, extra = names.keys() - tensors.keys(), tensors.keys() - names.keys()
    if missing:
        yield f"lacks {len(missing)} promised tensors, as {min(missing)}"
    if extra:
        yield f"holds {len(extra)} tensors that nobody promised, as {min(extra)}"
    other = [
        name for name in sorted(names.keys() & tensors.keys()) if math.prod(tensors[name].shape) != math.prod(names[name])
    ]
    if other:
        first, shape, predicted = other[0], list(tensors[other[0]].shape), list(names[other[0]])
        yield f"{len(other)} tensors have other shapes, as {first}: {shape}, predicted {predicted}"


def _counted(log: str, steps: int) -> int:
    """Return ss_steps of a training of ``steps``: as the trainer counts after it was resumed (see states.py)."""
    last = log[log.rfind("import network module: ") :]
    skipped, batches = re.search(r"^skipping (\d+) steps", last, re.MULTILINE), training_states.BATCHES.search(last)
    if skipped is None or batches is None:
        return steps
    begun, length = int(skipped[1]), int(batches[1])
    gone = training_states.lost(begun, length)
    return min(steps, math.ceil(steps / length) * length - gone) if gone else steps


def _metadata(recipe: Recipe, metadata: dict[str, str], counted: int) -> Iterator[str]:
    """Compare what the file says of itself with the recipe."""
    network, training = recipe.network, recipe.training
    asked: dict[str, Any] = {
        "ss_steps": counted,
        "ss_max_train_steps": training.steps,
        "ss_network_module": network_args.module(network.family),
        "ss_network_dim": network.dim,
        "ss_network_alpha": network.alpha,
        "ss_seed": training.seed,
        "ss_mixed_precision": training.mixed_precision,
        "ss_lr_scheduler": training.lr_scheduler,
        "ss_output_name": recipe.name,
    }
    if training.learning_rate is not None:
        asked["ss_learning_rate"] = training.learning_rate
    if training.text_encoder_lr is not None:
        asked["ss_text_encoder_lr"] = training.text_encoder_lr
    if recipe.base.architecture == "sd1":
        asked["ss_clip_skip"] = recipe.base.clip_skip
    if training.relative_step:
        del asked["ss_lr_scheduler"]  # replaced there by adafactor's own
    for name, value in asked.items():
        said = metadata.get(name)
        if said is not None and not _same(said, value):
            yield f"says {name} = {said}; the recipe says {value}"
    try:
        args = json.loads(metadata.get("ss_network_args", "{}"))
    except ValueError:
        args = {}
    for one in network_args.arguments(network, ""):
        name, _, value = one.partition("=")
        if name in args and not _same(str(args[name]), value):
            yield f"says network_args {name} = {args[name]}; the recipe says {value}"


def _same(said: str, value: Any) -> bool:
    """Return whether metadata (always text) means the value; lists of one count as their member."""
    said = said.strip("[]")
    try:
        return math.isclose(float(said), float(value), rel_tol=1e-9)
    except (TypeError, ValueError):
        return said == str(value)
