"""The parts of base models: in any order, after any other."""

from __future__ import annotations

import itertools
import json
import shutil
from typing import TYPE_CHECKING

import pytest

from engine_recipes import RECIPES, load, variant
from orchestrator.engines.sdscripts import engine as sdscripts
from orchestrator.errors import RecipeError
from orchestrator.recipe import loader

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.recipe import Recipe

BASES = ("anima", "chroma", "flux", "flux-schnell", "hunyuan-image", "lumina", "sd2", "sd2-vpred", "sd3", "sdxl", "sdxl-vpred")
EXAMPLES = sorted(path.stem for path in (RECIPES / "examples").glob("*.toml"))
_NETWORK = '[network]\nfamily = "lora"\ndim = 4\nalpha = 4\n'


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shutil.copytree(RECIPES, tmp_path_factory.mktemp("parts") / "recipes")


def made(root: Path, *parts: str) -> Recipe:
    extends = json.dumps(["_base/release-2023-03", *parts])
    (root / "made.toml").write_text(f'extends = {extends}\nsummary = "x"\nalgorithm = "x"\n{_NETWORK}', "utf-8")
    return loader.recipe(root, "made").recipe


@pytest.mark.parametrize(("first", "base"), [*itertools.permutations(BASES, 2)])
def test_a_base_stands_after_another(root: Path, first: str, base: str) -> None:
    """The settings that sd-scripts gets are those of the last base."""
    recipe = made(root, "_subjects/krnk", f"_base/{first}", f"_base/{base}")
    alone = made(root, "_subjects/krnk", f"_base/{base}")

    assert recipe == alone
    assert sdscripts.check(recipe) == []


@pytest.mark.parametrize("base", BASES)
def test_a_subject_stands_after_a_base(root: Path, base: str) -> None:
    """The block weights of a subject are those of SD1: other base models train without them."""
    recipe = made(root, f"_base/{base}", "_subjects/krnk")
    assert recipe.block_weights is None
    assert recipe.training.steps == 1000


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_trained_by_sd_scripts(name: str) -> None:
    recipe = load(f"recipes/examples/{name}.toml")
    assert sdscripts.check(recipe) == []
    assert recipe.base.url.startswith("hf:") or recipe.base.architecture == "sd2"  # taken down by its publisher
    assert recipe.base.url.endswith(recipe.base.checkpoint) or not recipe.base.url
    assert recipe.base.license


def test_block_weights_belong_to_an_architecture(tmp_path: Path) -> None:
    text = "[block_weights]\nsd1 = {}\nsdxl = [0, 1,1,0,1, 0, 1,1,1,1,1,1]\n"
    weights = ", ".join(["1"] * 26)
    recipe = variant(tmp_path, "_algorithms/locon", text=text.format(f"[{weights}]"))
    assert recipe.block_weights == (1.0,) * 26
    recipe = variant(tmp_path, "_algorithms/locon", "_base/sdxl", text=text.format(f"[{weights}]"))
    assert recipe.block_weights is not None
    assert len(recipe.block_weights) == 12
    by_name = text.format(f"[{weights}]") + "BASE = 0\nIN04 = 0.5\n"
    assert variant(tmp_path, "_algorithms/locon", text=by_name).block_weights == {"BASE": 0, "IN04": 0.5}
    with pytest.raises(RecipeError, match="sdlx"):
        variant(tmp_path, "_algorithms/locon", text='[block_weights]\nsdlx = "ALL"\n')
