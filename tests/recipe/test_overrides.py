"""Values that a profile overrides are listed, and wrong ones are errors all the same."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

import harness
from command_line import call
from orchestrator.errors import RecipeError, report
from orchestrator.recipe import loader
from orchestrator.run.workspace import Selection, Workspace

if TYPE_CHECKING:
    from pathlib import Path

PROFILE = 'unset = ["training.lr_warmup_steps"]\n[network]\ndim = 1\n[training]\nsteps = 4\n'
OWN = '[network]\ndim = 2\n[training]\nsteps = 20\nlr_scheduler = "linear"\nlr_warmup_steps = 3\n'
LISTED = """cat-lora: the profile small overrides
    network.dim  your recipe: 2; small: 1
    training.steps  your recipe: 20; small: 4
    training.lr_warmup_steps  your recipe: 3; small: left out
"""


@pytest.fixture
def cats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> harness.Project:
    project = harness.make(tmp_path, monkeypatch)
    project.write("_profiles/small", PROFILE)
    project.recipe("cat-lora", "lora", OWN)
    monkeypatch.chdir(tmp_path)
    return project


@pytest.mark.usefixtures("cats")
def test_plan_and_run_list_what_the_profile_overrides(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "plan", "cat-lora", "--profile", "small") == 0
    assert LISTED in capsys.readouterr().out
    for _ in ("trained", "cached"):
        assert call(monkeypatch, "run", "cat-lora", "--profile", "small") == 0
        assert LISTED in capsys.readouterr().err
    assert call(monkeypatch, "plan", "cat-lora") == 0
    assert "overrides" not in capsys.readouterr().out


def test_values_for_a_subject_by_name_are_no_surprise(
    cats: harness.Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cats.write("_profiles/small", PROFILE + '[when.cat.dataset.sources.cat]\ntrigger = "cat, kitten"\n')
    assert call(monkeypatch, "plan", "cat-lora", "--profile", "small") == 0
    assert "kitten" not in capsys.readouterr().out


@pytest.mark.usefixtures("cats")
def test_plan_as_json_holds_the_overrides(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(monkeypatch, "plan", "cat-lora", "--profile", "small", "--json") == 0
    (recipe,) = json.loads(capsys.readouterr().out)["recipes"]
    assert recipe["overrides"][0] == {"key": "network.dim", "own": "2", "profile": "1", "of_part": False}


@pytest.mark.parametrize(
    ("text", "where", "message"),
    [
        ('block_weights = "FACES"\n', "block_weights", "did you mean FACE?"),
        ("[network]\ndim = 0\n", "network.dim", "is 0; should be greater than or equal to 1"),
        ("[training]\nlearning_rate = 0.0\n", "training.learning_rate", "nothing would be trained"),
        ("[expect]\nmodules = 9\n", "expect.modules", "promises 9 modules"),
    ],
)
def test_overridden_values_are_validated(cats: harness.Project, text: str, where: str, message: str) -> None:
    cats.write("_profiles/small", PROFILE.replace("[", '["block_weights", "expect", ', 1) + "learning_rate = 1e-4\n")
    recipe = harness.RECIPE.replace(f"block_weights = {harness.WEIGHTS}\n", "") % ("lora", "lora")
    cats.write("cat-lora", recipe + text)
    with pytest.raises(RecipeError) as raised:
        Workspace(cats.root).load(Selection(("cat-lora",), "small"))
    message_text = report(raised.value)
    assert f"cat-lora.toml: {where}\n" in message_text
    assert message in message_text
    assert "(without --profile" in message_text


def test_a_profile_may_set_what_a_recipe_lacks(cats: harness.Project) -> None:
    cats.write("_base/base", harness.BASE.replace("steps = 20\n", ""))
    cats.recipe("cat-lora", "lora")
    loaded = Workspace(cats.root).load(Selection(("cat-lora",), "small"))[0]
    assert loaded.recipe.training.steps == 4
    assert loaded.own is None


def test_values_of_parts_of_the_program_are_counted_only(project: Path) -> None:
    loaded = loader.recipe(project / "recipes", "krnk-locon", "demo")
    assert {override.key for override in loaded.overrides} > {"network.dim", "training.steps", "render.width"}
    assert all(override.of_part for override in loaded.overrides)
