"""Rendering of networks that gen_img.py cannot read: folded or baked first, drawn, and cleaned up.

``python -m`` this module with request.json: a Tucker LoCon becomes an exact plain LoRA; every other family is baked into a
temporary checkpoint. Both are removed afterwards, however the drawing ended.
"""

from __future__ import annotations

import json
import shutil
import signal
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.engines.sdscripts import gen_img
from orchestrator.errors import OrchestratorError, Problem, StepFailed
from orchestrator.system import settings
from orchestrator.system.process import ChildCallbacks, Command, Progress, run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestrator.recipe import Recipe

REQUEST, TEMPORARY = "request.json", "temporary"


class How(StrEnum):
    """How a network reaches gen_img.py."""

    DIRECT = "direct"
    FOLD = "fold"
    BAKE = "bake"


def how(recipe: Recipe) -> How:
    """Return how the recipe's network reaches gen_img.py.

    networks.lora reads plain LoRA files; a LoCon only if it has no module that networks.lora does not know (conv_in,
    conv_out, time_embedding, which LyCORIS trains by default), because such keys are passed over in silence.
    """
    network = recipe.network
    if network.family == "lora":
        return How.DIRECT
    known = network.preset is not None and not network.preset.unet_target_name and not network.preset.text_encoder_target_name
    if network.family == "locon" and known and not any(network.args.get(one) for one in ("dora_wd", "train_norm")):
        return How.FOLD if network.tucker else How.DIRECT
    return How.BAKE


def command(recipe: Recipe, inputs: Mapping[str, Path], work: Path, files: dict[str, str], more: Sequence[str]) -> Command:
    """Return the command that folds or bakes, then draws.

    Args:
        recipe: its ``render`` table says what to draw.
        inputs: "lora", "checkpoint", "vae".
        work: folder that receives the pictures.
        files: texts that gen_img.py needs there.
        more: arguments of gen_img.py beside the recipe's.
    """
    from orchestrator.engines.sdscripts import engine  # noqa: PLC0415 - it asks this module how to render

    work, chosen = work.absolute(), how(recipe)
    temporary = work / TEMPORARY
    suffix = "" if inputs["checkpoint"].is_dir() else ".safetensors"
    baked, folded = temporary / f"baked{suffix}", temporary / "folded.safetensors"
    checkpoint, adapter = (inputs["checkpoint"], folded) if chosen is How.FOLD else (baked, None)
    argv = [*gen_img.arguments(recipe, checkpoint, inputs.get("vae"), adapter, work), *more]
    drawing = engine.command("gen_img.py", argv, work, {})
    request = {
        "how": chosen,
        "checkpoint": str(inputs["checkpoint"].absolute()),
        "lora": str(inputs["lora"].absolute()),
        "target": str(folded if chosen is How.FOLD else baked),
        "multiplier": recipe.render.multiplier,
        "temporary": str(temporary),
        "argv": list(drawing.argv),
        "env": drawing.env,
    }
    env = {**drawing.env, "PYTHONPATH": str(settings.ROOT)}
    text = json.dumps(request, indent=1, ensure_ascii=False)
    return Command(
        (sys.executable, "-m", "orchestrator.engines.sdscripts.render_program", str(work / REQUEST)),
        work,
        env,
        {**files, REQUEST: text},
    )


def main(argv: Sequence[str]) -> int:
    """Do what a request says; return the exit code of the drawing, or of the error."""
    request = json.loads(Path(argv[0]).read_text("utf-8"))
    temporary = Path(request["temporary"])
    watch = ChildCallbacks(_show)
    signal.signal(signal.SIGTERM, lambda *_: watch.stop.set())
    signal.signal(signal.SIGINT, lambda *_: watch.stop.set())
    try:
        shutil.rmtree(temporary, ignore_errors=True)  # of an attempt that was killed
        temporary.mkdir(parents=True)
        _prepare(request)
        if watch.stop.is_set():
            return 130
        # In a folder of its own: process.run keeps its notes there, and ours are kept by whoever runs this program.
        own = temporary / "run"
        own.mkdir()
        end = run(Command(tuple(request["argv"]), temporary.parent, request["env"]), own, watch)
        if not end.ok:
            print(f"gen_img.py ended with {end.code}{' ' + end.fault if end.fault else ''}", file=sys.stderr)
            return 130 if end.stopped else (end.code or 1) & 127 or 1
    except OrchestratorError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return 0


def _prepare(request: Mapping[str, Any]) -> None:
    from orchestrator.engines.sdscripts import bake  # noqa: PLC0415 - it loads numpy; the parent process plans without it

    base, lora, target = Path(request["checkpoint"]), Path(request["lora"]), Path(request["target"])
    print(f"{request['how']}: {lora.name} -> {target.name}", flush=True)
    try:
        if request["how"] == How.FOLD:
            bake.fold(lora, target)
        elif base.is_dir():
            bake.folder(base, target, lora, float(request["multiplier"]))
        elif base.suffix == ".safetensors":
            bake.single(base, target, lora, float(request["multiplier"]))
        else:
            # .ckpt is a pickle: it could run anything, and is never opened here.
            raise StepFailed(Problem(str(base), "a LoRA can be baked into a .safetensors model or a Diffusers folder only"))
    except (ValueError, KeyError) as error:
        raise StepFailed(Problem(str(lora), f"cannot be baked into {base.name}: {error}")) from error


def _show(piece: str) -> Progress | None:
    print(piece, flush=True)
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
