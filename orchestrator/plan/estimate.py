"""Estimates made before anything runs: sizes, modules, epochs, disk space."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator.dataset.buckets import epochs as dataset_epochs
from orchestrator.engines.sdscripts import training_states
from orchestrator.models.registry import ARCHITECTURES
from orchestrator.weights.families import expected_tensors

if TYPE_CHECKING:
    from orchestrator.plan.inputs import Counts, ProjectInputs
    from orchestrator.recipe import Recipe

STATE_FACTOR = 6
"""Bytes of a state per byte of 16-bit weights: the weights and two moments of AdamW in fp32 (8-bit optimizers need less)."""


def tensors(recipe: Recipe, inputs: ProjectInputs) -> expected_tensors.Predicted | None:
    """Return the predicted tensors of a training, or None."""
    model = expected_tensors.of(recipe, inputs.find(recipe.base.checkpoint))
    return expected_tensors.predict(recipe, model)


def predict(recipe: Recipe, inputs: ProjectInputs) -> dict[str, Any]:
    """Return the numbers of a recipe, None for each unknown one."""
    predicted = tensors(recipe, inputs)
    dataset = inputs.counts(recipe)
    size = predicted.tensor_bytes if predicted is not None else None
    return {
        "tensor_bytes": size,
        "modules": predicted.modules if predicted is not None else None,
        "train_steps": recipe.training.steps,
        "saved_steps": len(drawn_steps(recipe)),
        "saved_images": len(drawn_steps(recipe)) * len(recipe.render.prompts),
        "epochs": dataset_epochs(dataset.batches_per_epoch, recipe.training) if dataset.images else None,
        "images": dataset.images,
        "disk_bytes": disk_bytes(recipe, size, dataset) + dataset.disk_bytes if size is not None else None,
    }


def drawn_steps(recipe: Recipe) -> tuple[int, ...]:
    """Return the saved steps that `run` draws."""
    steps = recipe.select.steps
    return recipe.saved_steps() if steps == "all" else steps


def disk_bytes(recipe: Recipe, tensor_bytes: int, dataset: Counts) -> int:
    """Return the most disk bytes of a recipe at one time, without its dataset.

    These are the files of each step, checkpoints, states, caches and rendered images, and 10 % for the rest. Latents take a
    twelfth of their images (4 numbers of 4 bytes for 64 pixels of 3 bytes), twice with mirrored ones.
    """
    training = recipe.training
    files = 2 + (recipe.block_weights is not None) + (recipe.resize is not None)
    files += len(recipe.saved_steps()) - 1
    drawn = len(drawn_steps(recipe))
    files += drawn * ((recipe.block_weights is not None) + (recipe.resize is not None))
    every = training.state_every_n_steps
    states_kept = training_states.kept(training.keep_states, training.steps, every) + 1 if every else 0
    states = states_kept * STATE_FACTOR * tensor_bytes
    latents = dataset.disk_bytes // 6 if training.cache_latents == "disk" else 0
    entry = ARCHITECTURES[recipe.base.architecture]
    texts = dataset.images * entry.cached_text_bytes if training.cache_text_encoder_outputs == "disk" else 0
    # Rendered, in a grid, in the release. Each saved step is rendered and in a grid.
    images = (3 + 2 * drawn) * sum(3 * image.width * image.height for image in recipe.drawn_prompts().values())
    return int((files * tensor_bytes + states + latents + texts + images) * 1.1)
