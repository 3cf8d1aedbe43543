"""Promises of a recipe: ``expect``, and the size of a resize."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.errors import Problem
from orchestrator.plan import estimate

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from orchestrator.plan.inputs import ProjectInputs
    from orchestrator.recipe import Recipe


def broken(recipe: Recipe, inputs: ProjectInputs, origin: Mapping[str, str]) -> Iterator[Problem]:
    """Yield each promise that the trained file will not keep.

    The check after the training is the same one, hours later.
    """
    yield from _too_small(recipe, inputs)
    if not (recipe.expect.tensor_bytes or recipe.expect.modules):
        return
    predicted = estimate.tensors(recipe, inputs)
    if predicted is None:
        return
    for key, unit in (("tensor_bytes", "bytes of tensors"), ("modules", "modules")):
        promised, planned = getattr(recipe.expect, key), getattr(predicted, key)
        if promised is not None and promised != planned:
            what = f"promises {promised:,} {unit}; this network has {planned:,}"
            file = origin.get(f"expect.{key}") or origin.get("expect", "")
            cure = f'set {planned}, or leave the promise out: unset = ["expect"]'
            yield Problem(f"{recipe.name}: expect.{key}", what, f"set in {file}: {cure}" if file else cure)


def _too_small(recipe: Recipe, inputs: ProjectInputs) -> Iterator[Problem]:
    """Yield a problem if resize.size_mb is too small for rank 1."""
    resize = recipe.resize
    if resize is None or resize.size_mb is None or recipe.merge.zeroed == "prune":  # pruned modules take nothing
        return
    conv = None if recipe.network.conv_dim is None else 1
    network = recipe.network.model_copy(update={"dim": 1, "conv_dim": conv})
    training = recipe.training.model_copy(update={"save_precision": resize.save_precision})
    least = estimate.tensors(recipe.model_copy(update={"network": network, "training": training}), inputs)
    if least is not None and least.tensor_bytes > resize.size_mb * 2**20:
        what = f"is {resize.size_mb:g}; rank 1 everywhere takes {least.tensor_bytes / 2**20:.2f} MiB"
        yield Problem(
            f"{recipe.name}: resize.size_mb", what, 'allow more, or drop modules of weight 0: merge.zeroed = "prune"'
        )
