"""Epochs are counted as steps, by the trainer's arithmetic."""

from __future__ import annotations

import pytest

import harness
from command_line import call
from orchestrator.errors import RecipeError, report
from orchestrator.run.preflight import load_allowed
from orchestrator.run.workspace import Selection

EPOCHS = 'unset = ["training.steps"]\n'


def with_epochs(cats: harness.Project, more: str, head: str = EPOCHS) -> None:
    cats.write("cat-lora", head + harness.RECIPE % ("lora", "lora") + more)


@pytest.mark.parametrize(("batch", "accumulation", "steps"), [(1, 1, 6), (2, 1, 3), (1, 2, 3), (1, 4, 3)])
def test_epochs_become_steps(cats: harness.Project, batch: int, accumulation: int, steps: int) -> None:
    """Two images, 3 epochs: ceil(batches / accumulation) steps each."""
    more = f"[training]\nepochs = 3\ngradient_accumulation_steps = {accumulation}\n[dataset.batch_size]\ndefault = {batch}\n"
    with_epochs(cats, more)
    space = cats.space()
    plan = space.plan(space.load(Selection(("cat-lora",))))
    predicted = space.as_json(plan, space.reasons(plan))["recipes"][0]["predicted"]
    assert (predicted["train_steps"], predicted["epochs"]) == (steps, 3)


def test_the_key_is_that_of_the_steps(cats: harness.Project) -> None:
    def keys() -> dict[str, str]:
        space = cats.space()
        return {step.name: step.key for step in space.plan(space.load(Selection(("cat-lora",)))).steps}

    with_epochs(cats, "[training]\nepochs = 3\n")
    by_epochs = keys()
    cats.recipe("cat-lora", "lora", "[training]\nsteps = 6\n")
    assert keys() == by_epochs


def test_a_recipe_with_epochs_runs_to_its_release(cats: harness.Project) -> None:
    with_epochs(cats, "[training]\nepochs = 5\n")
    assert all(outcome.status.ok for outcome in cats.run("cat-lora").values())
    assert set(cats.reasons("cat-lora").values()) == {"cached"}
    assert load_allowed(cats.root, "cat-lora").training.epochs == 5


@pytest.mark.parametrize(
    ("head", "more", "message"),
    [
        ("", "[training]\nepochs = 3\n", "training.epochs\n    is set with training.steps; leave one of them out"),
        (EPOCHS, "", "training.steps\n    is missing"),
        (EPOCHS, "[training]\nepochs = 0\n", "training.epochs\n    is 0; should be greater than or equal to 1"),
        ("", "[training]\nsteps = 0\n", "training.steps\n    is 0; should be greater than or equal to 1"),
        (EPOCHS, "[training]\nepochs = 2\n[guards]\nretry = [{epochs = 3}]\n", "a retry takes steps"),
        (EPOCHS, '[training]\nepochs = 2\nlr_scheduler = "linear"\nlr_warmup_steps = 9\n', "is 9 of 4 steps"),
        (EPOCHS, '[training]\nepochs = 2\n[dataset.sources.cat]\nimages = "data/nothing"\n', "the steps cannot be counted"),
        (EPOCHS, "[training]\nmax_train_epochs = 2\n", "unknown key; set training.epochs"),
    ],
)
def test_exactly_one_of_steps_and_epochs(cats: harness.Project, head: str, more: str, message: str) -> None:
    with_epochs(cats, more, head)
    with pytest.raises(RecipeError) as raised:
        cats.run("cat-lora")
    assert message in report(raised.value)


def test_epochs_are_shown_and_exported_where_the_images_are_not(
    cats: harness.Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with_epochs(cats, '[training]\nepochs = 3\n[dataset.sources.cat]\nimages = "data/nothing"\n', EPOCHS)
    monkeypatch.chdir(cats.root)
    assert call(monkeypatch, "show", "cat-lora") == 0
    assert "epochs = 3\n" in capsys.readouterr().out
    assert call(monkeypatch, "show", "cat-lora", "--as", "sd-scripts") == 0
    printed = capsys.readouterr().out
    assert "max_train_epochs = 3\n" in printed
    assert "max_train_steps" not in printed


def test_a_profile_with_steps_replaces_epochs(cats: harness.Project) -> None:
    with_epochs(cats, "[training]\nepochs = 3\n")
    cats.write("_profiles/small", 'unset = ["training.epochs"]\n[training]\nsteps = 4\n')
    (loaded,) = cats.space().load(Selection(("cat-lora",), "small"))
    assert loaded.recipe.training.steps == 4
    assert loaded.own is not None
    assert loaded.own.recipe.training.steps == 6
    assert [(each.key, each.own, each.profile) for each in loaded.overrides] == [("training.epochs", "3", "")]
