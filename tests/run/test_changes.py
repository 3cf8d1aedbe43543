"""The reason of a step whose key changed.

The difference to its newest record.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from PIL import Image

import harness
from orchestrator import engines

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> harness.Project:
    """A project whose recipe has run."""
    project = harness.make(tmp_path, monkeypatch)
    project.run("cat-lora")
    return project


def test_a_changed_setting_is_named_with_both_values(project: harness.Project) -> None:
    project.recipe("cat-lora", "lora", "[training]\nsteps = 30\n")
    reasons = project.reasons("cat-lora")
    assert reasons["cat-lora/train"] == "changed: training.steps 20 -> 30"
    assert reasons["cat-lora/merge"] == "new: cat-lora/train changed"


def test_a_changed_package_is_named_with_both_versions(project: harness.Project, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engines.get("embedded")
    monkeypatch.setattr(engine, "version", lambda: "torch 2.13.0, diffusers 0.32.1")
    project.run("cat-lora")
    monkeypatch.setattr(engine, "version", lambda: "torch 2.14.1, diffusers 0.32.1")
    assert project.reasons("cat-lora")["cat-lora/train"] == "changed: torch 2.13.0 -> 2.14.1"


def test_images_are_named(project: harness.Project) -> None:
    folder = project.root / "data" / "cat"
    (folder / "f00.png").unlink()
    Image.new("RGB", (96, 96), (9, 9, 9)).save(folder / "f02.png")
    Image.new("RGB", (96, 96), (5, 5, 5)).save(folder / "f01.png")
    reason = project.reasons("cat-lora")["cat/dataset"]
    assert reason == "changed: cat/f00.png removed; cat/f02.png added; cat/f01.png is another file"


def test_only_the_first_differences_are_listed(project: harness.Project) -> None:
    lines = "".join(f"{key}\n" for key in ("steps = 30", "seed = 2", "learning_rate = 2e-4", 'optimizer = "Adam"'))
    project.recipe("cat-lora", "lora", f"[training]\n{lines}")
    assert project.reasons("cat-lora")["cat-lora/train"].endswith("; and 1 more")
