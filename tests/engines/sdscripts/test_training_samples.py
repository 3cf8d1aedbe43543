"""Images during a training.

The lines that each trainer reads, and settings of `render` that it ignores or rejects.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from engine_recipes import load, problems, variant
from orchestrator.engines.sdscripts import engine as sdscripts
from orchestrator.engines.sdscripts import render_command, training_samples
from orchestrator.models.registry import ARCHITECTURES

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("no_checkout")
EVERY = "[training]\nsample_every_n_steps = 100\n"


@pytest.mark.parametrize(
    ("part", "text", "expected"),
    [
        ("flux", "guidance = 2.5", " --l 1 --g 2.5"),
        ("chroma", "guidance = 0.0", " --l 4 --g 0"),  # its script draws with 3.5 otherwise
        ("anima", "flow_shift = 3.0", " --l 4 --fs 3"),
        ("sdxl", "scale = 5.0", " --l 5"),
        ("lumina", "", " --l 4"),
    ],
)
def test_a_line_has_every_setting_that_the_trainer_reads(tmp_path: Path, part: str, text: str, expected: str) -> None:
    text = f'{EVERY}[render]\n{text}\n[render.prompts.front]\nprompt = "{{trigger}}"\n'
    recipe = variant(tmp_path, "_algorithms/lora1x1", f"_base/{part}", text=text)
    assert training_samples.prompts(recipe).splitlines()[0].endswith(expected)


@pytest.mark.parametrize(
    ("part", "render", "expected"),
    [
        ("lumina", "seed = 0", "render.seed  is 0; the trainer of Lumina 2 draws from 1 on"),
        ("lumina", "flow_shift = 3.0", "render.flow_shift  images during the training of Lumina 2 ignore it"),
        ("hunyuan-image", "flow_shift = 3.0", "render.flow_shift  images during the training of HunyuanImage-2.1 ignore it"),
        ("anima", 'prompts = {x = {prompt = "s 5 cats"}}', "render.prompts.x.prompt  begins with 's 5 ca'"),
        ("anima", 'prompts = {x = {prompt = "n 1girl"}}', "which the trainer reads as an option"),
        ("sdxl", "flow_shift = 3.0", "render.flow_shift  gen_img.py has no such setting"),
        ("sdxl", "scale = 0.5", "render.scale  is 0.5, which gen_img.py draws as 1"),
        ("sdxl", "scale = 1.0", "render.negative  has no effect at render.scale = 1"),
    ],
)
def test_a_setting_that_the_trainer_ignores_or_rejects_is_named(tmp_path: Path, part: str, render: str, expected: str) -> None:
    text = f'unset = ["training.text_encoder_lr", "block_weights", "render.prompts"]\n{EVERY}[render]\n{render}\n'
    text += "" if "prompts" in render else '[render.prompts.front]\nprompt = "{trigger}"\n'
    found = "\n".join(map(str, sdscripts.check(variant(tmp_path, "_algorithms/lora1x1", f"_base/{part}", text=text))))
    assert expected in found
    if part != "sdxl":
        without = variant(tmp_path, "_algorithms/lora1x1", f"_base/{part}", text=text.replace(EVERY, ""))
        assert sdscripts.check(without) == []


def test_samples_of_hunyuan_image_need_bf16(tmp_path: Path) -> None:
    text = f'{EVERY}mixed_precision = "no"\n[render.prompts.front]\nprompt = "x"\n'
    recipe = variant(tmp_path, "_algorithms/lora1x1", "_base/hunyuan-image", text=text)
    assert [what for key, what in training_samples.problems(recipe) if "at mixed_precision" in what]


def test_samples_need_a_prompt(tmp_path: Path) -> None:
    found = problems(tmp_path, f'unset = ["render.prompts"]\n{EVERY}', "_algorithms/lora1x1")
    assert "training.sample_every_n_steps  needs render.prompts" in found


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_no_setting_of_a_drawing_is_dropped_in_silence(name: str) -> None:
    """Each architecture's script takes guidance and flow_shift, or they are refused by name."""
    recipe, entry = load("krnk-locon"), ARCHITECTURES[name]
    render = recipe.render.model_copy(update={"guidance": 3.0, "flow_shift": 3.0})
    recipe = recipe.model_copy(update={"base": recipe.base.model_copy(update={"architecture": name}), "render": render})
    refused = {key for key, what in render_command.problems(recipe) if "has no such setting" in what}
    taken = {*entry.renderer.line, *entry.renderer.arguments}
    assert refused == {f"render.{key}" for key in {"guidance", "flow_shift"} - taken}
    assert entry.sample_line.keys() <= taken
