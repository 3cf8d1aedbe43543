"""Fixtures of the tests with the real sd-scripts.

Checkout, a random model of real size, a small project.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import toml

import small_models as small
from orchestrator.engines.sdscripts import checkout
from orchestrator.system import settings
from sd_scripts_projects import Project, SmallProject

ROOT = Path(__file__).resolve().parent.parent.parent
DONE = "complete"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave these tests to `make test-sd-scripts` (-m sd_scripts), even where there is a checkout: they take long."""
    if "sd_scripts" not in str(config.getoption("markexpr")):
        real = [item for item in items if item.get_closest_marker("sd_scripts")]
        config.hook.pytest_deselected(items=real)
        items[:] = [item for item in items if item not in real]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print once why these tests were skipped."""
    if config.getoption("markexpr") == "sd_scripts":
        skipped = [
            report.longrepr for report in terminalreporter.getreports("skipped") if isinstance(report, pytest.TestReport)
        ]
        for reason in sorted({longrepr[2] for longrepr in skipped if isinstance(longrepr, tuple)}):
            terminalreporter.write_line(f"make test-sd-scripts: {reason.removeprefix('Skipped: ')}")


@pytest.fixture(scope="session")
def sd_scripts() -> Path:
    """Return the checkout, or skip with a line about the missing part."""
    folder, python = settings.sd_scripts(), settings.sd_scripts_python()
    if not checkout.present(folder):
        pytest.skip(f"no sd-scripts checkout in {folder} (make setup, or SD_SCRIPTS_DIR)")
    if not python.is_file():
        pytest.skip(f"no Python with sd-scripts' requirements at {python} (make setup, or SD_SCRIPTS_PYTHON)")
    return folder


def random_model(folder: Path) -> Path:
    """Return a folder with ``base_sd15`` and ``tokenizers`` ($KRNK_TEST_SD15 if set), written if it is missing."""
    kept = os.environ.get("KRNK_TEST_SD15")
    folder = Path(kept) if kept else folder
    if not (folder / DONE).is_file():
        shutil.rmtree(folder, ignore_errors=True)
        argv = [str(settings.sd_scripts_python()), str(Path(__file__).with_name("make_model.py")), str(folder)]
        subprocess.run(argv, check=True, capture_output=True, timeout=900)
        (folder / DONE).touch()
    return folder


@pytest.fixture(scope="session")
def random_sd15(sd_scripts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_model(tmp_path_factory.mktemp("sd15") / "model")


def overlay(root: Path, model: Path) -> dict[str, Any]:
    """Return the profile ``cpu`` made small: 64x64 images, two steps, one prompt."""
    table: dict[str, Any] = toml.loads((root / "recipes" / "_profiles" / "cpu.toml").read_text("utf-8"))
    table["unset"] = ["base.vae", "dataset.batch_size", "render.prompts"]
    table["base"] = {"checkpoint": str(model / "base_sd15")}
    table["dataset"] = {"sizes": [64], "originals": False, "resolution_classes": [64], "batch_size": {"default": 1}}
    table["dataset"] |= {"min_bucket_reso": 64, "max_bucket_reso": 64}
    table["training"] |= {"steps": 2, "state_every_n_steps": 1}
    table["when"] = {"lora3x3": {"training": {"sample_every_n_steps": 1}}}
    table["render"] |= {"width": 64, "height": 64, "steps": 2, "prompts": {"front": {"prompt": "{trigger}, white background"}}}
    return table


@pytest.fixture(scope="session")
def project(random_sd15: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    kept = os.environ.get("KRNK_TEST_PROJECT")
    root = Path(kept) if kept else tmp_path_factory.mktemp("project")
    shutil.copytree(ROOT / "recipes", root / "recipes", dirs_exist_ok=True)
    shutil.copytree(ROOT / "data" / "krnk", root / "data" / "krnk", dirs_exist_ok=True)
    (root / "recipes" / "_profiles" / "tiny.toml").write_text(toml.dumps(overlay(root, random_sd15)), "utf-8")
    # A global configuration and a shell in which a run would be one of four, in half precision, with four batches a step.
    accelerate = root / "huggingface" / "accelerate" / "default_config.yaml"
    accelerate.parent.mkdir(parents=True, exist_ok=True)
    accelerate.write_text("distributed_type: MULTI_GPU\nnum_processes: 4\nmixed_precision: fp16\nuse_cpu: false\n", "utf-8")
    environment = {
        **os.environ,
        "HF_HOME": str(root / "huggingface"),
        "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4",
        "ACCELERATE_MIXED_PRECISION": "fp16",
        "ACCELERATE_USE_FSDP": "true",
        "WORLD_SIZE": "4",
        "LOCAL_RANK": "3",
        "KRNK_PROJECT": str(root),
        "PYTHONPATH": str(ROOT),
        "SD_SCRIPTS_DIR": str(settings.sd_scripts()),
        "SD_SCRIPTS_PYTHON": str(settings.sd_scripts_python()),
        "SD_SCRIPTS_TOKENIZERS": str(random_sd15 / "tokenizers"),
        "KRNK_MODELS": str(random_sd15),
        "HF_HUB_OFFLINE": "1",
    }
    return Project(root, environment)


@pytest.fixture(scope="session")
def small_models(sd_scripts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the small models ($KRNK_TEST_SMALL if set), for ``small.model``."""
    return small.kept(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="session")
def small_project(small_models: Path, tmp_path_factory: pytest.TempPathFactory) -> SmallProject:
    root = tmp_path_factory.mktemp("small-project")
    shutil.copytree(ROOT / "recipes", root / "recipes", dirs_exist_ok=True)
    (root / "data" / "krnk").mkdir(parents=True)
    for path in sorted((ROOT / "data" / "krnk").glob("f0[01]*")):
        shutil.copy(path, root / "data" / "krnk")
    table: dict[str, Any] = {
        "unset": [
            "expect",
            "base.vae",
            "base.files",
            "base.clip_skip",
            "dataset.batch_size",
            "training.text_encoder_lr",
            "render.prompts",
        ],
        "block_weights": "ALL",
        "dataset": {"sizes": [64], "originals": False, "resolution_classes": [64], "repeats": 1, "batch_size": {"default": 1}},
        "training": {"state_every_n_steps": 1, "learning_rate": 1e-3},
        "resize": {"new_rank": 2},
    }
    table["dataset"] |= {"min_bucket_reso": 64, "max_bucket_reso": 64}
    (root / "recipes" / "_small.toml").write_text(toml.dumps(table), "utf-8")
    tokenizers = small.model(small_models, "tokenizers")
    environment = {
        **os.environ,
        "HF_HOME": str(tokenizers),
        "KRNK_PROJECT": str(root),
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests" / "support"))),
        "SD_SCRIPTS_DIR": str(settings.sd_scripts()),
        "SD_SCRIPTS_PYTHON": str(small.python(tmp_path_factory.mktemp("python"))),
        "SD_SCRIPTS_TOKENIZERS": str(tokenizers),
        "KRNK_MODELS": str(small_models),
        "HF_HUB_OFFLINE": "1",
    }
    return SmallProject(root, environment, small_models)
