"""Arguments and prompt lines of gen_img.py, and values that it would misread."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine_recipes import load
from orchestrator.engines.sdscripts import gen_img
from orchestrator.recipe import Recipe, Render

BASE = Path("/m/base.safetensors")


def recipe(**render: Any) -> Recipe:
    prompts = {"front": {"prompt": "{trigger}, smile"}, "side": {"prompt": "side", "negative": "", "width": 64, "seed": 0}}
    table = {"prompts": prompts, "negative": "bad", "width": 512, "height": 768, "seed": 7, "steps": 28, "scale": 7.5}
    base = load("krnk-lora3x3")
    return base.model_copy(update={"render": Render.model_validate({**table, **render})})


def test_a_line_has_every_setting_of_its_image() -> None:
    front, side = gen_img.lines(recipe(), names=True).splitlines()
    assert front == "krnk, smile --n bad --w 512 --h 768 --d 7 --s 28 --l 7.5 --f front.png"
    assert side == "side --w 64 --h 768 --d 0 --s 28 --l 7.5 --f side.png"
    (line, _) = gen_img.lines(recipe(), names=False, multipliers=(1.0, 0.5)).splitlines()
    assert line == "krnk, smile --n bad --w 512 --h 768 --d 7 --s 28 --l 7.5 --am 1,0.5"


def test_the_command_has_the_models_and_settings_of_the_recipe() -> None:
    made = recipe(
        sampler="ddim", precision="no", batch_size=2, multiplier=0.8, options={"vae_slices": 4, "opt_channels_last": True}
    )
    work = Path("/w")
    plain = ["--ckpt", str(BASE), "--v1"]
    shared = ["--outdir", "/w", "--from_file", "/w/prompts.txt", "--W", "512", "--H", "768", "--steps", "28", "--scale", "7.5"]
    shared += ["--sampler", "ddim", "--batch_size", "2", "--seed", "7", "--clip_skip", "2", "--max_embeddings_multiples", "3"]
    shared += ["--sdpa"]
    further = ["--vae_slices", "4", "--opt_channels_last"]
    assert gen_img.arguments(made, BASE, None, [], work) == [*plain, *shared, *further]
    loras = [Path("/l/a"), Path("/l/b")]
    networks = ["--network_module", "networks.lora", "networks.lora", "--network_weights", "/l/a", "/l/b"]
    networks += ["--network_mul", "0.8", "0.8"]
    with_vae = gen_img.arguments(made, BASE, Path("/m/vae"), loras, work)
    assert with_vae == [*plain, "--vae", "/m/vae", *shared, *networks, *further]
    assert "--fp16" in gen_img.arguments(recipe(precision="fp16"), BASE, None, [], work)


@pytest.mark.parametrize(
    ("render", "expected"),
    [
        ({}, []),
        ({"sampler": "euler-a"}, [("render.sampler", 'is "euler-a"; did you mean euler_a?')]),
        ({"negative": "a --b"}, [("render.negative", '" --" begins an option of a prompt line')]),
        ({"prompts": {"a": {"prompt": "well--known"}}}, []),
        ({"prompts": {"a": {"prompt": "--x"}}}, [("render.prompts.a.prompt", '" --" begins an option of a prompt line')]),
        ({"prompts": {"a": {"prompt": "a\nb"}}}, [("render.prompts.a.prompt", "is more than one line")]),
        ({"prompts": {"a": {"prompt": " # b"}}}, [("render.prompts.a.prompt", "# begins a comment")]),
        (
            {"prompts": {"a": {"prompt": "a", "negative": "{b|c}"}}},
            [("render.prompts.a.negative", "{a|b} is dynamic-prompt syntax of gen_img.py")],
        ),
        ({"scale": 0.5, "negative": ""}, [("render.scale", "is 0.5, which gen_img.py draws as 1, without guidance; set 1")]),
        (
            {"scale": 1.0},
            [("render.negative", 'has no effect at render.scale = 1; leave it out: unset = ["render.negative"]')],
        ),
        ({"scale": 1.0, "prompts": {}}, []),
        ({"scale": 1.0, "negative": ""}, []),
        ({"guidance": 3.5}, [("render.guidance", "gen_img.py has no such setting; leave it out")]),
        ({"flow_shift": 3.0}, [("render.flow_shift", "gen_img.py has no such setting; leave it out")]),
    ],
)
def test_values_that_the_program_misreads_are_named(render: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    assert list(gen_img.problems(recipe(**render))) == expected


def test_images_of_one_process_share_their_settings() -> None:
    same = recipe(seed=1, steps=3, width=64, negative="x", prompts={})
    assert gen_img.settings(same) == gen_img.settings(recipe())
    for change in ({"sampler": "ddim"}, {"batch_size": 2}, {"precision": "no"}, {"options": {"vae_slices": 4}}):
        assert gen_img.settings(recipe(**change)) != gen_img.settings(recipe())
    training = recipe().training
    v = recipe().model_copy(update={"training": training.model_copy(update={"options": {"v_parameterization": True}})})
    assert gen_img.settings(v) != gen_img.settings(recipe())
