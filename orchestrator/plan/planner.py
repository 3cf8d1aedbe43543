"""Turn recipes into a plan: steps, sources, needs, outputs, keys.

Planning computes only. Digests of files, engine versions and the images of a dataset come from ``Inputs``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from orchestrator.dataset.sources import key_params
from orchestrator.errors import Problem, RecipeError
from orchestrator.plan.plan import Plan
from orchestrator.plan.step import JSON, Lane, Step, StepKind, StepSource, make_step

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from orchestrator.recipe import Merge, Recipe, Resize

# Keys of [training] that do not change the trained file.
_NOT_IN_KEY = {
    "epochs",  # planned as steps
    "data_loader_workers",
    "persistent_workers",
    "log_prefix",
    "wandb",
    "keep_states",
    "state_every_n_steps",
    "sample_every_n_steps",
    "blocks_to_swap",
}


class Inputs(Protocol):
    """Files and versions that planning reads. It changes nothing."""

    def images(self, recipe: Recipe) -> Sequence[StepSource]:
        """Return the original images and captions of the recipe's dataset."""

    def file(self, role: str, name: str, sha256: str) -> StepSource:
        """Return a model file or folder of templates by its name in a recipe."""

    def engine_version(self, name: str) -> str:
        """Return the version of an engine."""


def make_plan(recipes: Iterable[Recipe], inputs: Inputs) -> Plan:
    """Plan every recipe, and the grids and common release of several.

    Raises:
        RecipeError: recipes describe a dataset or release of one name differently.
    """
    steps: dict[str, Step] = {}
    problems: list[Problem] = []
    by_name = {recipe.name: recipe for recipe in recipes}
    for recipe in by_name.values():
        for step in _steps(recipe, inputs):
            if steps.setdefault(step.name, step).key != step.key:
                message = f"the recipes of this run describe {step.name} in two ways"
                problems.append(Problem(recipe.name, message, "give one of them another dataset.name, or run them apart"))
    if len(by_name) > 1:
        for step in _common_steps(list(by_name.values()), steps, inputs):
            if step.name in steps:
                problems.append(Problem(step.name, "is the name of two steps", "give release.collection another name"))
            steps[step.name] = step
    if problems:
        raise RecipeError(problems)
    return Plan(tuple(steps.values()), by_name)


def _dump(table: Any, exclude: set[str] | None = None) -> JSON:
    return dict(table.model_dump(mode="json", exclude=exclude))


def _leave_out_unset(params: JSON) -> None:
    """Leave unset tables of later versions out, so that keys stay the same."""
    if params["training"]["validation"] is None:
        del params["training"]["validation"]
    if "select" in params:
        chosen = params.pop("select")
        if chosen["step"] is not None:
            params["select"] = {key: chosen[key] for key in ("step", "reason")}


def _unused(tool: Merge | Resize) -> set[str]:
    """Return options of an unused tool, which do not change the result."""
    return set() if tool.tool == "sd-scripts" else {"options"}


def _version(tool: Merge | Resize, inputs: Inputs) -> str:
    """Return the tool's part of a key, "" for our own tools."""
    return f"{tool.tool} {inputs.engine_version(tool.tool)}" if tool.tool == "sd-scripts" else ""


def _steps(recipe: Recipe, inputs: Inputs) -> list[Step]:
    """Return the steps of one recipe, from dataset to release."""
    name, file = recipe.name, f"{recipe.name}.safetensors"
    engine = f"{recipe.engine} {inputs.engine_version(recipe.engine)}"
    models = _models(recipe, inputs)
    data_params = key_params(recipe.dataset, recipe.training.validation)  # without the files, which are sources
    images = inputs.images(recipe)
    data = make_step(f"{recipe.built_dataset()}/dataset", StepKind.DATASET, data_params, (), ("**/*",), sources=images)
    last = _train(recipe, inputs, models, engine, data)
    steps = [data, last]
    # The file of a saved step that the first step after the training reads.
    chosen: JSON = {"step": recipe.select.step} if recipe.step_file() != file else {}
    if recipe.block_weights is not None:
        weights = recipe.weights()
        params = {
            "block_weights": weights.plain(),
            "architecture": recipe.base.architecture,
            **_dump(recipe.merge, _unused(recipe.merge) | {"order"}),
            "unmapped": weights.outside,
            **chosen,
        }
        chosen = {}
        tool = _version(recipe.merge, inputs)
        last = make_step(f"{name}/merge", StepKind.MERGE, params, [last], (file,), engine=tool, recipe=name)
        steps.append(last)
    if recipe.resize is not None:
        params = {**_dump(recipe.resize, _unused(recipe.resize)), **chosen}
        chosen = {}
        tool = _version(recipe.resize, inputs)
        last = make_step(f"{name}/resize", StepKind.RESIZE, params, [last], (file,), engine=tool, recipe=name)
        steps.append(last)
    needs = [last]
    if recipe.render.prompts:
        needs.append(_render(recipe, models, engine, last, chosen))
    return [*steps, *needs[1:], _release(recipe, inputs, needs)]


