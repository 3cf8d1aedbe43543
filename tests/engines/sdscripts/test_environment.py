"""Checks of the installed parts of sd-scripts."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.engines.sdscripts import checkout, environment, write_tokenizer
from orchestrator.recipe import Recipe, loader
from orchestrator.weights.checks import CheckStatus

RECIPES = Path(__file__).resolve().parents[3] / "recipes"


def example(name: str) -> Recipe:
    return loader.recipe(RECIPES, f"examples/{name}").recipe


def test_versions_in_an_environment(tmp_path: Path) -> None:
    packages = tmp_path / "lib" / "python3.11" / "site-packages"
    packages.mkdir(parents=True)
    (tmp_path / "pyvenv.cfg").write_text("", "utf-8")
    (packages / "lycoris_lora-3.4.0.dist-info").mkdir()
    (packages / "torch-2.8.0+cpu.dist-info").mkdir()
    assert environment.site_packages(tmp_path / "bin" / "python") == packages
    assert environment.version(packages, "lycoris_lora") == "3.4.0"
    states = {check.what: check.status for check in environment._versions(packages)}
    assert states == {"torch of sd-scripts": CheckStatus.WARNING, "LyCORIS": CheckStatus.PASS}


def test_another_commit_and_an_incomplete_tokenizer_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SD_SCRIPTS_DIR", str(tmp_path))
    monkeypatch.setenv("SD_SCRIPTS_TOKENIZERS", str(tmp_path / "tokenizers"))
    (tmp_path / "library").mkdir()
    for name in ("train_network.py", "library/train_util.py"):
        (tmp_path / name).touch()
    (tmp_path / "tokenizers" / write_tokenizer.NAMES[0]).mkdir(parents=True)
    results = environment.checks([example("krnk-sdxl")])
    commit, tokenizer, second = results[0], *results[-2:]
    assert commit.status is CheckStatus.WARNING
    assert commit.detail.startswith("files ")
    assert commit.fix.endswith(f"checkout {checkout.PINNED}")
    assert tokenizer.status is CheckStatus.FAIL
    assert tokenizer.detail.endswith("lacks vocab.json, merges.txt, tokenizer_config.json, special_tokens_map.json")
    assert second.status is CheckStatus.WARNING
    assert "downloads it at its first start" in second.detail


@pytest.mark.parametrize(("name", "labels"), [("krnk-flux", ["tokenizer of CLIP-L"]), ("krnk-anima", [])])
def test_only_the_tokenizers_of_the_base_model_are_checked(name: str, labels: list[str]) -> None:
    assert [check.what for check in environment.checks([example(name)]) if "tokenizer" in check.what] == labels
