"""The whole pipeline with the real sd-scripts on a CPU.

Three algorithms of krnk at their released size, two steps each.

Slow: some minutes each on two idle cores. $KRNK_TEST_SD15 keeps the random model, $KRNK_TEST_PROJECT the project and its
runs, so that a second run of these tests finds every step cached and only checks the results.
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

import numpy as np
import pytest
import toml
from PIL import Image
from safetensors.numpy import load_file

from orchestrator.engines.sdscripts import engine, training_states
from orchestrator.engines.sdscripts.output_parser import OutputParser
from orchestrator.models.bases import sd1
from orchestrator.recipe import loader
from orchestrator.weights.families import expected_tensors
from orchestrator.weights.io.safetensors_io import read_header

if TYPE_CHECKING:
    from pathlib import Path

    from sd_scripts_projects import Project

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
    header = read_header(train / f"{name}.safetensors")
    tensors, metadata, body = header.entries, header.metadata, header.tensor_bytes
    assert body == BYTES[algorithm]
    assert len({tensor.partition(".")[0] for tensor in tensors}) == 350
    recipe = loader.recipe(project.root / "recipes", name, "tiny").recipe
    assert expected_tensors.predict(recipe, sd1.MODEL) == expected_tensors.Predicted(BYTES[algorithm], 350, 72, 278)
    log = (train / "log.txt").read_text("utf-8")
    assert engine.finished(recipe, train, log) == []
    assert metadata["ss_steps"] == "2"
    assert metadata["ss_seed"] == "31337"
    assert metadata["ss_clip_skip"] == "2"
    assert metadata["ss_lr_scheduler"] == "cosine_with_restarts"
    assert metadata["ss_sd_scripts_commit_hash"] in engine.version()
    assert "sshs_model_hash" in metadata
    # the plan predicted the banner: images, batches, epochs, modules, steps
    expected = json.loads((train / "expected.json").read_text("utf-8"))
    parser = engine.reader(recipe, train)
    faults = [progress.fault for piece in log.splitlines() if (progress := parser(piece)) is not None and progress.fault]
    assert faults == []
    assert {"images", "batches per epoch", "epochs", "steps", "text encoder modules", "U-Net modules"} <= expected.keys()
    drifted = OutputParser(lambda: expected | {"epochs": 9, "U-Net modules": 1})
    faults = [progress.fault for piece in log.splitlines() if (progress := drifted(piece)) is not None and progress.fault]
    assert len(faults) == 1
    assert "epochs 1, predicted 9; " in faults[0] or "; epochs 1, predicted 9" in faults[0]
    assert "U-Net modules 278, predicted 1" in faults[0]
    assert metadata["ss_mixed_precision"] == "no"  # despite the user's accelerate config and shell
    assert metadata["ss_gradient_accumulation_steps"] == "1"
    history = engine.history(train)
    assert [entry["step"] for entry in history] == [1, 2]
    assert all(0 < entry["loss"] < 10 for entry in history)
    # block weights FACE zero the text encoder; for networks.lora, a resize follows
    merged = read_header(project.folder(name, "merge") / f"{name}.safetensors").metadata
    assert merged["ss_network_module"] == metadata["ss_network_module"]
    if algorithm == "lora3x3":
        small = read_header(project.folder(name, "resize") / f"{name}.safetensors").tensor_bytes
        assert small < BYTES[algorithm]
    render = project.folder(name, "render")
    with Image.open(render / "front.png") as image:
        assert image.size == (64, 64)
    assert not (render / "temporary").exists()
    if algorithm == "lora3x3":  # drawn while training: after each step
        samples = sorted(path.name for path in (train / "sample").glob("*.png"))
        assert [re.sub(r"\d{14}", "TIME", sample) for sample in samples] == [
            f"{name}_00000{n}_00_TIME_31337.png" for n in (1, 2)
        ]
        assert project.call("report", "--profile", "tiny").returncode == 0
        page = (project.runs / "report" / "index.html").read_text("utf-8")
        assert re.findall(r"<span>step (\d)</span>", page) == ["1", "2"]
    again = project.call("plan", name, "--profile", "tiny")
    assert "0 to run" in again.stdout, again.stdout


def written(project: Project, name: str, parts: list[str], text: str) -> str:
    """Write a recipe with the release's settings, other parts and values, and return its name."""
    extends = ["_base/release-2023-03", "_subjects/krnk", *parts]
    (project.root / "recipes" / f"{name}.toml").write_text(f'extends = {json.dumps(extends)}\nsummary = "x"\n{text}', "utf-8")
    return name


