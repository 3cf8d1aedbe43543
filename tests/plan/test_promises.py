"""Promises that a plan breaks are errors before anything runs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

import harness
from command_line import call
from engine_recipes import RECIPES
from orchestrator.errors import RecipeError, report
from orchestrator.plan import estimate, promises
from orchestrator.recipe import loader
from orchestrator.run.workspace import Selection, Workspace

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def cats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> harness.Project:
    return harness.make(tmp_path, monkeypatch)


def refused(cats: harness.Project, more: str) -> str:
    cats.recipe("cat-lora", "lora", more)
    with pytest.raises(RecipeError) as raised:
        cats.run("cat-lora")
    assert not (cats.root / "runs" / "cat-lora").exists()
    return report(raised.value).replace(f"{cats.root}/", "")


def test_a_broken_promise_names_the_file_that_set_it_and_the_cure(cats: harness.Project) -> None:
    cats.write("_algorithms/promising", "[expect]\ntensor_bytes = 7\nmodules = 264\n")
    cats.write("_base/base", harness.BASE.replace("engine =", 'extends = ["_algorithms/promising"]\nengine ='))
    text = refused(cats, "")
    assert "recipes/cat-lora.toml: expect.tensor_bytes\n    promises 7 bytes of tensors; this network has " in text
    assert "set in recipes/_algorithms/promising.toml" in text.replace(f"{cats.root}/", "")
    assert 'unset = ["expect"]' in text
    assert "expect.modules" not in text, "264 modules is what this network has"


def test_doctor_and_plan_refuse_a_broken_promise_too(cats: harness.Project, monkeypatch: pytest.MonkeyPatch) -> None:
    cats.recipe("cat-lora", "lora", "[expect]\nmodules = 9\n")
    monkeypatch.chdir(cats.root)
    for verb, code in (("plan", 2), ("doctor", 3)):
        assert call(monkeypatch, verb, "cat-lora") == code, verb


def test_the_parts_of_the_program_promise_nothing(tmp_path: Path) -> None:
    """An own recipe that changes the rank of a part has no promise of the release to break."""
    (tmp_path / "mine.toml").write_text(
        'extends = ["_base/release-2023-03", "_algorithms/locon", "_subjects/krnk"]\nsummary = "x"\n[network]\ndim = 16\n',
        "utf-8",
    )
    recipe = loader.recipe(tmp_path, "mine").recipe
    assert recipe.expect.tensor_bytes is recipe.expect.modules is None
    assert recipe.release.listed_size == ""
    promised = loader.recipe(RECIPES, "krnk-locon").recipe
    assert (promised.expect.tensor_bytes, promised.expect.modules) == (212845244, 350)


def test_a_size_below_rank_1_is_refused_before_the_training(cats: harness.Project) -> None:
    assert "rank 1 everywhere takes" in refused(cats, "[resize]\nsize_mb = 0.1\n")


def test_the_recipe_of_the_sdxl_page_is_planned(tmp_path: Path, project: Path) -> None:
    text = (project / "docs/howto/sdxl.md").read_text("utf-8").partition("```toml\n")[2].partition("```")[0]
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "mine.toml").write_text(
        text.replace("_subjects/mimika", "_subjects/krnk").replace("[base]", 'summary = "x"\n[base]', 1), "utf-8"
    )
    loaded = Workspace(tmp_path).load(Selection(("mine",)))[0]
    assert loaded.recipe.base.architecture == "sdxl"


@pytest.mark.parametrize(("conv_dim", "modules"), [(128, 350), (None, 264)])
def test_the_least_size_is_that_of_rank_1_with_the_recipes_convolutions(conv_dim: int | None, modules: int) -> None:
    """Bytes grow with the rank; each module has an alpha of 2 bytes beside."""
    inputs: Any = SimpleNamespace(find=lambda _: None)
    recipe = loader.recipe(RECIPES, "krnk-lora3x3").recipe
    nothing = recipe.expect.model_copy(update={"tensor_bytes": None, "modules": None})
    network = recipe.network.model_copy(update={"conv_dim": conv_dim})
    recipe = recipe.model_copy(update={"network": network, "expect": nothing})
    whole = estimate.tensors(recipe, inputs)
    assert whole is not None
    assert (whole.modules, recipe.network.dim, recipe.merge.zeroed) == (modules, 128, "keep")
    least = (whole.tensor_bytes - 2 * modules) // 128 + 2 * modules

    def too_small(size: int, zeroed: str = "keep", precision: str = "fp16") -> list[str]:
        assert recipe.resize is not None
        resize = {"size_mb": size / 2**20, "save_precision": precision, "sv_ratio": None}
        update = {
            "resize": recipe.resize.model_copy(update=resize),
            "merge": recipe.merge.model_copy(update={"zeroed": zeroed}),
        }
        return [problem.what for problem in promises.broken(recipe.model_copy(update=update), inputs, {})]

    assert too_small(least) == []
    assert too_small(least - 1) == [f"is {(least - 1) / 2**20:g}; rank 1 everywhere takes {least / 2**20:.2f} MiB"]
    assert too_small(2 * least - 1, precision="float"), "numbers of 4 bytes"
    assert too_small(2 * least, precision="float") == []
    assert too_small(1, zeroed="prune") == [], "pruned modules take nothing"
