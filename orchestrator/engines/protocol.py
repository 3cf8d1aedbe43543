"""Contract between the program and its engines.

An engine is a module. It turns a step into a command that takes sd-scripts' own arguments (the embedded programs take the same
ones), reads the trainer's output, and knows which saved states are complete. It never starts a process.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from orchestrator.errors import Problem
    from orchestrator.recipe import Recipe
    from orchestrator.system.child import Progress
    from orchestrator.system.process import Command


@dataclass(frozen=True, slots=True)
class RenderItem:
    """Prompts to draw with one LoRA file, or with the bare base model."""

    recipe: Recipe
    lora: Path | None


class Engine(Protocol):
    """Functions of an engine's module."""

    NAME: str

    def version(self) -> str:
        """Return the engine's identity in keys.

        A commit (with "modified" for a changed tree), or the versions of packages.
        """

    def check(self, recipe: Recipe) -> list[Problem]:
        """Return the recipe's problems with this engine.

        Options, families and architectures are checked. Starts no trainer.
        """

    def preflight(self, recipe: Recipe) -> list[Problem]:
        """Return this machine's problems with the recipe.

        Checkout, environment, packages and GPU are checked. Starts no trainer.
        """

    def train(self, recipe: Recipe, inputs: Mapping[str, Path], work: Path, state: Path | None) -> Command:
        """Return the training command.

        Args:
            recipe: the training's recipe.
            inputs: "dataset" (folder with dataset.toml), "checkpoint", "vae" (if the recipe has one).
            work: folder that receives NAME.safetensors, states, logs.
            state: complete state folder to resume from, of ``checkpoint(work)``.
        """

    def render(self, recipe: Recipe, inputs: Mapping[str, Path], work: Path) -> Command:
        """Return the command that draws the recipe's prompts to work/PROMPT.png.

        Args:
            recipe: its ``render`` table is used.
            inputs: "lora" (the finished file), "checkpoint", "vae".
            work: folder that receives the images.
        """

    def render_together(self, items: Sequence[RenderItem], inputs: Mapping[str, Path], work: Path) -> Command:
        """Return the command that draws several items in one process.

        Images are work/NNN-PROMPT.png, numbered by item.

        Args:
            items: of one base model, one of ``together``'s groups.
            inputs: "checkpoint", "vae".
            work: folder that receives the images.
        """

    def together(self, items: Sequence[RenderItem]) -> list[list[int]]:
        """Return the positions of items in groups that one process can draw."""

    def read(self, piece: str) -> Progress | None:
        """Return the progress in one piece of output, or None.

        A piece is the text between two line ends or carriage returns.
        """

    def reader(self, recipe: Recipe, work: Path) -> Callable[[str], Progress | None]:
        """Return a parser of one run's output.

        It compares the banner with the prediction and offsets a resumed bar.

        A banner that differs from the prediction is a ``fault``. ``read`` parses without prediction and offset.
        """

    def checkpoint(self, work: Path) -> tuple[Path, int] | None:
        """Return the newest state in ``work`` to resume from, and its step.

        It is complete and has steps left to train.
        """

    def finished(self, recipe: Recipe, work: Path, log: str) -> list[Problem]:
        """Return the reasons why a training that exited 0 failed.

        Log, file, tensor names, shapes and metadata are checked.
        """

    def lost_steps(self, work: Path, when: float) -> int:
        """Return the steps that the trainer's counter had lost at a time.

        Files that it saved then are named by its counter. ``when`` is in seconds since the epoch.
        """

    def history(self, work: Path) -> list[dict[str, Any]]:
        """Return loss and learning rates by step (step, loss, lr_unet, …).

        Source: the TensorBoard events in ``work``.
        """
