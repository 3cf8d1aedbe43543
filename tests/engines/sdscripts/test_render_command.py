"""Commands of render steps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine_recipes import load, parsed, variant
from orchestrator.engines.sdscripts import engine as sdscripts
from orchestrator.engines.sdscripts import (
    render_command,
)

pytestmark = pytest.mark.usefixtures("no_checkout")


def test_networks_that_gen_img_can_read_are_rendered_directly(tmp_path: Path) -> None:
    inputs = {"checkpoint": Path("/m/base.safetensors"), "lora": Path("/l/x.safetensors")}
    command = sdscripts.render(load("krnk-lora3x3"), inputs, Path("/w"))
    assert command.argv[1].endswith("gen_img.py")
    options = parsed(command)
    assert options["network_module"] == ["networks.lora"]
    assert options["network_weights"] == ["/l/x.safetensors"]
    assert (options["ckpt"], options["v1"], options["fp16"], options["clip_skip"]) == (["/m/base.safetensors"], [], [], ["2"])
    lines = command.files["prompts.txt"].splitlines()
    assert len(lines) == len(load("krnk-lora3x3").render.prompts)
    assert all(" --d 31337 " in line and line.endswith(".png") for line in lines)
    for name, delivery in (("krnk-locon", render_command.LoraDelivery.FOLD), ("krnk-loha", render_command.LoraDelivery.BAKE)):
        command = sdscripts.render(load(name), inputs, Path("/w"))
        assert command.argv[1:3] == ("-m", "orchestrator.engines.sdscripts.render_program")
        request = json.loads(command.files["request.json"])
        assert request["how"] == delivery
        assert ("--network_module" in request["argv"]) == (delivery is render_command.LoraDelivery.FOLD)
    full = variant(tmp_path, "_algorithms/locon", text='unset = ["network.preset"]\n')
    assert render_command.delivery(full) is render_command.LoraDelivery.BAKE  # gen_img.py would skip its conv_in in silence


def test_a_v_prediction_model_is_rendered_as_it_was_trained(tmp_path: Path) -> None:
    text = "[training.options]\nv_parameterization = true\nzero_terminal_snr = true\n"
    inputs = {"checkpoint": Path("/m/base.safetensors"), "lora": Path("/l/x.safetensors")}
    drawing = sdscripts.render(variant(tmp_path, "_algorithms/lora3x3", text=text), inputs, Path("/w"))
    assert {"--v_parameterization", "--zero_terminal_snr"} <= set(drawing.argv)
