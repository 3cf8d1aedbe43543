"""The whole pipeline on the real sd-scripts, on a CPU: three algorithms of krnk at their released size, two steps each.

Slow (some minutes each on two idle cores). $KRNK_TEST_SD15 keeps the random model, $KRNK_TEST_PROJECT the project and its
runs, so that a second run of these tests finds every step cached and only looks at the results.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest
import toml
from PIL import Image

from orchestrator import architecture, layers, load
from orchestrator.engines import readback, sdscripts, states

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Project

pytestmark = pytest.mark.sd_scripts

BYTES = {"lora3x3": 311476924, "locon": 212845244, "loha": 100893372}


def record(folder: Path) -> dict[str, Any]:
    table: dict[str, Any] = json.loads((folder / "record.json").read_text("utf-8"))
    return table


@pytest.mark.parametrize("algorithm", BYTES)
def test_an_algorithm_of_krnk_from_pictures_to_release(project: Project, algorithm: str) -> None:
    name = f"krnk-{algorithm}"
    done = project.call("run", name, "--profile", "tiny")
    assert done.returncode == 0, done.stdout + done.stderr
    train = project.folder(name, "train")
    tensors, metadata, body = readback.header(train / f"{name}.safetensors")
    assert body == BYTES[algorithm]
    assert len({tensor.partition(".")[0] for tensor in tensors}) == 350
    recipe = load.recipe(project.root / "recipes", name, "tiny").recipe
    assert architecture.predict(recipe, layers.SD15) == architecture.Predicted(BYTES[algorithm], 350, 72, 278)
    log = (train / "log.txt").read_text("utf-8")
    assert sdscripts.finished(recipe, train, log) == []
    assert metadata["ss_steps"] == "2"
    assert metadata["ss_seed"] == "31337"
    assert metadata["ss_clip_skip"] == "2"
    assert metadata["ss_lr_scheduler"] == "cosine_with_restarts"
    assert metadata["ss_sd_scripts_commit_hash"] in sdscripts.version()
    assert "sshs_model_hash" in metadata
    # what the banner said was predicted by the plan: pictures, batches, epochs, modules, steps
    expected = json.loads((train / "expected.json").read_text("utf-8"))
    reader = sdscripts.reader(recipe, train)
    faults = [found.fault for piece in log.splitlines() if (found := reader(piece)) is not None and found.fault]
    assert faults == []
    assert {"images", "batches per epoch", "epochs", "steps", "text encoder modules", "U-Net modules"} <= expected.keys()
    history = sdscripts.history(train)
    assert [one["step"] for one in history] == [1, 2]
    assert all(0 < one["loss"] < 10 for one in history)
    # block weights FACE: the text encoder is zeroed; then, for networks.lora, the resize
    _, merged, _ = readback.header(project.folder(name, "merge") / f"{name}.safetensors")
    assert merged["ss_network_module"] == metadata["ss_network_module"]
    if algorithm == "lora3x3":
        _, _, small = readback.header(project.folder(name, "resize") / f"{name}.safetensors")
        assert small < BYTES[algorithm]
    render = project.folder(name, "render")
    with Image.open(render / "front.png") as image:
        assert image.size == (64, 64)
    assert not (render / "temporary").exists()
    again = project.call("plan", name, "--profile", "tiny")
    assert "0 to run" in again.stdout, again.stdout


def test_a_killed_training_goes_on_where_it_was(project: Project) -> None:
    """SIGKILL to the orchestrator and to the trainer; the same command resumes from the last complete state."""
    name = "krnk-lora3x3"
    table = toml.loads((project.root / "recipes" / "_profiles" / "tiny.toml").read_text("utf-8"))
    table["unset"] += ["expect", "render"]
    table["unset"] = [key for key in table["unset"] if key != "render.prompts"]
    del table["render"]
    table["network"] = {"dim": 2, "alpha": 1, "conv_dim": 2, "conv_alpha": 1}
    table["training"]["steps"] = 3
    (project.root / "recipes" / "_profiles" / "killed.toml").write_text(toml.dumps(table), "utf-8")
    words = ("run", name, "--profile", "killed", "--only", "train")
    environment = {**project.environment, "KRNK_RUNS": str(project.root / "runs-killed")}
    runs = project.root / "runs-killed"
    subprocess.run(
        project.argv("run", name, "--profile", "killed", "--only", "dataset"),
        cwd=project.root,
        env=environment,
        check=False,
        timeout=300,
    )
    first = subprocess.Popen(
        project.argv(*words), cwd=project.root, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    work: Path | None = None
    deadline = time.monotonic() + 1500
    while time.monotonic() < deadline and first.poll() is None:
        found = [path for path in (runs / name / ".partial").glob("train-*") if states.newest(path) is not None]
        if found:
            work = found[0]
            break
        time.sleep(0.5)
    assert work is not None, "no complete state was seen before the training ended"
    first.kill()
    first.wait()
    child = json.loads((work / "child.json").read_text("utf-8"))
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child["supervisor"], signal.SIGKILL)
    time.sleep(1)
    before = states.newest(work)
    assert before is not None
    done = subprocess.run(
        project.argv(*words), cwd=project.root, env=environment, text=True, capture_output=True, timeout=1800, check=False
    )
    folders = [path for path in (runs / name).glob("train-*") if path.is_dir()]
    assert len(folders) == 1, done.stdout + done.stderr
    said = record(folders[0])
    assert said["resumed_from"] == before[1]
    _, metadata, _ = readback.header(folders[0] / f"{name}.safetensors")
    assert metadata["ss_max_train_steps"] == "3"
    lines = [json.loads(line) for line in (folders[0] / "progress.jsonl").read_text("utf-8").splitlines()]
    assert max(line["done"] for line in lines) == 3
    log = (folders[0] / "log.txt").read_text("utf-8")
    assert f"skipping {before[1]} steps" in log
