"""Contract between the program and its engines.

An engine is a module. It turns a step into a command that takes sd-scripts' own arguments (the embedded programs take the same
ones), reads the trainer's output, and knows which saved states are complete. It never starts a process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from orchestrator.errors import Problem
    from orchestrator.recipe import Recipe
    from orchestrator.system.child import Progress
    from orchestrator.system.process import Command


class Engine(Protocol):
    """Functions of an engine's module."""

    NAME: str

    def version(self) -> str:
        """Return the engine's identity in keys: a commit (and "modified"), or package versions."""

    def check(self, recipe: Recipe) -> list[Problem]:
        """Return the recipe's problems with this engine: options, families, architectures. Starts no trainer."""

    def preflight(self, recipe: Recipe) -> list[Problem]:
        """Return what this machine lacks for the recipe: checkout, environment, packages, GPU. Starts no trainer."""

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

    def read(self, piece: str) -> Progress | None:
        """Return the progress in one piece of output (text between line ends or carriage returns), or None."""

    def reader(self, recipe: Recipe, work: Path) -> Callable[[str], Progress | None]:
        """Return a parser of one run's output, with its predicted banner and the offset of a resumed bar.

        A banner that differs from the prediction is a ``fault``. ``read`` parses without prediction and offset.
        """

    def checkpoint(self, work: Path) -> tuple[Path, int] | None:
        """Return the newest complete state in ``work`` with steps left to train, and its step."""

    def finished(self, recipe: Recipe, work: Path, log: str) -> list[Problem]:
        """Return the reasons why a training that exited 0 failed: its log, file, tensor names, shapes, metadata."""

    def history(self, work: Path) -> list[dict[str, Any]]:
        """Return loss and learning rates by step from the TensorBoard events in ``work`` (step, loss, lr_unet, …)."""
