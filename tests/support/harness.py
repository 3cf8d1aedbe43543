"""A small project in a folder.

It has two images, one recipe per algorithm, and the fake trainer as its engine.
"""

from __future__ import annotations

import os
import sys
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from PIL import Image

import fakes
from orchestrator import engines
from orchestrator.run.context import Silent
from orchestrator.run.session import RunOptions, run_session
from orchestrator.run.workspace import Selection, Workspace

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from orchestrator.run.context import Outcome

BASE = """
engine = "embedded"
subject = "cat"
[base]
checkpoint = "base.safetensors"
[dataset]
name = "cat"
sizes = [64]
originals = false
resolution_classes = [64]
min_bucket_reso = 64
[dataset.sources.cat]
images = "data/cat"
trigger = "cat"
class_tokens = "cat character"
[network]
family = "lora"
dim = 2
alpha = 1
[training]
steps = 20
learning_rate = 1e-4
optimizer = "AdamW"
seed = 1
[training.options]
behave = ""
[render]
width = 64
height = 64
[render.prompts.front]
prompt = "{trigger}, from front"
[release]
collection = "cats"
"""
WEIGHTS = "[" + ",".join(["1"] * 26) + "]"
RECIPE = 'extends = ["_base/base", "_algorithms/%s"]\nsummary = "a cat"\nalgorithm = "%s"\nblock_weights = ' + WEIGHTS + "\n"


@dataclass(slots=True)
class RecordingObserver(Silent):
    """An observer that keeps the starts of steps and the messages."""

    begun: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)

    def begin(self, step: Any, reason: Any) -> None:
        self.begun.append(f"{step.name}: {reason}")

    def say(self, text: str) -> None:
        self.messages.append(text)


@dataclass(slots=True)
class Project:
    """A project's folder, with the effects of a command line on it."""

    root: Path
    observer: RecordingObserver = field(default_factory=RecordingObserver)

    def write(self, name: str, text: str) -> None:
        path = self.root / "recipes" / f"{name}.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")

    def recipe(self, name: str, algorithm: str, more: str = "") -> None:
        """Write a recipe.

        Those of one algorithm have one training, if ``more`` does not change it.
        """
        self.write(f"_algorithms/{algorithm}", f"[training]\nseed = {zlib.crc32(algorithm.encode())}\n")
        self.write(name, RECIPE % (algorithm, algorithm) + more)

    def space(self) -> Workspace:
        return Workspace(self.root)

    def run(self, *names: str, **options: Any) -> dict[str, Outcome]:
        """Run recipes and return the outcomes by their steps' names."""
        self.observer = RecordingObserver()
        outcomes = run_session(self.space(), RunOptions(Selection(names), **options), lambda _: self.observer)
        return {outcome.step.name: outcome for outcome in outcomes}

    def reasons(self, *names: str) -> dict[str, str]:
        space = self.space()
        plan = space.plan(space.load(Selection(names)))
        return {name: str(reason or "cached") for name, reason in space.reasons(plan).items()}

    def file(self, name: str) -> Path:
        """Return the one released file of a recipe."""
        return self.root / "runs" / name / "latest" / f"{name}.safetensors"


def make(root: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Make the project below ``root``, with the fake trainer as its engine."""
    use_fake_trainer(root, monkeypatch)
    project = Project(root)
    project.write("_base/base", BASE)
    project.recipe("cat-lora", "lora")
    (root / "data" / "cat").mkdir(parents=True)
    for index, shade in enumerate(((200, 30, 30), (30, 30, 200))):
        Image.new("RGB", (96, 96), shade).save(root / "data" / "cat" / f"f0{index}.png")
    (root / "base.safetensors").write_bytes(fakes.checkpoint_file())
    return project


def use_fake_trainer(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the embedded engine by the fake trainer, here and in children."""
    monkeypatch.setitem(engines.ENGINES, "embedded", fakes)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(root), *sys.path]))
