"""Train, merge and resize a small model of every architecture by the real scripts, each with the predicted bytes.

$KRNK_TEST_SMALL keeps the models.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

import small_models as small
from orchestrator.engines.sdscripts import training_states
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
ANIMA = {
    "enable_conv": False,
    "unet_target_module": ["Attention", "GPT2FeedForward"],
    "text_encoder_target_module": ["Qwen3Attention", "Qwen3MLP"],
}
"""The preset with which LyCORIS trains what sd-scripts' own network of Anima trains."""
LYCORIS = [
    (name, family) for name in PARTS for family in ARCHITECTURES[name].lycoris or () if "-" not in name or "sd3" in name
]
BANNER = {"text encoder modules", "U-Net modules", "dim", "alpha", "images", "batches per epoch", "epochs", "steps"}
FRONT = {
    "prompts": {"front": {"prompt": "{trigger}, white background"}},
    "width": 64,
    "height": 64,
    "steps": 2,
    "precision": "bf16",
}


def check_file(project: SmallProject, name: str, architecture: str) -> Path:
    """Compare the trained file of a recipe with the prediction and its metadata, and return its folder."""
    train, entry = project.folder(name, "train"), ARCHITECTURES[architecture]
    header = read_header(train / f"{name}.safetensors")
    recipe = loader.recipe(project.root / "recipes", name).recipe
    predicted = expected_tensors.predict(recipe, small.small(entry).model)
    assert predicted is not None
    assert header.tensor_bytes == predicted.tensor_bytes
    assert len({tensor.partition(".")[0] for tensor in header.entries}) == predicted.modules
    own = (entry.base_model_version, entry.modelspec)
    version, modelspec = entry.v_prediction if recipe.training.options.get("v_parameterization") else own
    assert header.metadata["ss_base_model_version"] == version
    assert header.metadata["modelspec.architecture"] == f"{modelspec}/lora"
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


@pytest.mark.parametrize(("architecture", "family"), LYCORIS)
def test_a_family_of_lycoris_trains_the_predicted_tensors(small_project: SmallProject, architecture: str, family: str) -> None:
    network = {"family": family} | ({"preset": ANIMA} if ARCHITECTURES[architecture].lycoris_preset else {})
    name = small_project.write(f"{family}-{architecture}", architecture, network)
    done = small_project.call("run", name, "--only", "dataset", "--only", "train")
    check_file(small_project, name, architecture)
    assert "1 failed" not in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("architecture", ["anima", "flux", "sd3.5-medium", "lumina"])
def test_text_encoders_are_trained_too(small_project: SmallProject, architecture: str) -> None:
    training = {"train": "both", "cache_text_encoder_outputs": "no", "text_encoder_lr": 1e-3}
    name = small_project.write(f"both-{architecture}", architecture, **training)
    small_project.call("run", name, "--only", "dataset", "--only", "train")
    folder = check_file(small_project, name, architecture)
    names = read_header(folder / f"{name}.safetensors").entries
    assert any(tensor.startswith("lora_te") for tensor in names)


def test_included_layers_are_trained_as_predicted(small_project: SmallProject) -> None:
    """Layers that Anima's network module leaves out, at a rank of their own, and a layer of an excluded block."""
    network = {"family": "lora", "include": [".*_embedder.*", "final_layer.*", r"blocks\.0\..*q_proj"]}
    network |= {"exclude": [r"blocks\.0\..*"], "layer_dims": {"final_layer.*": 2}, "args": {"train_llm_adapter": True}}
    name = small_project.write("included-anima", "anima", network)
    small_project.call("run", name, "--only", "dataset", "--only", "train")
    train = check_file(small_project, name, "anima")
    check_banner(train, "anima")
    shapes = {tensor: entry.shape for tensor, entry in read_header(train / f"{name}.safetensors").entries.items()}
    assert shapes["lora_unet_x_embedder_proj_1.lora_down.weight"] == (4, 68)
    assert shapes["lora_unet_final_layer_linear.lora_down.weight"] == (2, 256)
    assert "lora_unet_blocks_0_self_attn_q_proj.alpha" in shapes
    assert "lora_unet_blocks_0_self_attn_k_proj.alpha" not in shapes


