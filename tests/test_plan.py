"""Keys: what is in them and what is not; and how steps hang together."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from orchestrator import load
from orchestrator.errors import RecipeError
from orchestrator.plan import Kind, Lane, Plan, Source, make_plan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.recipe import Recipe


class Fixed:
    """A world in which every file has the digest of its name."""

    def __init__(self, *, engine: str = "1", checkpoint: str = "c", where: str = "/a") -> None:
        self._engine, self._checkpoint, self._where = engine, checkpoint, where

    def pictures(self, recipe: Recipe) -> Sequence[Source]:
        return [Source(f"{name}/1.png", Path(self._where) / "1.png", f"digest of {name}") for name in recipe.dataset.sources]

    def file(self, role: str, name: str, sha256: str) -> Source:
        return Source(role, Path(self._where) / name, sha256 or self._checkpoint)

    def engine(self, name: str) -> str:
        return f"{name} {self._engine}"


@pytest.fixture(scope="module")
def recipes() -> dict[str, Recipe]:
    root = Path(__file__).resolve().parent.parent / "recipes"
    return {name: load.recipe(root, name).recipe for name in load.names(root)}


def keys(plan: Plan) -> dict[str, str]:
    return {step.name: step.key for step in plan.steps}


def test_the_steps_of_the_release(recipes: dict[str, Recipe]) -> None:
    plan = make_plan(recipes.values(), Fixed())
    counts = {kind: sum(step.kind is kind for step in plan.steps) for kind in Kind}
    # five datasets, five grids, five resizes of lora3x3, and one release of all
    assert counts == {"dataset": 5, "train": 15, "merge": 15, "resize": 5, "render": 15 + 5, "release": 15 + 1}
    assert [step.name for step in plan.of("krnk-lora3x3")] == [
        "krnk/dataset",
        *(f"krnk-lora3x3/{kind}" for kind in ("train", "merge", "resize", "render", "release")),
    ]
    assert {step.kind for step in plan.steps if step.lane is Lane.GPU} == {Kind.TRAIN, Kind.RENDER}
    assert [step.name for step in plan.shared()][-1] == "krnk_tyank/release"
    seen: set[str] = set()
    for step in plan.steps:
        assert set(step.needs) <= seen
        seen.add(step.name)


def test_keys_do_not_know_where_things_lie_or_how_they_are_done(recipes: dict[str, Recipe]) -> None:
    one = recipes["krnk-locon"]
    how = one.model_copy(update={"training": one.training.model_copy(update={"data_loader_workers": 1, "log_prefix": "x"})})
    base = keys(make_plan([one], Fixed()))
    assert keys(make_plan([one], Fixed(where="/b"))) == base
    assert keys(make_plan([how], Fixed()))["krnk-locon/train"] == base["krnk-locon/train"]


@pytest.mark.parametrize(
    ("world", "changed"), [(Fixed(engine="2"), {"train", "render"}), (Fixed(checkpoint="d"), {"train", "render"})]
)
def test_keys_know_what_changes_the_result(recipes: dict[str, Recipe], world: Fixed, changed: set[str]) -> None:
    before, after = keys(make_plan([recipes["krnk-lora3x3"]], Fixed())), keys(make_plan([recipes["krnk-lora3x3"]], world))
    assert before["krnk/dataset"] == after["krnk/dataset"]
    for kind in changed:
        assert before[f"krnk-lora3x3/{kind}"] != after[f"krnk-lora3x3/{kind}"]


def test_one_block_weight_changes_the_merge_and_what_follows(recipes: dict[str, Recipe]) -> None:
    one = recipes["krnk-lora3x3"]
    assert isinstance(one.block_weights, tuple)
    other = one.model_copy(update={"block_weights": (*one.block_weights[:-1], 0.5)})
    before, after = keys(make_plan([one], Fixed())), keys(make_plan([other], Fixed()))
    same = {name for name in before if before[name] == after[name]}
    assert same == {"krnk/dataset", "krnk-lora3x3/train"}


def test_the_same_plan_has_the_same_keys_in_another_process(recipes: dict[str, Recipe]) -> None:
    """Pinned: a key that changes between versions throws away everybody's finished work, so it changes on purpose only."""
    step = make_plan([recipes["krnk-locon"]], Fixed()).by_name["krnk-locon/merge"]
    assert len(step.key) == 64
    assert step.folder == f"merge-{step.key[:12]}"
    assert make_plan([recipes["krnk-locon"]], Fixed()).by_name["krnk-locon/merge"] == step


def test_two_contents_for_one_dataset_are_refused(recipes: dict[str, Recipe]) -> None:
    one = recipes["krnk-locon"]
    other = recipes["krnk-loha"].model_copy(update={"dataset": one.dataset.model_copy(update={"repeats": 9})})
    with pytest.raises(RecipeError, match="the recipes of this run describe krnk/dataset in two ways"):
        make_plan([one, other], Fixed())
