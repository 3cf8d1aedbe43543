"""Turn recipes into a plan: steps, sources, needs, outputs, keys.

Planning computes only. Digests of files, engine versions and the images of a dataset come from ``Inputs``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from orchestrator.dataset.sources import key_params
from orchestrator.errors import Problem, RecipeError
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


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps in topological order: each after the steps that it needs."""

    steps: tuple[Step, ...]
    recipes: dict[str, Recipe]
    by_name: dict[str, Step] = field(init=False)
    _positions: dict[str, int] = field(init=False, repr=False)
    _last: dict[str, Step] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_name", {step.name: step for step in self.steps})
        object.__setattr__(self, "_positions", {step.name: position for position, step in enumerate(self.steps)})
        object.__setattr__(self, "_last", {step.recipe: step for step in self.steps if step.recipe})

    def of(self, recipe: str) -> list[Step]:
        """Return the steps of one recipe, with its shared dataset."""
        names: set[str] = set()
        todo = [self._last[recipe].name] if recipe in self._last else []
        while todo:
            name = todo.pop()
            if name not in names:
                names.add(name)
                todo += self.by_name[name].needs
        return [self.by_name[name] for name in sorted(names, key=self._positions.__getitem__)]

    def shared(self) -> list[Step]:
        """Return the steps of several recipes: grids, and their common release."""
        return [step for step in self.steps if not step.recipe and step.kind is not StepKind.DATASET]


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
        for step in _steps(recipe, inputs, steps):
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


def _unused(tool: Merge | Resize) -> set[str]:
    """Return options of an unused tool, which do not change the result."""
    return set() if tool.tool == "sd-scripts" else {"options"}


def _version(tool: Merge | Resize, inputs: Inputs) -> str:
    """Return the tool's part of a key, "" for our own tools."""
    return f"{tool.tool} {inputs.engine_version(tool.tool)}" if tool.tool == "sd-scripts" else ""


def _steps(recipe: Recipe, inputs: Inputs, planned: Mapping[str, Step]) -> list[Step]:
    """Return the steps of one recipe, from dataset to release."""
    name, file = recipe.name, f"{recipe.name}.safetensors"
    engine = f"{recipe.engine} {inputs.engine_version(recipe.engine)}"
    models = [inputs.file("checkpoint", recipe.base.checkpoint, recipe.base.sha256)]
    if recipe.base.vae:
        models.append(inputs.file("vae", recipe.base.vae, recipe.base.vae_sha256))
    models += [inputs.file(role, file.file, file.sha256) for role, file in sorted(recipe.base.files.items())]
    data_params = key_params(recipe.dataset)  # without the files, which are sources
    images = inputs.images(recipe)
    data = make_step(f"{recipe.dataset.name}/dataset", StepKind.DATASET, data_params, (), ("**/*",), sources=images)
    data = planned.get(data.name, data) if data.key == getattr(planned.get(data.name), "key", "") else data

    base = {"architecture": recipe.base.architecture, "clip_skip": recipe.base.clip_skip}
    params: JSON = {"base": base, "network": _dump(recipe.network), "training": _dump(recipe.training, _NOT_IN_KEY)}
    params["retry"] = list(recipe.guards.retry)
    weights_file = [inputs.file("weights", recipe.network.weights, "")] if recipe.network.weights else []
    train = make_step(
        f"{name}/train",
        StepKind.TRAIN,
        params,
        [data],
        (file,),
        lane=Lane.GPU,
        sources=[*models, *weights_file],
        engine=engine,
        recipe=name,
    )
    steps, last = [data, train], train
    if recipe.block_weights is not None:
        weights = recipe.weights()
        params = {
            "block_weights": weights.plain(),
            "architecture": recipe.base.architecture,
            **_dump(recipe.merge, _unused(recipe.merge) | {"order"}),
            "unmapped": weights.outside,
        }
        tool = _version(recipe.merge, inputs)
        last = make_step(f"{name}/merge", StepKind.MERGE, params, [last], (file,), engine=tool, recipe=name)
        steps.append(last)
    if recipe.resize is not None:
        params = _dump(recipe.resize, _unused(recipe.resize))
        tool = _version(recipe.resize, inputs)
        last = make_step(f"{name}/resize", StepKind.RESIZE, params, [last], (file,), engine=tool, recipe=name)
        steps.append(last)
    needs = [last]
    if recipe.render.prompts:
        rendered = tuple(f"{prompt}.png" for prompt in recipe.render.prompts)
        params = {"render": _dump(recipe.render), "base": base, "triggers": list(recipe.triggers())}
        render = make_step(
            f"{name}/render",
            StepKind.RENDER,
            params,
            [last],
            rendered,
            lane=Lane.GPU,
            sources=models,
            engine=engine,
            recipe=name,
        )
        steps.append(render)
        needs.append(render)
    whole = _dump(recipe, {"guards"})
    del whole["training"]["epochs"]
    if not recipe.base.files:
        del whole["base"]["files"]  # keys of recipes that have none stay those of earlier versions
    outputs = (file, "README.md", "manifest.json", "SHA256SUMS", "**/*")
    templates = _templates(recipe, inputs)
    steps.append(
        make_step(f"{name}/release", StepKind.RELEASE, {"recipe": whole}, needs, outputs, sources=templates, recipe=name)
    )
    return steps


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
