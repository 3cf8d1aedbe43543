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
    """What a module must offer to be an engine."""

    NAME: str

    def version(self) -> str:
        """Return what identifies the engine in keys: a commit (and "modified"), or package versions."""

    def check(self, recipe: Recipe) -> list[Problem]:
        """Return the recipe's problems that only this engine knows: options, families, architectures. Starts nothing."""

    def preflight(self, recipe: Recipe) -> list[Problem]:
        """Return what this machine lacks for this recipe: checkout, environment, packages, GPU. Starts nothing."""

    def train(self, recipe: Recipe, inputs: Mapping[str, Path], work: Path, state: Path | None) -> Command:
        """Return the training command.

        Args:
            recipe: what to train.
            inputs: "dataset" (folder with dataset.toml), "checkpoint", "vae" (if the recipe has one).
            work: folder that receives NAME.safetensors, states, logs.
            state: complete state folder to resume from, as ``checkpoint(work)`` returned it.
        """

    def render(self, recipe: Recipe, inputs: Mapping[str, Path], work: Path) -> Command:
        """Return the command that draws the recipe's prompts to work/PROMPT.png.

        Args:
            recipe: its ``render`` table says what to draw.
            inputs: "lora" (the finished file), "checkpoint", "vae".
            work: folder that receives the pictures.
        """

    def read(self, piece: str) -> Progress | None:
        """Read one piece of output (text between line ends or carriage returns)."""

    def reader(self, recipe: Recipe, work: Path) -> Callable[[str], Progress | None]:
        """Return a reader of one run's output, which knows the prediction and where a resumed bar begins.

        A banner that differs from the prediction is a ``fault``. ``read`` is the same without that knowledge.
        """

    def checkpoint(self, work: Path) -> tuple[Path, int] | None:
        """Return the newest complete state in ``work`` and the step it was saved at."""

    def finished(self, recipe: Recipe, work: Path, log: str) -> list[Problem]:
        """Return why a training that exited 0 is no success: messages, file, keys, shapes, metadata that differ."""

    def history(self, work: Path) -> list[dict[str, Any]]:
        """Return loss and learning rates by step from the TensorBoard events in ``work`` (step, loss, lr_unet, …)."""
