"""`make setup`: what it says where something is missing, what is locked, and the tokenizer that needs no download."""

from __future__ import annotations

import gzip
import importlib.util
import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from orchestrator.dataset.lint import clip_tokens
from orchestrator.engines.sdscripts import setup, write_tokenizer
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


def test_the_lock_holds_what_sd_scripts_asks_for() -> None:
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


def test_no_git_clone_says_what_works_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("SD_SCRIPTS_DIR", raising=False)
    monkeypatch.setattr(settings, "ROOT", tmp_path)
    assert setup.main() == 3
    said = capsys.readouterr().err
    assert "make demo" in said
    assert "SD_SCRIPTS_DIR" in said


def test_a_configured_python_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("train_network.py", "library/train_util.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.setenv("SD_SCRIPTS_DIR", str(tmp_path))
    monkeypatch.setenv("SD_SCRIPTS_PYTHON", str(tmp_path / "none"))
    assert setup.main() == 3
    assert "is set as sd-scripts' Python but does not exist" in capsys.readouterr().err


def test_the_tokenizer_is_written_from_the_shipped_vocabulary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "open_clip"
    package.mkdir()
    merges = ["#version: 0.2", *(f"a b{number}" for number in range(write_tokenizer.MERGES + 100))]
    (package / write_tokenizer.VOCABULARY).write_bytes(gzip.compress("\n".join(merges).encode()))
    found = SimpleNamespace(origin=str(package / "__init__.py"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: found)
    folder = tmp_path / "out" / write_tokenizer.NAMES[0]
    write_tokenizer.write(folder)
    words = json.loads((folder / "vocab.json").read_text("utf-8"))
    assert len(words) == 49408
    assert (words["!"], words["!</w>"], words["<|endoftext|>"]) == (0, 256, 49407)
    assert write_tokenizer.characters() == list(clip_tokens.byte_characters().values())
    assert len(set(write_tokenizer.characters())) == 256
    assert json.loads((folder / "tokenizer_config.json").read_text("utf-8"))["model_max_length"] == 77
    assert not folder.with_name(f"{folder.name}.part").exists()
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(FileNotFoundError):
        write_tokenizer.write(tmp_path / "other")
