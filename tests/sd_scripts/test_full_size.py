"""Train Anima and SDXL at their full size, two steps on the CPU.

With SLOW=1.

Anima takes 6 GB of memory and SDXL 16, each some minutes and its size on the disk.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import small_models as small
from orchestrator.engines.sdscripts import engine
from orchestrator.models.registry import ARCHITECTURES
from orchestrator.recipe import loader
from orchestrator.system import settings
from orchestrator.weights.families import expected_tensors
from orchestrator.weights.io.safetensors_io import read_header
from sd_scripts_projects import Project

if TYPE_CHECKING:
    from sd_scripts_projects import SmallProject

pytestmark = [
    pytest.mark.sd_scripts,
    pytest.mark.skipif(not os.environ.get("SLOW"), reason="full size takes minutes and up to 16 GB: SLOW=1"),
]
MODULES, BYTES = {"anima": 280, "sdxl": 722}, {"anima": 11_469_360, "sdxl": 21_280_164}
MEMORY = {"anima": 8e9, "sdxl": 17e9}


def free() -> float:
    """Return the bytes of memory that can be taken."""
    lines = Path("/proc/meminfo").read_text("utf-8").splitlines()
    return next(int(line.split()[1]) * 1024.0 for line in lines if line.startswith("MemAvailable:"))


@pytest.mark.parametrize("architecture", MODULES)
def test_a_full_size_model_trains_the_predicted_bytes(small_project: SmallProject, architecture: str, tmp_path: Path) -> None:
    if free() < MEMORY[architecture]:
        pytest.skip(f"{MEMORY[architecture] / 1e9:.0f} GB of free memory are needed")
    argv = [str(settings.sd_scripts_python()), str(small.HERE / "make_small.py"), architecture, str(tmp_path / architecture)]
    subprocess.run(argv, env={**os.environ, "PYTHONPATH": str(settings.sd_scripts())}, check=True, timeout=900)
    training = {"train": "unet", "cache_latents": "memory", "cache_text_encoder_outputs": "memory"}
    options = {"disable_mmap_load_safetensors": True} if architecture == "sdxl" else {}
    full = replace(small_project, models=tmp_path)
    name = full.write(f"full-{architecture}", architecture, options=options, **training)
    python = {"SD_SCRIPTS_PYTHON": str(settings.sd_scripts_python()), "KRNK_MODELS": str(tmp_path)}
    project = Project(small_project.root, {**small_project.environment, **python})
    done = project.call("run", name)
    assert done.returncode == 0, done.stdout + done.stderr
    train = project.folder(name, "train")
    header = read_header(train / f"{name}.safetensors")
    recipe = loader.recipe(project.root / "recipes", name).recipe
    predicted = expected_tensors.predict(recipe, ARCHITECTURES[architecture].model)
    assert predicted is not None
    assert header.tensor_bytes == predicted.tensor_bytes == BYTES[architecture]
    assert predicted.modules == MODULES[architecture]
    assert engine.finished(recipe, train, (train / "log.txt").read_text("utf-8")) == []
