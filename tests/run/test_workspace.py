"""A project: selection of recipes and steps, and views of a plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import harness
from orchestrator.errors import Problem, RecipeError
from orchestrator.run import workspace
from orchestrator.run.record import Reason, Why
from orchestrator.run.workspace import Selection

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.plan.plan import Plan
    from orchestrator.recipe import Recipe


@pytest.fixture
def cats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> harness.Project:
    made = harness.make(tmp_path / "p", monkeypatch)
    made.recipe("cat-loha", "other")
    return made


@pytest.fixture
def plan(cats: harness.Project) -> Plan:
    space = cats.space()
    return space.plan(space.load(Selection(("all",))))


def test_all_stands_for_every_recipe_and_a_name_counts_once(cats: harness.Project) -> None:
    loaded = cats.space().load(Selection(("cat-loha", "all", "cat-loha")))
    assert [each.recipe.name for each in loaded] == ["cat-loha", "cat-lora"]


def test_a_broken_recipe_is_a_problem_beside_the_valid_ones(cats: harness.Project) -> None:
    cats.recipe("cat-bad", "lora", "[training]\nsteps = 0\n")
    valid, problems = cats.space().readable(Selection(("all",)))
    assert [each.recipe.name for each in valid] == ["cat-loha", "cat-lora"]
    assert [problem.where for problem in problems] == [f"{cats.root}/recipes/cat-bad.toml: training.steps"]
    with pytest.raises(RecipeError, match=r"training\.steps"):
        cats.space().load(Selection(("all",)))


def test_a_project_without_a_recipe_names_the_next_command(tmp_path: Path) -> None:
    (tmp_path / "recipes").mkdir()
    with pytest.raises(RecipeError, match=r"no recipe is selected\n.*orchestrator list"):
        workspace.Workspace(tmp_path).load(Selection(("all",)))


def test_settings_of_a_retry_are_checked_too(cats: harness.Project, monkeypatch: pytest.MonkeyPatch) -> None:
    def check(recipe: Recipe) -> list[Problem]:
        return [Problem("training.learning_rate", "is too small")] if recipe.training.learning_rate < 1e-4 else []

    monkeypatch.setattr(harness.fakes, "check", check)
    cats.recipe("cat-lora", "lora", "[[guards.retry]]\nlearning_rate = 5e-5\n")
    _, problems = cats.space().readable(Selection(("cat-lora",)))
    assert [problem.what for problem in problems] == ["is too small (with guards.retry.1)"]


def test_a_profile_does_not_hide_problems_of_the_recipe(cats: harness.Project, monkeypatch: pytest.MonkeyPatch) -> None:
    def check(recipe: Recipe) -> list[Problem]:
        return [Problem("training.steps", "are too many")] if recipe.training.steps > 5 else []

    monkeypatch.setattr(harness.fakes, "check", check)
    cats.write("_profiles/short", "[training]\nsteps = 5\n")
    valid, problems = cats.space().readable(Selection(("cat-lora",), "short"))
    assert valid == []
    assert [problem.what for problem in problems] == ["are too many"]
    assert problems[0].hint.endswith("(without --profile)")


@pytest.mark.parametrize(
    ("word", "names"),
    [
        ("cat-lora/merge", {"cat-lora/merge"}),
        ("merge", {"cat-lora/merge", "cat-loha/merge"}),
        ("dataset", {"cat/dataset"}),
        ("cat-loha", {f"cat-loha/{kind}" for kind in ("train", "merge", "render", "release")}),
    ],
)
def test_a_step_a_kind_or_a_recipe_selects_steps(plan: Plan, word: str, names: set[str]) -> None:
    assert workspace.select(plan, [word], "--only") == names


def test_every_word_that_selects_no_step_is_named(plan: Plan) -> None:
    with pytest.raises(RecipeError) as error:
        workspace.select(plan, ["merge", "merg", "cat-lora/resize"], "--force")
    assert [problem.where for problem in error.value.problems] == ["--force merg", "--force cat-lora/resize"]
    assert "a kind (dataset, train, merge, render, release)" in error.value.problems[0].hint


def test_a_plan_as_json_has_steps_of_recipes_and_shared_ones(cats: harness.Project, plan: Plan) -> None:
    reasons = {step.name: None if step.name == "cat-lora/merge" else Reason(Why.NEW) for step in plan.steps}
    table = cats.space().as_json(plan, reasons)
    assert [recipe["name"] for recipe in table["recipes"]] == ["cat-loha", "cat-lora"]
    steps = {step["name"]: step for recipe in table["recipes"] for step in recipe["steps"]}
    assert (steps["cat-lora/merge"]["status"], steps["cat-lora/merge"]["reason"]) == ("cached", "")
    assert (steps["cat-lora/train"]["status"], steps["cat-lora/train"]["reason"]) == ("run", "new")
    assert all(step["key"] == plan.by_name[name].key for name, step in steps.items())
    assert [step["name"] for step in table["shared"]] == [step.name for step in plan.shared()]


def test_the_last_folder_is_the_collection_or_the_only_release(cats: harness.Project, plan: Plan) -> None:
    space = cats.space()
    assert [path.relative_to(cats.root).as_posix() for path in workspace.final(plan, space.store)] == ["runs/cats/latest"]
    single = space.plan(space.load(Selection(("cat-lora",))))
    assert [path.relative_to(cats.root).as_posix() for path in workspace.final(single, space.store)] == [
        "runs/cat-lora/latest"
    ]


def test_values_that_a_profile_overrides_are_listed_by_recipe(cats: harness.Project) -> None:
    cats.write("_profiles/short", "[training]\nsteps = 5\n")
    lines = workspace.override_lines(cats.space().load(Selection(("cat-lora",), "short")), "short")
    assert lines == [
        "cat-lora: the profile short overrides",
        "    training.steps  your recipe: 20; short: 5",
    ]
    assert workspace.override_lines(cats.space().load(Selection(("cat-lora",))), "") == []
