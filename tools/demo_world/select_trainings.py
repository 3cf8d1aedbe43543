"""Trainings for ``select_proof``: too few, enough and too many steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from orchestrator.recipe import Validation

if TYPE_CHECKING:
    from orchestrator.recipe import Recipe

SAVED: Final = 5


@dataclass(frozen=True, slots=True)
class SelectTraining:
    """A demo recipe at another rate and length.

    ``overtrained``: at a constant rate so high or so long that the last step is past the best.
    """

    recipe: str
    rate: float
    steps: int
    overtrained: bool = False

    @property
    def name(self) -> str:
        """Return the name of the training, its recipe and its files."""
        return f"{self.recipe}-rate{self.rate:g}-{self.steps}"


TRAININGS: Final = (
    SelectTraining("krnk-lora3x3", 0.5, 100),
    SelectTraining("krnk-lora3x3", 1, 100),
    SelectTraining("krnk-lora3x3", 1, 250, overtrained=True),
    SelectTraining("krnk-lora3x3", 3, 150, overtrained=True),
    SelectTraining("krnksf-lora3x3", 0.5, 140),
    SelectTraining("krnksf-lora3x3", 1, 140),
    SelectTraining("krnksf-lora3x3", 3, 200, overtrained=True),
    SelectTraining("krnksf_tyankps-lora3x3", 0.5, 200),
    SelectTraining("krnksf_tyankps-lora3x3", 1, 300),
    SelectTraining("krnksf_tyankps-lora3x3", 3, 200, overtrained=True),
)


def changed(recipe: Recipe, training: SelectTraining) -> Recipe:
    """Return the recipe of a training, which saves ``SAVED`` steps."""
    table = recipe.training
    every = training.steps // SAVED
    rates = {
        key: getattr(table, key) * training.rate
        for key in ("learning_rate", "text_encoder_lr")
        if getattr(table, key) is not None
    }
    values = {"steps": training.steps, "save_every_n_steps": every, "state_every_n_steps": every, **rates}
    values |= {"validation": Validation(split=0.1), "lr_scheduler": "constant" if training.overtrained else table.lr_scheduler}
    return recipe.model_copy(update={"name": training.name, "training": table.model_copy(update=values)})
