"""Several LoRAs in one process of the renderer.

Groups, arguments and prompt lines of both engines.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from engine_recipes import load, parsed
from orchestrator.engines.embedded import engine as embedded
from orchestrator.engines.embedded.trainer import gen_img, prompts
from orchestrator.engines.protocol import RenderItem
from orchestrator.engines.sdscripts import engine as sdscripts
from orchestrator.engines.sdscripts import render_command

if TYPE_CHECKING:
    from orchestrator.recipe import Recipe

pytestmark = pytest.mark.usefixtures("no_checkout")

INPUTS = {"checkpoint": Path("/m/base.safetensors")}
A, B = Path("/l/a.safetensors"), Path("/l/b.safetensors")


def with_multiplier(recipe: Recipe, multiplier: float) -> Recipe:
    return recipe.model_copy(update={"render": recipe.render.model_copy(update={"multiplier": multiplier})})


def test_gen_img_draws_each_line_with_one_network_alone() -> None:
    recipe = load("krnk-lora3x3")
    items = [RenderItem(recipe, A), RenderItem(with_multiplier(recipe, 0.8), B), RenderItem(recipe, None)]
    assert sdscripts.together(items) == [[0, 1, 2]]
    command = sdscripts.render_together(items, INPUTS, Path("/w"))
    options = parsed(command)
    assert options["network_module"] == ["networks.lora", "networks.lora"]
    assert options["network_weights"] == [str(A), str(B)]
    lines = command.files["prompts.txt"].splitlines()
    count = len(recipe.render.prompts)
    assert len(lines) == 3 * count
    assert [line.partition(" --am ")[2].partition(" ")[0] for line in lines[::count]] == ["1,0", "0,0.8", "0,0"]
    assert lines[count].endswith("--f 001-front.png")


def test_the_embedded_renderer_reads_the_same_lines(tmp_path: Path) -> None:
    recipe = load("krnk-loha")  # of any family
    items = [RenderItem(recipe, A), RenderItem(recipe, B), RenderItem(recipe, None)]
    assert embedded.together(items) == [[0, 1, 2]]
    command = embedded.render_together(items, INPUTS, tmp_path)
    (tmp_path / "prompts.txt").write_text(command.files["prompts.txt"].replace("(", "").replace(")", ""), "utf-8")
    lines = prompts.read(tmp_path / "prompts.txt", prompts.PromptDefaults())
    groups = gen_img._by_multipliers(lines, (1.0, 1.0))
    assert [multipliers for multipliers, _ in groups] == [(1.0, 0.0), (0.0, 1.0), (0.0, 0.0)]
    assert len({line.file for line in lines}) == len(lines)


def test_networks_that_gen_img_cannot_read_have_a_process_each() -> None:
    tucker = load("krnk-locon")
    assert sdscripts.together([RenderItem(tucker, A), RenderItem(tucker, B), RenderItem(tucker, None)]) == [[0], [1], [2]]


def test_one_process_holds_a_limited_number_of_networks() -> None:
    recipe = load("krnk-lora3x3")
    count = render_command.MOST_TOGETHER + 2
    items = [RenderItem(recipe, Path(f"/l/{number}")) for number in range(count)]
    assert [len(group) for group in sdscripts.together(items)] == [render_command.MOST_TOGETHER, 2]


def test_images_of_other_settings_are_not_drawn_together() -> None:
    recipe = load("krnk-lora3x3")
    other = recipe.model_copy(update={"render": recipe.render.model_copy(update={"sampler": "ddim"})})
    items = [RenderItem(recipe, A), RenderItem(other, A)]
    assert sdscripts.together(items) == embedded.together(items) == [[0], [1]]
