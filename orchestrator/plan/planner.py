"""Recipes become a plan: a tuple of steps, each with the files it needs and promises, and the key that says what was asked.

Pure: what comes from outside (digests of files, engine versions, the pictures of a dataset) is asked of a ``Inputs`` value.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from orchestrator.dataset.sources import key_params
from orchestrator.errors import Problem, RecipeError
from orchestrator.models import blocks
from orchestrator.plan.step import JSON, Lane, Source, Step, StepKind, make_step

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from orchestrator.recipe import Merge, Recipe, Resize

# What changes how a training goes about its work, and not what comes out.
_HOW = {
    "data_loader_workers",
    "persistent_workers",
    "log_prefix",
    "wandb",
    "keep_states",
    "state_every_n_steps",
    "sample_every_n_steps",
}


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps in topological order: no step stands before one that it needs."""

    steps: tuple[Step, ...]
    recipes: dict[str, Recipe]
    by_name: dict[str, Step] = field(init=False)
    _places: dict[str, int] = field(init=False, repr=False)
    _last: dict[str, Step] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_name", {step.name: step for step in self.steps})
        object.__setattr__(self, "_places", {step.name: place for place, step in enumerate(self.steps)})
        object.__setattr__(self, "_last", {step.recipe: step for step in self.steps if step.recipe})

    def of(self, recipe: str) -> list[Step]:
        """Return the steps that lead to one recipe's release, its shared dataset included."""
        wanted: set[str] = set()
        todo = [self._last[recipe].name] if recipe in self._last else []
        while todo:
            name = todo.pop()
            if name not in wanted:
                wanted.add(name)
                todo += self.by_name[name].needs
        return [self.by_name[name] for name in sorted(wanted, key=self._places.__getitem__)]

    def shared(self) -> list[Step]:
        """Return the steps that belong to several recipes: grids, and the release they form together."""
        return [step for step in self.steps if not step.recipe and step.kind is not StepKind.DATASET]


class Inputs(Protocol):
    """What planning asks about the world outside; it reads, and changes nothing."""

    def pictures(self, recipe: Recipe) -> Sequence[Source]:
        """Return the originals (and captions) of the recipe's dataset."""

    def file(self, role: str, name: str, sha256: str) -> Source:
        """Return a checkpoint, VAE or LoRA file by the name a recipe gives."""

    def engine(self, name: str) -> str:
        """Return the version of an engine."""


def make_plan(recipes: Iterable[Recipe], known: Inputs) -> Plan:
    """Plan every recipe, and, for more than one, the grids and the release that they form together.

    Raises:
        RecipeError: two recipes give different content to a dataset or release of one name.
    """
    steps: dict[str, Step] = {}
    problems: list[Problem] = []
    by_name = {recipe.name: recipe for recipe in recipes}
    for recipe in by_name.values():
        for step in _steps(recipe, known, steps):
            standing = steps.setdefault(step.name, step)
            if standing.key != step.key:
                what = f"the recipes of this run describe {step.name} in two ways"
                problems.append(Problem(recipe.name, what, "give one of them another dataset.name, or run them apart"))
    if len(by_name) > 1:
        for step in _together(list(by_name.values()), steps, known):
            if step.name in steps:
                problems.append(Problem(step.name, "is the name of two steps", "give release.collection another name"))
            steps[step.name] = step
    if problems:
        raise RecipeError(problems)
    return Plan(tuple(steps.values()), by_name)


def _dump(part: Any, exclude: set[str] | None = None) -> JSON:
    return dict(part.model_dump(mode="json", exclude=exclude))


def _unused(tool: Merge | Resize) -> set[str]:
    """Return what does not change the result: the options of sd-scripts' program, where that is not the tool."""
    return set() if tool.tool == "sd-scripts" else {"options"}


def _version(tool: Merge | Resize, known: Inputs) -> str:
    """Return what stands for the tool in a key: nothing for ours, whose outputs are judged by their digests."""
    return f"{tool.tool} {known.engine(tool.tool)}" if tool.tool == "sd-scripts" else ""