def _train(recipe: Recipe, inputs: Inputs, models: list[StepSource], engine: str, data: Step) -> Step:
    """Return the step that trains on the dataset of the step ``data``."""
    name, file = recipe.name, f"{recipe.name}.safetensors"
    params: JSON = {"base": _base(recipe), "network": _dump(recipe.network), "training": _dump(recipe.training, _NOT_IN_KEY)}
    _leave_out_unset(params)
    params["retry"] = list(recipe.guards.retry)
    weights_file = [inputs.file("weights", recipe.network.weights, "")] if recipe.network.weights else []
    return make_step(
        f"{name}/train",
        StepKind.TRAIN,
        params,
        [data],
        (file, f"{name}-step*.safetensors") if len(recipe.saved_steps()) > 1 else (file,),
        lane=Lane.GPU,
        sources=[*models, *weights_file],
        engine=engine,
        recipe=name,
    )


def _release(recipe: Recipe, inputs: Inputs, needs: list[Step]) -> Step:
    """Return the step that releases the weights and images of ``needs``."""
    name = recipe.name
    whole = _dump(recipe, {"guards"})
    del whole["training"]["epochs"]
    _leave_out_unset(whole)
    if not recipe.base.files:
        del whole["base"]["files"]  # keys of recipes that have none stay those of earlier versions
    outputs = (f"{name}.safetensors", "README.md", "manifest.json", "SHA256SUMS", "**/*")
    sources = _templates(recipe, inputs)
    return make_step(f"{name}/release", StepKind.RELEASE, {"recipe": whole}, needs, outputs, sources=sources, recipe=name)


def _models(recipe: Recipe, inputs: Inputs) -> list[StepSource]:
    models = [inputs.file("checkpoint", recipe.base.checkpoint, recipe.base.sha256)]
    if recipe.base.vae:
        models.append(inputs.file("vae", recipe.base.vae, recipe.base.vae_sha256))
    return models + [inputs.file(role, file.file, file.sha256) for role, file in sorted(recipe.base.files.items())]


def _base(recipe: Recipe) -> JSON:
    return {"architecture": recipe.base.architecture, "clip_skip": recipe.base.clip_skip}


def _render(recipe: Recipe, models: list[StepSource], engine: str, last: Step | None, chosen: JSON) -> Step:
    """Return the render step of the weights of ``last``."""
    images = tuple(f"{prompt}.png" for prompt in recipe.render.prompts)
    params = {"render": _dump(recipe.render), "base": _base(recipe), "triggers": list(recipe.triggers()), **chosen}
    needs = [last] if last is not None else []
    name = f"{recipe.name}/render"
    return make_step(
        name, StepKind.RENDER, params, needs, images, lane=Lane.GPU, sources=models, engine=engine, recipe=recipe.name
    )


def bare_render(recipe: Recipe, inputs: Inputs) -> Step:
    """Return the step that renders a recipe's prompts without its LoRA."""
    engine = f"{recipe.engine} {inputs.engine_version(recipe.engine)}"
    return _render(recipe, _models(recipe, inputs), engine, None, {})


def _templates(recipe: Recipe, inputs: Inputs) -> list[StepSource]:
    """Return the folder of the recipe's own card templates."""
    return [inputs.file("templates", recipe.release.templates, "")] if recipe.release.templates else []


def _common_steps(recipes: list[Recipe], steps: Mapping[str, Step], inputs: Inputs) -> list[Step]:
    """Return a grid per subject, and the release of all recipes.

    A grid has a row per algorithm.
    """
    grids: list[Step] = []
    for subject in dict.fromkeys(recipe.subject for recipe in recipes):
        rows = [recipe for recipe in recipes if recipe.subject == subject and recipe.render.prompts]
        if rows:
            params: JSON = {
                "rows": [recipe.algorithm for recipe in rows],
                "prompts": [_dump(recipe.render) for recipe in rows],
            }
            needs = [steps[f"{recipe.name}/render"] for recipe in rows]
            images = (f"{subject}_grid.png", f"{subject}_grid.webp")
            grids.append(make_step(f"{subject}/grid", StepKind.RENDER, params, needs, images))
    name = next((recipe.release.collection for recipe in recipes if recipe.release.collection), "release")
    needs = [*(steps[f"{recipe.name}/release"] for recipe in recipes), *grids]
    outputs = ("README.md", "manifest.json", "SHA256SUMS", f"{name}.zip", "*.safetensors", "**/*")
    members = {"name": name, "members": [recipe.name for recipe in recipes]}
    templates = _templates(recipes[0], inputs)
    return [*grids, make_step(f"{name}/release", StepKind.RELEASE, members, needs, outputs, sources=templates)]
