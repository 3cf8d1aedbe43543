"""A plan: the steps of recipes, in the order in which they can run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from orchestrator.plan.step import Step, StepKind

if TYPE_CHECKING:
    from orchestrator.engines.protocol import RenderItem
    from orchestrator.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps in topological order: each after the steps that it needs."""

    steps: tuple[Step, ...]
    recipes: dict[str, Recipe]
    together: dict[str, tuple[RenderItem, ...]] = field(default_factory=dict)
    """Images that a render step draws in one process, by its name, instead of those of its recipe."""
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

    def step_of(self, recipe: str, kind: StepKind) -> Step:
        """Return the step of a kind of one recipe."""
        return next(step for step in self.of(recipe) if step.kind is kind)

    def dataset_recipe(self, owner: str) -> Recipe:
        """Return a recipe whose built dataset has the name ``owner``."""
        return next(recipe for recipe in self.recipes.values() if recipe.built_dataset() == owner)

    def lora_name(self, step: Step) -> str:
        """Return the name of the LoRA file of a step that trains or changes it."""
        return self.recipes[step.recipe].step_file() if step.kind is StepKind.TRAIN else f"{step.recipe}.safetensors"

    def shared(self) -> list[Step]:
        """Return the steps of several recipes: grids, and their common release."""
        return [step for step in self.steps if not step.recipe and step.kind is not StepKind.DATASET]