@pytest.mark.parametrize("architecture", ["sdxl", "chroma", "flux-schnell", "lumina", "anima"])
def test_images_are_drawn_during_a_training(small_project: SmallProject, architecture: str) -> None:
    """With every setting of a line that the trainer reads. flow_shift of Anima is text there, and a number for the image."""
    render: dict[str, Any] = {**FRONT, "scale": 3.0, "seed": 5, "negative": "bad"}
    render |= dict.fromkeys(ARCHITECTURES[architecture].sample_line, 3.0)
    name = small_project.write(f"sampled-{architecture}", architecture, render=render, sample_every_n_steps=2)
    done = small_project.call("run", name, "--only", "dataset", "--only", "train")
    assert (small_project.runs / name).is_dir(), done.stdout + done.stderr
    train = small_project.folder(name, "train")
    drawn = [re.sub(r"\d{14}", "TIME", path.name) for path in (train / "sample").glob("*.png")]
    assert f"{name}_000002_00_TIME_5.png" in drawn
    log = (train / "log.txt").read_text("utf-8")
    stated = {"guidance": "embedded guidance scale: 3.0", "flow_shift": "flow_shift: 3"}
    assert all(stated[key] in log for key in ARCHITECTURES[architecture].sample_line)


def test_a_training_starts_from_the_lora_of_another(small_project: SmallProject) -> None:
    """The trainer finds every tensor of a file that the check accepts.

    A file of another rank and alpha is refused.
    """
    words = ("--only", "dataset", "--only", "train")
    first = small_project.write("start-flux", "flux", unet_lr=1e-3)
    small_project.call("run", first, *words)
    file = small_project.folder(first, "train") / f"{first}.safetensors"
    name = small_project.write("second-flux", "flux", {"weights": str(file)})
    small_project.call("run", name, *words)
    log = (small_project.folder(name, "train") / "log.txt").read_text("utf-8")
    assert "load network weights from" in log
    assert "All keys matched successfully" in log
    other = small_project.write("other-flux", "flux", {"weights": str(file), "dim": 8, "alpha": 8})
    refused = small_project.call("run", other, *words)
    assert refused.returncode == 3
    assert "has rank 4; network.dim trains 8" in refused.stdout + refused.stderr
    assert "has alpha 2 in" in refused.stdout + refused.stderr


@pytest.mark.parametrize("architecture", ["anima", "flux"])
def test_a_killed_training_resumes_and_draws(small_project: SmallProject, architecture: str) -> None:
    """After SIGKILL to orchestrator and trainer, the same command resumes from the last complete state."""
    name = small_project.write(f"killed-{architecture}", architecture, render=FRONT, steps=8, sample_every_n_steps=4)
    words = ("run", name, "--only", "dataset", "--only", "train")
    first = subprocess.Popen(
        small_project.argv(*words),
        cwd=small_project.root,
        env=small_project.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    works: list[Path] = []
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline and first.poll() is None and not works:
        works = [
            path
            for path in (small_project.runs / name / ".partial").glob("train-*")
            if training_states.newest(path) is not None
        ]
        time.sleep(0.1)
    assert works, "no complete state was there before the training ended"
    first.kill()
    first.wait()
    child = json.loads((works[0] / "child.json").read_text("utf-8"))
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child["supervisor"], signal.SIGKILL)
    time.sleep(1)
    before = training_states.newest(works[0])
    assert before is not None
    done = small_project.call(*words)
    train = small_project.folder(name, "train")
    assert json.loads((train / "record.json").read_text("utf-8"))["resumed_from"] == before[1], done.stdout
    log = (train / "log.txt").read_text("utf-8")
    assert f"skipping {before[1]} steps" in log
    drawn = [re.sub(r"\d{14}", "TIME", path.name) for path in (train / "sample").glob("*.png")]
    counted = 8 - training_states.lost(before[1], int(training_states.BATCHES.findall(log)[-1]))  # as the trainer names it
    assert f"{name}_{counted // 4 * 4:06}_00_TIME_31337.png" in drawn
