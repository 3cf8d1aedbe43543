"""Recipes: their content, composition and error messages."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from orchestrator.errors import RecipeError, report
from orchestrator.models import blocks
from orchestrator.recipe import loader
from recipe_files import RECIPE, problems, write

if TYPE_CHECKING:
    from pathlib import Path

SUBJECTS = {"krnk": (1000, 4), "tyank": (1000, 4), "krnksf": (1200, 2), "tyankps": (1200, 2), "krnksf_tyankps": (1600, 1)}
FACE = (0, 1, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 1, 1, 1, 0, 1, 1, 1, 0, 0, 1)
BODY = (0, 1, 1, 1, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 0, 0, 1)


def test_all_15_recipes_load_and_hold_the_numbers_of_the_release(project: Path) -> None:
    root = project / "recipes"
    assert len(loader.names(root)) == 15
    for subject, (steps, repeats) in SUBJECTS.items():
        for algorithm, dim in (("lora3x3", 128), ("locon", 128), ("loha", 32)):
            recipe = loader.recipe(root, f"{subject}-{algorithm}").recipe
            assert (recipe.subject, recipe.algorithm, recipe.training.steps, recipe.dataset.repeats) == (
                subject,
                algorithm,
                steps,
                repeats,
            )
            network = recipe.network
            assert (network.dim, network.conv_dim, network.alpha, network.conv_alpha) == (dim, dim, dim / 2, dim / 2)
            assert network.tucker is (algorithm != "lora3x3")
            assert (network.preset is not None) is (algorithm != "lora3x3")
            assert recipe.block_weights == (FACE if subject in ("krnk", "tyank") else BODY)
            assert (recipe.training.learning_rate, recipe.training.text_encoder_lr) == (100e-6, 44e-6)
            assert (recipe.training.seed, recipe.base.clip_skip, recipe.base.vae) == (31337, 2, "kl-f8-anime2.ckpt")
            resize = recipe.resize
            if algorithm == "lora3x3":
                assert resize is not None
                assert (resize.sv_ratio, resize.new_rank, resize.rank_rule) == (16, 128, "2023")
            else:
                assert resize is None


def test_every_profile_overlays_every_recipe(project: Path) -> None:
    root = project / "recipes"
    for profile in sorted(path.stem for path in (root / "_profiles").glob("*.toml")):
        for name in loader.names(root):
            assert loader.recipe(root, name, profile).recipe.name == name


def test_body_subjects_train_the_face_pictures_too(project: Path) -> None:
    recipe = loader.recipe(project / "recipes", "krnksf_tyankps-locon").recipe
    assert {"krnk", "tyank", "krnksf", "tyankps"} <= set(recipe.dataset.sources)
    assert recipe.triggers() == ("krnksf", "tyankps", "krnk", "tyank")


def test_tables_merge_and_arrays_replace(root: Path) -> None:
    write(root, {"_base/more": 'extends = ["_base/base"]\nblock_weights = "FACE"\n[training]\nsteps = 20\n'})
    loaded = loader.recipe(write(root, {"dog": RECIPE.replace("_base/base", "_base/more")}), "dog")
    assert (loaded.recipe.training.steps, loaded.recipe.training.seed) == (20, 1)
    assert loaded.origin["training.steps"].endswith("more.toml")
    assert loaded.origin["training.seed"].endswith("base.toml")


def test_a_profile_overlays_and_unsets_by_algorithm(root: Path) -> None:
    profile = (
        'unset = ["training.learning_rate"]\n[training]\noptimizer = "Adafactor"\noptimizer_args = {relative_step = true}\n'
    )
    write(root, {"_profiles/small": profile + "[when.locon.network]\ndim = 2\n[when.loha.network]\ndim = 3\n"})
    recipe = loader.recipe(root, "cat", "small").recipe
    assert (recipe.network.dim, recipe.network.alpha, recipe.training.learning_rate) == (2, 4, None)


def test_all_problems_are_reported_with_file_and_near_miss(root: Path) -> None:
    text = RECIPE + "block_weights = [0,1,1,1,1,1,0,0,0,1,0,0,0,0,1,0]\n[training]\nlearning_rat = 1e-3\nsteps = true\n"
    assert problems(root, text) == (
        "cat.toml: training.steps\n    is true; should be a valid integer\n"
        "cat.toml: training.learning_rat\n    unknown key; did you mean learning_rate?\n"
        "cat.toml: block_weights\n    16 values; SD1.5 takes 26 or 17; in this order: "
        f"{', '.join(blocks.names('sd1'))}\n"
        "3 problems. Nothing was run."
    )


def test_block_weights_of_sd15_in_an_sdxl_recipe_have_a_remedy(root: Path) -> None:
    text = RECIPE + f'block_weights = {[1] * 26}\n[base]\narchitecture = "sdxl"\n'
    message = '26 values; SDXL takes 20 or 12; 26 values are a list of SD1.5; or leave them out: unset = ["block_weights"]'
    assert message in problems(root, text)
    text = RECIPE + 'block_weights = "FACE"\n[base]\narchitecture = "flux"\n'
    assert "no preset is called 'FACE'; FACE is a preset of SD1.5; FLUX.1-dev takes 58 or 20 values" in problems(root, text)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('[training]\nsteps = "100"', 'is "100"; should be a valid integer; write 100 without quotes\n'),
        ('[training]\nlearning_rate = "1,5e-4"', "write 1.5e-4 without quotes\n"),
        ('[dataset]\nflip_aug = "True"', "write true without quotes\n"),
        ('[dataset]\nflip_aug = "no"', 'is "no"; should be a valid boolean\n'),
        ('[base.files]\nclip_l = "x.safetensors"', 'write clip_l = { file = "x.safetensors" }\n'),
        (
            'block_weights = {IN04 = "0.5"}',
            'block_weights.IN04\n    is "0.5"; should be a valid number; write 0.5 without quotes\n',
        ),
        ("summary = 'twice'", "a key stands twice in one table"),
        ("[x]\na = 1\n[x]\nb = 1", "a table has two headings"),
        ('[base]\ncheckpoint = "C:\\models\\x"', "write / between folders"),
        ('[base]\ncheckpoint = "C:\\Users\\x"', "write / between folders"),
    ],
)
def test_a_value_of_another_type_is_rewritten(root: Path, lines: str, message: str) -> None:
    text = problems(root, f"{RECIPE}{lines}\n")
    assert message in text
    assert "\n1 problem. " in text


def test_block_weights_may_be_named_or_in_the_order_of_another_tool(root: Path) -> None:
    write(root, {"a": RECIPE + 'block_weights = {BASE = 0, "IN01-IN03" = -0.5, MID1 = 2}\n[merge]\nunmapped = 0.25\n'})
    weights = loader.recipe(root, "a").recipe.weights()
    given = weights.by_name()
    assert (given["BASE"], given["IN03"], given["MID"], given["MID1"], weights.outside) == (0, -0.5, 0.25, 2, 0.25)
    write(root, {"b": RECIPE + f'block_weights = {[0.5] * 17}\n[merge]\norder = "lbw-17"\n'})
    weights = loader.recipe(root, "b").recipe.weights()
    assert (weights.by_name()["IN00"], weights.by_name()["IN01"], weights.outside) == (0, 0.5, 1)


def test_every_problem_of_named_block_weights_is_reported(root: Path) -> None:
    text = RECIPE + 'block_weights = {BAS = 0, "IN03-IN01" = 1}\n[merge]\norder = "lbw-61"\n'
    shown = problems(root, text)
    for message in ("merge.order\n    'lbw-61' is an order of FLUX.1-schnell", "did you mean BASE?", "IN03-IN01 is reversed"):
        assert message in shown
    assert "block_weights.BASE\n" in problems(root, RECIPE + 'block_weights = {BASE = "a"}\n')


def test_the_file_that_set_a_wrong_value_is_named(root: Path) -> None:
    write(root, {"_base/wrong": 'extends = ["_base/base"]\n[training]\nseed = "3"\n'})
    message = problems(root, RECIPE.replace("_base/base", "_base/wrong"))
    assert message == (
        'cat.toml: training.seed\n    is "3"; should be a valid integer; write 3 without quotes\n'
        "    (set in _base/wrong.toml)\n1 problem. Nothing was run."
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('extends = ["_base/bas"]\n', "extends '_base/bas': no such part; did you mean _base/base?"),
        ('extends = ["../cat"]\n', "extends '../cat': parts are files of"),
        ('extends = ["cat"]\n', "extends itself: cat -> cat"),
        ("steps = \n", "is not TOML: Invalid value (at line 1, column 9)"),
        ("x = 2020-01-01\n", "has a value that is not JSON"),
        (f"x = '{'y' * loader.MAX_BYTES}'", "a recipe has at most"),
    ],
)
def test_files_that_cannot_be_put_together(root: Path, text: str, message: str) -> None:
    assert message in problems(root, text)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ('extends = ["_base/bas", "_algorithms/locn"]\nsummary = "a cat"\n', 2),
        ('extends = ["_base/base", "_algorithms/locon"]\nsummary =\n', 1),
        ('extends = ["_base/bas", "_algorithms/locon"]\nsummary = "a cat"\nnetwork.dim = "8"\n', 2),
    ],
)
def test_values_of_an_unreadable_file_are_not_called_missing(root: Path, text: str, count: int) -> None:
    message = problems(root, text)
    assert message.endswith(f"\n{count} problem{'s' if count > 1 else ''}. Nothing was run.")
    assert "missing" not in message


def test_an_unknown_recipe_has_a_near_miss(root: Path) -> None:
    with pytest.raises(RecipeError) as raised:
        loader.recipe(root, "cta")
    assert report(raised.value).replace(f"{root}/", "") == (
        "cta.toml\n    no such recipe; did you mean cat?\n    python -m orchestrator list  shows the recipes\n"
        "1 problem. Nothing was run."
    )


def test_a_missing_value_is_named(root: Path) -> None:
    message = problems(root, 'extends = ["_base/base"]\nsummary = "x"\nalgorithm = "locon"\n')
    assert "cat.toml: network\n    is missing" in message
