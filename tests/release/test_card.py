"""Model cards: shape, numbers, templates, licences."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import made_runs
from bundles import folder
from orchestrator.errors import StepFailed
from orchestrator.release import __main__ as release
from orchestrator.release import card


def front(path: Path) -> tuple[dict[str, Any], str]:
    _, head, text = path.read_text("utf-8").split("---\n", 2)
    return yaml.safe_load(head), text


def test_the_card_has_the_shape_of_the_seed(runs: Path) -> None:
    head, text = front(folder(runs, "krnk_tyank") / "README.md")
    assert head["instance_prompt"] == "krnk"
    assert head["widget"][0]["output"]["url"] == "krnk-lora3x3.png"
    assert "lora" in head["tags"]
    for part in (
        "# 黒猫耳キャラと茶猫耳キャラのLora",
        "# 利用方法",
        "# 主な学習パラメータ",
        "# 出力例",
        "# English",
        "## How to use them",
    ):
        assert part in text
    assert "FACE:0,1,1,1,1,1,0,0,0,1,0,0,0,0,1,0,1,1,1,0,1,1,1,0,0,1" in text
    assert "sv_ratio=16" in text
    assert "![krnk_grid](./image/krnk_grid.webp)" in text
    assert "| 左半分 | `krnksf, krnk` |" in text
    assert "learning_rate: 1e-4" in text
    assert "text_encoder_lr: 4.4e-5" in text
    assert not re.search(r"^\|.*\n\n\|", text, re.MULTILINE)  # no table falls apart


@pytest.mark.parametrize("name", ["README.md", "README.ja.md"])
def test_every_number_of_a_card_comes_from_records(runs: Path, tmp_path: Path, name: str) -> None:
    """Other records give the same recipe other numbers.

    Without records there are no numbers.
    """
    recipe = made_runs.loaded("krnk-lora3x3").recipe
    request = made_runs.request(tmp_path, recipe)
    train = json.loads((Path(request["folders"]["train"]) / "record.json").read_text("utf-8"))
    train["params"]["training"] |= {"steps": 777, "learning_rate": 3.25e-5, "seed": 4242}
    train["params"]["network"] |= {"dim": 96, "conv_dim": 48}
    resize = json.loads((Path(request["folders"]["resize"]) / "record.json").read_text("utf-8"))
    resize["params"]["sv_ratio"] = 13.0
    request["records"] = {"train": train, "resize": resize}
    assert made_runs.call(release, tmp_path / "request.json", request) == 0
    text = (Path(request["output"]) / name).read_text("utf-8")
    for number in ("777", "3.25e-5", "4242", "96 / 48", "sv_ratio=13"):
        assert number in text
    assert "1000" not in text
    request["folders"], request["records"], request["output"] = {}, {}, str(tmp_path / "bare")
    assert made_runs.call(release, tmp_path / "request.json", request) == 0
    bare = (tmp_path / "bare" / name).read_text("utf-8")
    for number in ("1000", "1e-4", "31337 |", "128 / 128", "sv_ratio"):
        assert number not in bare


def test_no_template_holds_a_number_of_a_release() -> None:
    for path in (Path(card.__file__).parent / "templates").glob("*.j2"):
        text = re.sub(r"\{%.*?%\}|\{\{.*?\}\}|\{#.*?#\}", "", path.read_text("utf-8"), flags=re.DOTALL)
        assert not re.findall(r"\b\d{2,}\b", re.sub(r"A1111|SHA-256", "", text)), path.name


def test_a_recipe_may_bring_its_own_template(tmp_path: Path) -> None:
    recipe = made_runs.loaded("krnk-locon").recipe
    request = made_runs.request(tmp_path, recipe)
    own = tmp_path / "cards"
    own.mkdir()
    (own / "recipe.en.md.j2").write_text("mine: {{ facts.weights.modules }} of {{ recipe.name }}", "utf-8")
    request |= {"root": str(tmp_path)}
    request["recipe"]["release"]["templates"] = "cards"
    assert made_runs.call(release, tmp_path / "request.json", request) == 0
    assert (Path(request["output"]) / "README.md").read_text("utf-8") == "mine: 9 of krnk-locon\n"


def test_a_template_can_neither_run_programs_nor_invent_values(tmp_path: Path) -> None:
    for text in ("{{ ''.__class__.__mro__ }}", "{{ facts.nothing_of_the_kind }}", "{% include '../../x' %}", "{{"):
        (tmp_path / "recipe.en.md.j2").write_text(text, "utf-8")
        with pytest.raises(StepFailed, match=r"recipe\.en|templates"):
            card.render("recipe.en.md.j2", {"facts": {}}, str(tmp_path))


@pytest.mark.parametrize(
    ("licence", "head"),
    [
        ("MIT", {"license": "mit"}),
        ("CharFramework terms", {"license": "other", "license_name": "CharFramework terms"}),
        ("", {}),
    ],
)
def test_licences_have_the_names_of_the_hub(licence: str, head: dict[str, str]) -> None:
    recipe = made_runs.loaded("krnk-locon").recipe
    recipe = recipe.model_copy(
        update={
            "release": recipe.release.model_copy(update={"license": licence}),
            "base": recipe.base.model_copy(update={"url": "hf:someone/base/file.safetensors"}),
        }
    )
    result = yaml.safe_load(card.front_matter([recipe], []).strip("-\n"))
    assert {key: value for key, value in result.items() if key.startswith("license")} == head
    assert result["base_model"] == "someone/base"


@pytest.mark.parametrize(
    ("value", "text"), [(1e-4, "1e-4"), (4.4e-5, "4.4e-5"), (0.001, "0.001"), (0.0, "0"), ([1e-5, 0.0], "1e-5, 0")]
)
def test_rates(value: float, text: str) -> None:
    assert card.rate(value) == text


def test_without_a_vae_the_card_is_whole(tmp_path: Path) -> None:
    request = made_runs.request(tmp_path, made_runs.loaded("krnk-locon").recipe)
    request["recipe"]["base"]["vae"] = ""
    assert made_runs.call(release, tmp_path / "request.json", request) == 0
    assert "with the VAE" not in (Path(request["output"]) / "README.md").read_text("utf-8")
