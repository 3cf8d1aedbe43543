"""Train, merge and resize a small model of every architecture by the real scripts, each with the predicted bytes.

$KRNK_TEST_SMALL keeps the models.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

import small_models as small
from orchestrator.engines.sdscripts.output_parser import OutputParser
from orchestrator.models.registry import ARCHITECTURES
from orchestrator.recipe import loader
from orchestrator.weights.families import expected_tensors
from orchestrator.weights.io.safetensors_io import read_header
from sd_scripts_projects import PARTS

if TYPE_CHECKING:
    from pathlib import Path

    from sd_scripts_projects import SmallProject

pytestmark = pytest.mark.sd_scripts
BANNER = {"text encoder modules", "U-Net modules", "dim", "alpha", "images", "batches per epoch", "epochs", "steps"}


def check_file(project: SmallProject, name: str, architecture: str) -> Path:
    """Compare the trained file of a recipe with the prediction and its metadata, and return its folder."""
    train, entry = project.folder(name, "train"), ARCHITECTURES[architecture]
    header = read_header(train / f"{name}.safetensors")
    recipe = loader.recipe(project.root / "recipes", name).recipe
    predicted = expected_tensors.predict(recipe, small.small(entry).model)
    assert predicted is not None
    assert header.tensor_bytes == predicted.tensor_bytes
    assert len({tensor.partition(".")[0] for tensor in header.entries}) == predicted.modules
    assert header.metadata["ss_base_model_version"] == entry.base_model_version
    assert header.metadata["modelspec.architecture"] == f"{entry.modelspec}/lora"
    return train


def check_banner(train: Path, architecture: str) -> None:
    """Check that the log states every predicted number, and that another number would stop the run."""
    banner = BANNER if ARCHITECTURES[architecture].model.text_encoders else BANNER - {"text encoder modules"}
    log = (train / "log.txt").read_text("utf-8")
    expected = json.loads((train / "expected.json").read_text("utf-8"))
    assert expected.keys() >= banner
    parser = OutputParser(lambda: expected)
    assert [
        progress.fault or progress.note for piece in log.splitlines() if (progress := parser(piece)) and progress.fault
    ] == []
    assert parser.values.keys() >= banner
    drifted = OutputParser(lambda: expected | {"U-Net modules": 1})
    assert any("U-Net modules" in progress.fault for piece in log.splitlines() if (progress := drifted(piece)) is not None)


@pytest.mark.parametrize("architecture", PARTS)
def test_an_architecture_is_trained_merged_and_resized(small_project: SmallProject, architecture: str) -> None:
    name = small_project.write(f"small-{architecture}", architecture)
    done = small_project.call("run", name)
    assert done.returncode == 0, done.stdout + done.stderr
    check_banner(check_file(small_project, name, architecture), architecture)
    merged = read_header(small_project.folder(name, "merge") / f"{name}.safetensors")
    assert merged.metadata["ss_network_module"] == ARCHITECTURES[architecture].network_module
    resized = read_header(small_project.folder(name, "resize") / f"{name}.safetensors")
    assert resized.tensor_bytes < merged.tensor_bytes
