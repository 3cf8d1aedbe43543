"""Releases of the demo's small base model claim no other program, and are not uploaded by accident."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

import made_runs
from bundles import metadata_of
from orchestrator.errors import RecipeError
from orchestrator.release import __main__ as release
from orchestrator.release import push

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release of one recipe that was trained on the small base model."""
    runs = tmp_path_factory.mktemp("runs")
    recipe = made_runs.loaded("krnk-lora3x3").recipe
    values = made_runs.request(runs, recipe)
    values["recipe"]["base"] |= {"checkpoint": "embedded", "vae": "", "url": ""}
    assert made_runs.call(release, runs / "request.json", values) == 0
    return made_runs.folder(runs, "krnk-lora3x3/release")


def test_its_files_are_of_no_known_base(small: Path) -> None:
    assert json.loads((small / "krnk-lora3x3.json").read_text("utf-8"))["sd version"] == "Unknown"
    assert json.loads((small / "krnk-lora3x3.civitai.info").read_text("utf-8"))["baseModel"] == "Other"
    metadata = metadata_of(small / "krnk-lora3x3.safetensors")
    assert metadata["modelspec.architecture"] == "krnk-small-base/lora"
    assert metadata["modelspec.usage_hint"].startswith("Of the demo's small base model")


def test_its_card_names_no_other_program(small: Path) -> None:
    text = (small / "README.md").read_text("utf-8")
    assert "This file opens in krnk only" in text
    for program in ("A1111", "Forge", "ComfyUI", "Additional Networks"):
        assert program not in text


def test_push_refuses_it_without_force(small: Path) -> None:
    with pytest.raises(RecipeError, match="which no other program opens"):
        push.push(small, "someone/krnk")
    assert not push.push(small, "someone/krnk", force=True).done
