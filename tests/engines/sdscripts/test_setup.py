"""`make setup`: its messages about missing parts, and the lock file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from orchestrator.engines.sdscripts import setup
from orchestrator.system import settings

ROOT = Path(__file__).resolve().parents[3]


def lines(name: str) -> list[str]:
    return [line for line in (ROOT / name).read_text("utf-8").splitlines() if line and not line.startswith("#")]


def test_every_package_is_locked() -> None:
    locked = {re.split("==", line)[0].lower().replace("_", "-"): line for line in lines("requirements-sd-scripts.txt")}
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][A-Za-z0-9.+]*", line) for line in locked.values())
    assert locked["lycoris-lora"].endswith("==3.4.0")
    assert {"torch", "torchvision", "accelerate", "open-clip-torch", "toml", "voluptuous"} <= locked.keys()
    assert "bitsandbytes" not in locked  # only where there is CUDA
    assert [line.split("==")[0] for line in lines("requirements-sd-scripts-cuda.txt")] == ["bitsandbytes"]


def test_the_lock_holds_sd_scripts_requirements() -> None:
    file = settings.sd_scripts() / "requirements.txt"
    if not file.is_file():
        pytest.skip(f"no sd-scripts checkout in {settings.sd_scripts()}")
    locked = {
        line.split("==")[0].lower().replace("_", "-"): line.split("==")[1] for line in lines("requirements-sd-scripts.txt")
    }
    for line in file.read_text("utf-8").splitlines():
        if line and not line.startswith(("#", "-e")):
            name, _, version = line.partition("==")
            name = name.partition("[")[0].strip().lower().replace("_", "-")
            if name != "bitsandbytes":
                assert locked[name] == version.strip() or not version, line


def test_a_configured_folder_without_sd_scripts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SD_SCRIPTS_DIR", str(tmp_path))
    assert setup.main() == 3
    assert "is set as the sd-scripts checkout but does not hold it" in capsys.readouterr().err


def test_without_a_git_clone_the_message_names_the_alternatives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("SD_SCRIPTS_DIR", raising=False)
    monkeypatch.setattr(settings, "ROOT", tmp_path)
    assert setup.main() == 3
    error = capsys.readouterr().err
    assert "make demo" in error
    assert "SD_SCRIPTS_DIR" in error


def test_a_configured_python_that_does_not_exist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("train_network.py", "library/train_util.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.setenv("SD_SCRIPTS_DIR", str(tmp_path))
    monkeypatch.setenv("SD_SCRIPTS_PYTHON", str(tmp_path / "none"))
    assert setup.main() == 3
    assert "is set as sd-scripts' Python but does not exist" in capsys.readouterr().err
