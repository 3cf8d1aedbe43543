"""Command of a render step: gen_img.py, or render_program.

render_program serves networks that gen_img.py cannot read.
"""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from typing import TYPE_CHECKING

from orchestrator.engines.sdscripts import gen_img, launch
from orchestrator.system import settings
from orchestrator.system.child import REQUEST
from orchestrator.system.process import Command

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from orchestrator.recipe import Recipe

PROGRAM = "orchestrator.engines.sdscripts.render_program"
TEMPORARY = "temporary"


class LoraDelivery(StrEnum):
    """Form in which a network reaches gen_img.py.

    As it is, folded into a plain LoRA, or baked into the checkpoint.
    """

    DIRECT = "direct"
    FOLD = "fold"
    BAKE = "bake"


def delivery(recipe: Recipe) -> LoraDelivery:
    """Return how the recipe's network reaches gen_img.py.

    networks.lora reads plain LoRA files. It reads a LoCon only without the modules that it does not know (conv_in, conv_out,
    time_embedding, which LyCORIS trains by default), because it skips unknown keys in silence.
    """
    network = recipe.network
    if network.family == "lora":
        return LoraDelivery.DIRECT
    preset = network.preset
    readable = preset is not None and not preset.unet_target_name and not preset.text_encoder_target_name
    if network.family == "locon" and readable and not any(network.args.get(name) for name in ("dora_wd", "train_norm")):
        return LoraDelivery.FOLD if network.tucker else LoraDelivery.DIRECT
    return LoraDelivery.BAKE


def command(recipe: Recipe, inputs: Mapping[str, Path], work: Path) -> Command:
    """Return the command that draws the recipe's prompts.

    Args:
        recipe: its ``render`` table is used.
        inputs: "lora", "checkpoint", "vae" (if the recipe has one).
        work: folder that receives PROMPT.png.
    """
    files = {gen_img.PROMPTS: gen_img.lines(recipe, names=True)}
    chosen = delivery(recipe)
    if chosen is LoraDelivery.DIRECT:
        argv = gen_img.arguments(recipe, inputs["checkpoint"], inputs.get("vae"), inputs["lora"], work)
        return launch.command("gen_img.py", argv + launch.tokenizer_options(), work, files)
    work = work.absolute()
    temporary = work / TEMPORARY
    if chosen is LoraDelivery.FOLD:
        target = temporary / "folded.safetensors"
        checkpoint, adapter = inputs["checkpoint"], target
    else:
        target = temporary / ("baked" if inputs["checkpoint"].is_dir() else "baked.safetensors")
        checkpoint, adapter = target, None
    argv = gen_img.arguments(recipe, checkpoint, inputs.get("vae"), adapter, work)
    drawing = launch.command("gen_img.py", argv + launch.tokenizer_options(), work, {})
    request = {
        "how": chosen,
        "checkpoint": str(inputs["checkpoint"].absolute()),
        "lora": str(inputs["lora"].absolute()),
        "target": str(target),
        "multiplier": recipe.render.multiplier,
        "temporary": str(temporary),
        "argv": list(drawing.argv),
        "env": drawing.env,
    }
    files[REQUEST] = json.dumps(request, indent=1, ensure_ascii=False)
    env = {**drawing.env, "PYTHONPATH": str(settings.ROOT)}
    return Command((sys.executable, "-m", PROGRAM, str(work / REQUEST)), work, env, files)