def short(project: Project, profile: str, **training: Any) -> str:
    """Write a profile that trains one step of any recipe, without states and images, and return its name."""
    table = toml.loads((project.root / "recipes" / "_profiles" / "tiny.toml").read_text("utf-8"))
    table["unset"] += ["expect", "training.state_every_n_steps"]
    del table["render"], table["when"], table["training"]["state_every_n_steps"]
    table["training"] |= {"steps": 1, **training}
    (project.root / "recipes" / "_profiles" / f"{profile}.toml").write_text(toml.dumps(table), "utf-8")
    return profile


def trained(project: Project, name: str, profile: str) -> tuple[Path, str]:
    """Train a recipe, and return its finished file and the orchestrator's output."""
    only = ("--only", "dataset", "--only", "train")
    done = project.call("run", name, "--profile", profile, *only)  # exit code 1: later steps are left out
    output = done.stdout + done.stderr
    (project.root / "recipes" / f"{name}.toml").unlink()  # it may be invalid under the profiles of other tests
    folders = [path for path in (project.runs / name).glob("train-*") if path.is_dir()]
    assert len(folders) == 1, output
    return folders[0] / f"{name}.safetensors", output


# BOFT builds several whole weights for each of its own: too much for the memory of a small machine.
FAMILIES = {
    "lokr": "",
    "dylora": "",
    "glora": "",
    "diag-oft": "",
    "boft": '[network.preset]\nunet_target_module = ["Downsample2D"]\ntext_encoder_target_module = []\n',
}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_of_lycoris_trains_the_predicted_tensors(project: Project, family: str) -> None:
    """There is a prediction for every family.

    The orchestrator itself compares every name and shape with it (result_checks).
    """
    name = written(project, f"one-{family}", [f"_algorithms/{family}"], FAMILIES[family])
    profile = short(project, "one")
    recipe = loader.recipe(project.root / "recipes", name, profile).recipe
    file, output = trained(project, name, profile)
    assert "missing in the trainer's output" not in output
    header = read_header(file)
    tensors, metadata, body = header.entries, header.metadata, header.tensor_bytes
    assert expected_tensors.predict(recipe, sd1.MODEL) is not None
    assert (body, len(tensors) > 0) == (expected_tensors.predict(recipe, sd1.MODEL).tensor_bytes, True)
    assert json.loads(metadata["ss_network_args"])["algo"] == family


def test_a_training_that_drifts_from_the_plan_is_stopped_at_its_banner(project: Project) -> None:
    """A prediction of one batch more stands for a changed trainer: no step is trained, and the value is named."""
    name = written(project, "one-drifted", ["_algorithms/lora1x1"], '[dataset]\nname = "drifted"\n')
    words = ("run", name, "--profile", short(project, "one"), "--only")
    project.call(*words, "dataset")
    manifest = project.folder("drifted", "dataset") / "dataset.json"
    batches = json.loads(manifest.read_text("utf-8"))["batches_per_epoch"]
    predicted = batches + (1 if (batches + 1) % 10 else -1)  # as many digits: the file keeps its size
    manifest.write_text(
        manifest.read_text("utf-8").replace(f'batches_per_epoch": {batches}', f'batches_per_epoch": {predicted}')
    )
    done = project.call(*words, "train")
    (project.root / "recipes" / f"{name}.toml").unlink()
    assert done.returncode == 1
    work = next((project.runs / name / ".partial").glob("train-*"))
    assert f"batches per epoch {batches}, predicted {predicted}" in done.stderr
    log = (work / "log.txt").read_text("utf-8")
    assert "total optimization steps" in log
    assert not [piece for piece in re.split(r"[\r\n]+", log) if re.match(r"steps: +[1-9]", piece)]


def test_a_probe_times_real_steps_and_estimates_all_recipes(project: Project) -> None:
    name = written(project, "one-probed", ["_algorithms/locon"], "")
    profile = short(project, "one")
    project.call("run", name, "--profile", profile, "--only", "dataset")
    done = project.call("probe", name, "--profile", profile)
    (project.root / "recipes" / f"{name}.toml").unlink()
    assert done.returncode == 0, done.stdout + done.stderr
    first, *_, last = done.stdout.splitlines()
    assert re.fullmatch(r"one-probed: \d+\.\d{3} s a step on the largest images; 1 step takes at most .*", first)
    assert re.match(r"all recipes: training takes at most .* for (one-probed|\d+ recipes), one after the other", last)
    assert not list(project.runs.glob(".probe-*"))


def test_full_is_rejected_before_it_fails(project: Project) -> None:
    """LyCORIS 3.4.0 deletes the weight that its forward needs (tests/engines/sdscripts/test_network_args.py shows it)."""
    name = written(project, "one-full", ["_algorithms/full"], "")
    done = project.call("run", name, "--profile", short(project, "one"), "--only", "train")
    assert done.returncode == 3, done.stdout
    (project.root / "recipes" / f"{name}.toml").unlink()
    assert "install lycoris-lora==3.2.0.post2 there" in done.stderr


