"""Find values of merge, resize, render and select that cannot work."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from orchestrator.errors import OrchestratorError, near_miss
from orchestrator.models import registry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.recipe import Network, Recipe
    from orchestrator.recipe.base import Conflict

_NORMALIZED = ("locon", "loha", "lokr")
_RESIZABLE = ("lora", "locon", "dylora")
_NONLINEAR = ("diag-oft", "boft")
_WITHOUT_WEIGHTS = 'leave them out (unset = ["block_weights"]), or train another family'


def check(recipe: Recipe) -> Iterator[Conflict]:
    """Find impossible values for the steps after the training."""
    yield from _merge(recipe)
    yield from _resize(recipe)
    yield from _render(recipe)
    yield from _select(recipe)


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


def _render(recipe: Recipe) -> Iterator[Conflict]:
    cover = recipe.release.cover
    if cover and recipe.render.prompts and cover not in recipe.render.prompts:
        yield "release.cover", f'is "{cover}"{near_miss(cover, recipe.render.prompts)}; names one of render.prompts'
    for name, prompt in recipe.render.prompts.items():
        for word in re.findall(r"\{(\w+)\}", prompt.prompt):
            if word != "trigger":
                yield (
                    f"render.prompts.{name}.prompt",
                    f"has {{{word}}}{near_miss(word, ['trigger'])}; {{trigger}} is the only one",
                )
    for where, side in recipe.render.sides().items():
        if side % 8:
            yield where, f"is {side}; sides of images are multiples of 8"


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


def _dora(network: Network) -> bool:
    """Return whether the network saves dora_scale.

    It normalizes the sum of weight and delta, so that no factor scales the delta alone.
    """
    return bool(network.args.get("dora_wd")) and network.family in _NORMALIZED
