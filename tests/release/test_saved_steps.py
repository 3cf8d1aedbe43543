"""The [select] of a recipe.

Kept steps, the grid that `run` ends with, the plan's prediction.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import fakes
import harness
from command_line import call
from orchestrator.engines.sdscripts import arguments
from orchestrator.plan import estimate
from orchestrator.recipe.validate import check
from orchestrator.release import saved_steps
from orchestrator.run import choice
from orchestrator.run.workspace import Selection
from orchestrator.weights.io.safetensors_io import read_header

if TYPE_CHECKING:
    from orchestrator.recipe import Recipe

SAVING = "[training]\nsave_every_n_steps = 6\n"


@pytest.fixture
def cats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> harness.Project:
    project = harness.make(tmp_path / "project", monkeypatch)
    monkeypatch.setenv("KRNK_PROJECT", str(project.root))
    return project


def loaded(cats: harness.Project, text: str) -> Recipe:
    cats.recipe("cat-saved", "lora", SAVING + text)
    return cats.space().load(Selection(("cat-saved",)))[0].recipe


def test_kept_steps_are_the_last_ones_and_the_trainer_removes_the_others(cats: harness.Project) -> None:
    assert loaded(cats, "").saved_steps() == (6, 12, 18, 20)
    kept = loaded(cats, "[select]\nkeep = 2\n")
    assert kept.saved_steps() == (12, 18, 20)
    inputs = {"checkpoint": Path("/m"), "dataset": Path("/d")}
    argv = arguments.train(kept, inputs, Path("/w"), None).argv
    # get_remove_step_no of sd-scripts: of step - n - 1 the multiple below. At 18 it removes 6, at 12 nothing.
    number = int(argv[argv.index("--save_last_n_steps") + 1])
    assert [(step - number - 1) - (step - number - 1) % 6 for step in (12, 18)] == [0, 6]


def test_impossible_choices_are_conflicts(cats: harness.Project) -> None:
    recipe = loaded(cats, "")

    def conflicts(**values: object) -> list[tuple[str, str]]:
        return check(recipe.model_copy(update={"select": recipe.select.model_copy(update=values)}))

    assert conflicts(step=18, steps=(6, 20)) == []
    assert conflicts(step=7) == [("select.step", "lists 7; the training saves 6, 12, 18, 20")]
    assert conflicts(step=6, keep=1)[0][0] == "select.step"
    unsaved = recipe.model_copy(
        update={
            "training": recipe.training.model_copy(update={"save_every_n_steps": None}),
            "select": recipe.select.model_copy(update={"steps": "all"}),
        }
    )
    assert "needs training.save_every_n_steps" in check(unsaved)[0][1]


def test_run_ends_with_the_grid_that_the_recipe_asks_for(
    cats: harness.Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = loaded(cats, '[select]\nsteps = "all"\n')
    predicted = estimate.predict(recipe, cats.space().inputs)
    assert (predicted["saved_steps"], predicted["saved_images"]) == (4, 4)
    assert call(monkeypatch, "plan", "cat-saved") == 0
    assert "grid of 4 saved steps: 4 images, time unknown before the first" in capsys.readouterr().out
    assert call(monkeypatch, "run", "cat-saved") == 0
    out = capsys.readouterr().out
    grid = cats.root / "runs" / "cat-saved" / "variants" / "step_grid.png"
    assert out.splitlines()[-1] == str(grid)
    assert grid.is_file()
    assert call(monkeypatch, "plan", "cat-saved") == 0
    assert "4 images, about " in capsys.readouterr().out


def test_a_chosen_step_of_the_recipe_is_released(
    cats: harness.Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded(cats, '[select]\nstep = 12\nreason = "the eyes are right"\n')
    assert call(monkeypatch, "plan", "cat-saved") == 0
    assert "releases step 12 of 20: the eyes are right" in capsys.readouterr().out
    assert call(monkeypatch, "run", "cat-saved") == 0
    owner = cats.root / "runs" / "cat-saved"
    merged = next(owner.glob("merge-*")) / "cat-saved.safetensors"
    trained = next(owner.glob("train-*"))
    assert merged.read_bytes()[-64:] == (trained / "cat-saved-step00000012.safetensors").read_bytes()[-64:]
    assert merged.read_bytes()[-64:] != (trained / "cat-saved.safetensors").read_bytes()[-64:]
    latest = owner / "latest"
    metadata = read_header(latest / "cat-saved.safetensors").metadata
    assert metadata["ss_steps"] == "12"
    assert "Step 12 of 20 (the eyes are right)" in metadata["ssmd_description"]
    assert re.search(r"\| step \| 12 of 20, epoch \d+: the eyes are right \|", (latest / "README.md").read_text("utf-8"))
    assert "12" in (latest / "README.ja.md").read_text("utf-8")
    facts = json.loads((latest / "manifest.json").read_text("utf-8"))["facts"]
    assert facts["step"]["released"] == 12


def test_a_kept_choice_is_released_until_the_training_changes(cats: harness.Project) -> None:
    recipe = loaded(cats, "")
    cats.run("cat-saved")
    space = cats.space()
    plan = space.planned(recipe)
    train = plan.by_name["cat-saved/train"]
    kept = choice.make(choice.with_step(recipe, 12, ""), train, space.store, "it is the best")
    choice.write(space.store, recipe, kept)
    assert cats.reasons("cat-saved")["cat-saved/train"] == "cached"
    assert cats.reasons("cat-saved")["cat-saved/merge"] == "changed: step none -> 12"
    assert space.plan(space.load(Selection(("cat-saved",)))).recipes["cat-saved"].select.step == 12
    cats.run("cat-saved")
    owner = cats.root / "runs" / "cat-saved"
    assert read_header(owner / "latest" / "cat-saved.safetensors").metadata["ss_steps"] == "12"

    cats.run("cat-saved", force=("train",))  # other files
    other = cats.space()
    assert other.plan(other.load(Selection(("cat-saved",)))).recipes["cat-saved"].select.step is None
    assert "was chosen of an earlier training" in other.notes[0]
    choice.remove(space.store, recipe)
    last = cats.space()
    last.plan(last.load(Selection(("cat-saved",))))
    assert last.notes == []


def test_steps_saved_after_a_resume_are_named_by_the_whole_training(
    cats: harness.Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """sd-scripts that resumes step 9 in a later epoch of 5 calls its next step 5, and adds steps at the end."""
    recipe = loaded(cats, "")
    monkeypatch.setattr(fakes, "lost_steps", lambda _work, _when: 5)
    cats.run("cat-saved", only=("dataset", "train"))
    train = next((cats.root / "runs" / "cat-saved").glob("train-*"))
    assert sorted(path.name for path in train.glob("*.safetensors")) == [
        "cat-saved-step00000011.safetensors",
        "cat-saved-step00000017.safetensors",
        "cat-saved-step00000023.safetensors",
        "cat-saved.safetensors",
    ]
    assert set(json.loads((train / "record.json").read_text("utf-8"))["outputs"]) == {
        path.name for path in train.glob("*.saf*")
    }
    assert saved_steps.in_folder(recipe, train) == (11, 17, 20)
