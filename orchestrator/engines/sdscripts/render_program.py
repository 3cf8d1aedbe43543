"""Render a network that gen_img.py cannot read.

``python -m`` this module with request.json (see ``render_command``). A Tucker LoCon becomes an exact plain LoRA. Every other
family is baked into a temporary checkpoint. Both are removed afterwards, however the drawing ended.
"""

from __future__ import annotations

import json
import shutil
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.engines.sdscripts import bake
from orchestrator.engines.sdscripts.render_command import LoraDelivery
from orchestrator.errors import OrchestratorError, Problem, StepFailed
from orchestrator.system.child import ChildCallbacks, Progress
from orchestrator.system.process import Command, run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def main(argv: Sequence[str]) -> int:
    """Carry out a request and return its exit code."""
    request = json.loads(Path(argv[0]).read_text("utf-8"))
    temporary = Path(request["temporary"])
    callbacks = ChildCallbacks(_show)
    signal.signal(signal.SIGTERM, lambda *_: callbacks.stop.set())
    signal.signal(signal.SIGINT, lambda *_: callbacks.stop.set())
    try:
        shutil.rmtree(temporary, ignore_errors=True)  # of an attempt that was killed
        temporary.mkdir(parents=True)
        _prepare(request)
        if callbacks.stop.is_set():
            return 130
        # In a folder of its own: process.run keeps notes there, and so does the process that runs this program.
        own = temporary / "run"
        own.mkdir()
        end = run(Command(tuple(request["argv"]), temporary.parent, request["env"]), own, callbacks)
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
    base, lora, target = Path(request["checkpoint"]), Path(request["lora"]), Path(request["target"])
    print(f"{request['how']}: {lora.name} -> {target.name}", flush=True)
    try:
        if request["how"] == LoraDelivery.FOLD:
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
