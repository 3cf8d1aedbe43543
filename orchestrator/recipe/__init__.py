"""The recipe as data. Nothing in it names Python.

Every table is frozen, strict and refuses unknown keys. The string below a field is its description in the JSON Schema
(schema.py), with units. Editors complete recipes from it.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Literal

from orchestrator.models import block_weights
from orchestrator.recipe.base import Family, Name, Option, Scalar, Table, Weight
from orchestrator.recipe.dataset import CaptionPart, Colour, Dataset, Source, Vocabulary, Words
from orchestrator.recipe.outputs import DrawnPrompt, Expect, Merge, Prompt, Region, Release, Render, Resize, Select
from orchestrator.recipe.training import Base, Guards, Network, Preset, Training, Validation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.models.block_weights import BlockWeights

__all__ = [
    "Base",
    "CaptionPart",
    "Colour",
    "Dataset",
    "DrawnPrompt",
    "Expect",
    "Family",
    "Guards",
    "Merge",
    "Name",
    "Network",
    "Option",
    "Preset",
    "Prompt",
    "Recipe",
    "Region",
    "Release",
    "Render",
    "Resize",
    "Scalar",
    "Select",
    "Source",
    "Table",
    "Training",
    "Validation",
    "Vocabulary",
    "Words",
]


class Recipe(Table):
    """One LoRA, from images to a released file."""

    name: Name
    summary: str
    subject: Name
    algorithm: Name
    type: Literal["face", "body", "group", "style", "object"] = "face"
    engine: Literal["sd-scripts", "embedded"]
    base: Base
    dataset: Dataset
    network: Network
    training: Training
    guards: Guards = Guards()
    block_weights: str | tuple[float, ...] | dict[str, Weight] | None = None
    """Weights by the names of blocks, {BASE = 0, "D00-D06" = 0.5}; a preset (FACE, BODY); or a list: 26 or 17 values on SD1,
    20 or 12 on SDXL. A table of these by base.architecture serves parts."""
    merge: Merge = Merge()
    resize: Resize | None = None
    render: Render = Render()
    select: Select = Select()
    release: Release = Release()
    expect: Expect = Expect()

    def weights(self) -> BlockWeights:
        """Return the weights of every block.

        Raises:
            RecipeError: every problem of the block weights.
        """
        merge, given = self.merge, () if self.block_weights is None else self.block_weights
        return block_weights.parse(given, self.base.architecture, order=merge.order, unmapped=merge.unmapped)

    def borrows(self, tool: str) -> bool:
        """Return whether ``tool`` ("sd-scripts") does the merge or the resize."""
        merges = self.block_weights is not None and self.merge.tool == tool
        return merges or (self.resize is not None and self.resize.tool == tool)

    def retried(self, change: Mapping[str, Scalar]) -> Recipe:
        """Return the recipe with the training keys of a retry changed.

        Raises:
            ValidationError: a key is not one of the training's, or its value is of another type.
        """
        table = {**self.training.model_dump(mode="json"), **change}
        if not table["steps"]:
            del table["steps"]  # not counted yet: of epochs
        return self.model_copy(update={"training": Training.model_validate_json(json.dumps(table))})

    def built_dataset(self) -> str:
        """Return the name of the built dataset.

        Each choice of held-out images makes a dataset of its own, beside that of recipes that train all images.
        """
        if self.training.validation is None:
            return self.dataset.name
        choice = json.dumps(self.training.validation.choice(), sort_keys=True)
        return f"{self.dataset.name}-held-out-{hashlib.sha256(choice.encode()).hexdigest()[:6]}"

    def saved_steps(self) -> tuple[int, ...]:
        """Return the steps whose files the training leaves, with its last one."""
        every, last = self.training.save_every_n_steps, self.training.steps
        saved = range(every, last + 1, every) if every else range(0)
        return tuple(sorted({*(saved[-self.select.keep :] if self.select.keep else saved), last}))

    def draws_samples(self) -> bool:
        """Return whether the training draws images of the prompts."""
        training = self.training
        every = training.sample_every_n_steps
        drawn = every is not None and (every <= training.steps or bool(training.options.get("sample_at_first")))
        return drawn and bool(self.render.prompts)

    def step_file(self) -> str:
        """Return the name of the trained file that is released."""
        step = self.select.step
        if step is None or step == self.training.steps:
            return f"{self.name}.safetensors"
        return f"{self.name}-step{step:08d}.safetensors"

    def triggers(self) -> tuple[str, ...]:
        """Return release.keywords if set, else each source's trigger word.

        Regularization sources have none.
        """
        if self.release.keywords:
            return self.release.keywords
        words = (source.trigger for source in self.dataset.sources.values() if source.trigger and not source.regularization)
        return tuple(dict.fromkeys(words))

    def drawn_prompts(self) -> dict[str, DrawnPrompt]:
        """Return the prompt of every sample image, by name.

        {trigger} is replaced by the trigger words. Values that a prompt leaves out are those of ``render``.
        """
        render, words = self.render, ", ".join(self.triggers())
        return {
            name: DrawnPrompt(
                prompt.prompt.replace("{trigger}", words),
                prompt.label or name,
                render.negative if prompt.negative is None else prompt.negative,
                render.seed if prompt.seed is None else prompt.seed,
                prompt.width or render.width,
                prompt.height or render.height,
            )
            for name, prompt in render.prompts.items()
        }

    def columns(self) -> list[dict[str, str]]:
        """Return name, label and prompt of every sample image."""
        return [{"name": name, "label": drawn.label, "prompt": drawn.text} for name, drawn in self.drawn_prompts().items()]