def _steps(recipe: Recipe, known: Inputs, planned: Mapping[str, Step]) -> list[Step]:
    """Return the steps of one recipe: dataset, train, merge, resize, render, release."""
    name, file = recipe.name, f"{recipe.name}.safetensors"
    engine = f"{recipe.engine} {known.engine(recipe.engine)}"
    models = [known.file("checkpoint", recipe.base.checkpoint, recipe.base.sha256)]
    if recipe.base.vae:
        models.append(known.file("vae", recipe.base.vae, recipe.base.vae_sha256))
    asked = key_params(recipe.dataset)  # the files themselves are sources, by content
    data = make_step(f"{recipe.dataset.name}/dataset", StepKind.DATASET, asked, (), ("**/*",), sources=known.pictures(recipe))
    data = planned.get(data.name, data) if data.key == getattr(planned.get(data.name), "key", "") else data

    base = {"architecture": recipe.base.architecture, "clip_skip": recipe.base.clip_skip}
    params: JSON = {"base": base, "network": _dump(recipe.network), "training": _dump(recipe.training, _HOW)}
    params["retry"] = list(recipe.guards.retry)
    before = [known.file("weights", recipe.network.weights, "")] if recipe.network.weights else []
    train = make_step(
        f"{name}/train",
        StepKind.TRAIN,
        params,
        [data],
        (file,),
        lane=Lane.GPU,
        sources=[*models, *before],
        engine=engine,
        recipe=name,
    )
    steps, last = [data, train], train
    if recipe.block_weights is not None:
        weights = list(blocks.parse(recipe.block_weights, recipe.base.architecture))
        params = {
            "block_weights": weights,
            "architecture": recipe.base.architecture,
            **_dump(recipe.merge, _unused(recipe.merge)),
        }
        tool = _version(recipe.merge, known)
        last = make_step(f"{name}/merge", StepKind.MERGE, params, [last], (file,), engine=tool, recipe=name)
        steps.append(last)
    if recipe.resize is not None:
        params = _dump(recipe.resize, _unused(recipe.resize))
        tool = _version(recipe.resize, known)
        last = make_step(f"{name}/resize", StepKind.RESIZE, params, [last], (file,), engine=tool, recipe=name)
        steps.append(last)
    needs = [last]
    if recipe.render.prompts:
        pictures = tuple(f"{prompt}.png" for prompt in recipe.render.prompts)
        params = {"render": _dump(recipe.render), "base": base, "triggers": list(recipe.triggers())}
        render = make_step(
            f"{name}/render",
            StepKind.RENDER,
            params,
            [last],
            pictures,
            lane=Lane.GPU,
            sources=models,
            engine=engine,
            recipe=name,
        )
        steps.append(render)
        needs.append(render)
    whole = _dump(recipe, {"guards"})
    outputs = (file, "README.md", "manifest.json", "SHA256SUMS", "**/*")
    own = _templates(recipe, known)
    steps.append(make_step(f"{name}/release", StepKind.RELEASE, {"recipe": whole}, needs, outputs, sources=own, recipe=name))
    return steps


def _templates(recipe: Recipe, known: Inputs) -> list[Source]:
    """Return the folder of the recipe's own card templates, by its content."""
    return [known.file("templates", recipe.release.templates, "")] if recipe.release.templates else []


def _together(recipes: list[Recipe], steps: Mapping[str, Step], known: Inputs) -> list[Step]:
    """Return one grid per subject (rows: its algorithms), and the release of all."""
    grids: list[Step] = []
    for subject in dict.fromkeys(recipe.subject for recipe in recipes):
        rows = [recipe for recipe in recipes if recipe.subject == subject and recipe.render.prompts]
        if rows:
            params: JSON = {
                "rows": [recipe.algorithm for recipe in rows],
                "prompts": [_dump(recipe.render) for recipe in rows],
            }
            needs = [steps[f"{recipe.name}/render"] for recipe in rows]
            outputs = (f"{subject}_grid.png", f"{subject}_grid.webp")
            grids.append(make_step(f"{subject}/grid", StepKind.RENDER, params, needs, outputs))
    name = next((recipe.release.collection for recipe in recipes if recipe.release.collection), "release")
    needs = [*(steps[f"{recipe.name}/release"] for recipe in recipes), *grids]
    promised = ("README.md", "manifest.json", "SHA256SUMS", f"{name}.zip", "*.safetensors", "**/*")
    members = {"name": name, "members": [recipe.name for recipe in recipes]}
    own = _templates(recipes[0], known)
    return [*grids, make_step(f"{name}/release", StepKind.RELEASE, members, needs, promised, sources=own)]
