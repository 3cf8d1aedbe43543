"""Render a network that the script of sd-scripts cannot read.

``python -m`` this module with request.json (see ``render_command``). A Tucker LoCon becomes an exact plain LoRA. Every other
family is baked into temporary model files. Both are removed afterwards, however the drawing ended.
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
            print(f"the drawing ended with {end.code}{' ' + end.fault if end.fault else ''}", file=sys.stderr)
            return 130 if end.stopped else (end.code or 1) & 127 or 1
    except OrchestratorError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return 0


def _prepare(request: Mapping[str, Any]) -> None:
    lora, architecture = Path(request["lora"]), request["architecture"]
    base = [
        bake.BaseFile(Path(file["source"]), Path(file["target"]), file["text_prefix"]) for file in request.get("files", ())
    ]
    try:
        if request["how"] == LoraDelivery.FOLD:
            print(f"fold: {lora.name} -> {Path(request['target']).name}", flush=True)
            bake.fold(lora, Path(request["target"]), architecture, request["dtype"])
            return
        print(f"bake: {lora.name} -> {', '.join(file.source.name for file in base)}", flush=True)
        for file in base:
            # .ckpt is a pickle: it could run anything, and is never opened here.
            if not file.source.is_dir() and file.source.suffix != ".safetensors":
                what = "a LoRA can be baked into a .safetensors model or a Diffusers folder only"
                raise StepFailed(Problem(str(file.source), what))
        if not base[0].text_prefix and base[0].source.is_dir():
            bake.folder(base[0].source, base[0].target, lora, float(request["multiplier"]))
        else:
            bake.files(base, lora, float(request["multiplier"]), architecture, request["dtype"])
    except (ValueError, KeyError) as error:
        raise StepFailed(
            Problem(str(lora), f"cannot be baked into {base[0].source.name if base else 'a LoRA'}: {error}")
        ) from error


def _show(piece: str) -> Progress | None:
    print(piece, flush=True)
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
