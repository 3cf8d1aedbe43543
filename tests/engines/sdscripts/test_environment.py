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


@pytest.mark.parametrize(
    ("family", "installed", "named"),
    [
        ("locon", "4.0.0", "is lycoris-lora 4.0.0, which stops in sd-scripts: duplicated lora name"),
        ("boft", "10.1", "is lycoris-lora 10.1, which stops in sd-scripts: duplicated lora name"),
        ("locon", "3.4.0", ""),
        ("locon", "dev", ""),
        ("locon", "", ""),
        ("lora", "4.0.0", ""),
        ("full", "3.4.0", "is lycoris-lora 3.4.0, which cannot train full: it deletes the weights that its forward needs"),
        ("full", "3.2.0.post2", ""),
    ],
)
def test_a_lycoris_that_cannot_train_the_family_is_named(tmp_path: Path, family: str, installed: str, named: str) -> None:
    base = example("krnk-sdxl")
    recipe = base.model_copy(update={"network": base.network.model_copy(update={"family": family})})
    for name in ("torch", "accelerate", "transformers", "diffusers", "lycoris", "bitsandbytes"):
        (tmp_path / name).mkdir()
    if installed:
        (tmp_path / f"lycoris_lora-{installed}.dist-info").mkdir()
    found = [problem for problem in environment.package_problems(recipe, tmp_path) if "lycoris" in problem.what]
    assert [problem.what for problem in found] == ([named] if named else [])
    (tmp_path / "lycoris").rmdir()
    missing = [problem.what for problem in environment.package_problems(recipe, tmp_path) if "not there" in problem.what]
    expected = [] if family == "lora" else [f"the package lycoris is not there (network.family = {family})"]
    assert [what for what in missing if "lycoris" in what] == expected


@pytest.mark.parametrize(
    ("optimizer", "package"),
    [
        ("Lion", "lion_pytorch"),
        ("Lion8bit", "bitsandbytes"),
        ("PagedAdamW", "bitsandbytes"),
        ("PagedAdamW32bit", "bitsandbytes"),
        ("DAdaptLion", "dadaptation"),
        ("Prodigy", "prodigyopt"),
        ("AdamWScheduleFree", "schedulefree"),
        ("AdamW", ""),
        ("Adafactor", ""),
    ],
)
def test_an_optimizer_needs_its_package(tmp_path: Path, optimizer: str, package: str) -> None:
    base = example("krnk-sdxl")
    recipe = base.model_copy(update={"training": base.training.model_copy(update={"optimizer": optimizer})})
    for name in ("torch", "accelerate", "transformers", "diffusers"):
        (tmp_path / name).mkdir()
    (tmp_path / "lycoris.py").touch()  # a module is a package too
    missing = [problem.what for problem in environment.package_problems(recipe, tmp_path)]
    assert missing == ([f"the package {package} is not there (training.optimizer = {optimizer})"] if package else [])


def test_versions_that_were_not_tried_are_warnings(tmp_path: Path) -> None:
    packages = tmp_path / "lib" / "python3.11" / "site-packages"
    for lycoris, torch, detail in (
        ("3.1.0", "2.8.0+cu128", "3.1.0: not tried with this sd-scripts"),
        ("4.1.3", "2.8.0", "4.1.3: duplicated lora name: lora_unet_time_embedding_linear_1"),
    ):
        folder = packages / lycoris
        for name in (f"lycoris_lora-{lycoris}", f"torch-{torch}", "torchvision-0.1", "xformers-0.0.31"):
            (folder / f"{name}.dist-info").mkdir(parents=True)
        built, network, xformers = environment._versions(folder)
        assert (built.status, built.detail) == (CheckStatus.PASS, torch)
        assert (network.status, network.detail) == (CheckStatus.WARNING, detail)
        assert (xformers.status, xformers.detail) == (CheckStatus.PASS, '0.0.31 (for attention = "xformers")')


def test_tokenizers_of_the_hub_have_the_command_that_downloads_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SD_SCRIPTS_TOKENIZERS", str(tmp_path))
    monkeypatch.setenv("SD_SCRIPTS_PYTHON", "/venv/bin/python")
    (gemma,) = environment.tokenizer_problems(example("krnk-lumina"))
    assert gemma.what == "the tokenizer of google/gemma-2-2b is not there"
    assert gemma.hint.startswith('/venv/bin/hf download google/gemma-2-2b --include "*.json"')
    assert gemma.hint.endswith(
        "accept the licence on https://huggingface.co/google/gemma-2-2b and run /venv/bin/hf auth login"
    )
    (qwen,) = environment.tokenizer_problems(example("krnk-hunyuan-image"))  # make setup writes that of ByT5
    assert qwen.what == "the tokenizer of Qwen/Qwen2.5-VL-7B-Instruct is not there"
    assert "licence" not in qwen.hint
    (tmp_path / "models--google--gemma-2-2b" / "snapshots").mkdir(parents=True)
    assert list(environment.tokenizer_problems(example("krnk-lumina"))) == []
    assert list(environment.tokenizer_problems(example("krnk-flux"))) == []