def test_a_training_continues_a_file(project: Project) -> None:
    """With rates that rounding loses, a continued LoCon equals the finished one, number for number."""
    before = project.folder("krnk-locon", "train") / "krnk-locon.safetensors"
    text = f"[network]\nweights = {json.dumps(str(before))}\n"
    name = written(project, "one-continued", ["_algorithms/locon"], text)
    file, _ = trained(project, name, short(project, "still", learning_rate=1e-20, text_encoder_lr=1e-20))
    left, right = load_file(before), load_file(file)
    assert left.keys() == right.keys()
    assert all(np.array_equal(value, right[name]) for name, value in left.items())  # but for the signs of zeros
    assert any(np.any(value) for name, value in left.items() if name.endswith("lora_up.weight"))


def test_lora1x1_with_adafactor(project: Project) -> None:
    """Alpha is 1, and adafactor finds its own rate."""
    name = written(project, "one-1x1", ["_algorithms/lora1x1", "_algorithms/alpha1-1x1", "_algorithms/adafactor"], "")
    profile = project.root / "recipes" / "_profiles" / f"{short(project, 'own')}.toml"
    table = toml.loads(profile.read_text("utf-8"))
    del table["training"]["optimizer"]  # the recipe's own
    profile.write_text(toml.dumps(table), "utf-8")
    file, _ = trained(project, name, "own")
    header = read_header(file)
    tensors, metadata = header.entries, header.metadata
    assert len({tensor.partition(".")[0] for tensor in tensors}) == 264
    assert metadata["ss_network_alpha"] == "1.0"
    assert metadata["ss_optimizer"].startswith("transformers.optimization.Adafactor(relative_step=True,scale_parameter=True")


def test_a_killed_training_resumes(project: Project) -> None:
    """After SIGKILL to orchestrator and trainer, the same command resumes from the last complete state."""
    name = "krnk-lora3x3"
    table = toml.loads((project.root / "recipes" / "_profiles" / "tiny.toml").read_text("utf-8"))
    table["unset"] += ["expect", "render"]
    table["unset"] = [key for key in table["unset"] if key != "render.prompts"]
    del table["render"], table["when"]
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
        works = [path for path in (runs / name / ".partial").glob("train-*") if training_states.newest(path) is not None]
        if works:
            work = works[0]
            break
        time.sleep(0.5)
    assert work is not None, "no complete state was there before the training ended"
    first.kill()
    first.wait()
    child = json.loads((work / "child.json").read_text("utf-8"))
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child["supervisor"], signal.SIGKILL)
    time.sleep(1)
    before = training_states.newest(work)
    assert before is not None
    done = subprocess.run(
        project.argv(*words), cwd=project.root, env=environment, text=True, capture_output=True, timeout=1800, check=False
    )
    folders = [path for path in (runs / name).glob("train-*") if path.is_dir()]
    assert len(folders) == 1, done.stdout + done.stderr
    assert record(folders[0])["resumed_from"] == before[1]
    metadata = read_header(folders[0] / f"{name}.safetensors").metadata
    assert metadata["ss_max_train_steps"] == "3"
    lines = [json.loads(line) for line in (folders[0] / "progress.jsonl").read_text("utf-8").splitlines()]
    assert max(line["done"] for line in lines) == 3
    log = (folders[0] / "log.txt").read_text("utf-8")
    assert f"skipping {before[1]} steps" in log


def test_held_out_images_are_validated(project: Project) -> None:
    """A dataset with validation_split = 1 trains none of its images, and the trainer measures the loss on them."""
    text = '[dataset]\nname = "validated"\n[training.validation]\nimages = ["krnk/f00"]\nevery_n_steps = 1\n'
    name = written(project, "one-validated", ["_algorithms/lora1x1"], text)
    profile = short(project, "two", steps=2)
    built = loader.recipe(project.root / "recipes", name, profile).recipe.built_dataset()
    file, output = trained(project, name, profile)
    assert "missing in the trainer's output" not in output
    train = file.parent
    expected = json.loads((train / "expected.json").read_text("utf-8"))
    manifest = json.loads((project.folder(built, "dataset") / "dataset.json").read_text("utf-8"))
    assert expected["validation images"] == 1
    assert manifest["images"] == len(list((project.root / "data" / "krnk").glob("*.png"))) - 1
    metadata = read_header(file).metadata
    assert metadata["ss_num_validation_images"] == "1"
    history = engine.history(train)
    assert [entry["step"] for entry in history if 0 < entry["validation_loss"] < 10] == [1, 2]
    log = (train / "log.txt").read_text("utf-8")
    assert "epoch validation steps" not in log
