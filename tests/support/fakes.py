"""A quick trainer that prints like sd-scripts and fails on demand.

The fake engine runs it as a program.

It is no stand-in for the engines' own tests: it exists so that the runner can be shown every way a trainer can end.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.errors import Problem
from orchestrator.system.child import Progress
from orchestrator.system.process import Command

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from orchestrator.engines.protocol import RenderItem
    from orchestrator.recipe import Recipe

NAME = "fake"
_FRAME = re.compile(r"steps:.*?(\d+)/(\d+).*avr_loss=([\d.naif]+)")


def version() -> str:
    return "1"


def check(_recipe: Recipe) -> list[Problem]:
    return []


def preflight(_recipe: Recipe) -> list[Problem]:
    return []


def train(recipe: Recipe, inputs: Mapping[str, Path], work: Path, state: Path | None) -> Command:
    request = {"name": recipe.name, "steps": recipe.training.steps, "work": str(work), "state": str(state or "")}
    request["save"] = recipe.training.save_every_n_steps or 0
    request |= {"behave": recipe.training.options.get("behave", ""), "precision": recipe.training.mixed_precision}
    request |= {
        "pause": recipe.training.options.get("pause", 0.0),
        "dataset": sorted(path.name for path in inputs["dataset"].iterdir()),
    }
    return Command((sys.executable, __file__, "train", json.dumps(request)), cwd=work)


def render(recipe: Recipe, inputs: Mapping[str, Path], work: Path) -> Command:
    request = {"prompts": list(recipe.render.prompts), "work": str(work), "lora": str(inputs["lora"])}
    return Command((sys.executable, __file__, "render", json.dumps(request)), cwd=work)


def together(items: Sequence[RenderItem]) -> list[list[int]]:
    return [list(range(len(items)))]


def render_together(items: Sequence[RenderItem], inputs: Mapping[str, Path], work: Path) -> Command:
    images = {
        f"{number:03d}-{name}": str(item.lora or "")
        for number, item in enumerate(items)
        for name in item.recipe.render.prompts
    }
    return Command((sys.executable, __file__, "draw", json.dumps({"images": images, "work": str(work)})), cwd=work)


def read(piece: str) -> Progress | None:
    frame = _FRAME.search(piece)
    if frame is None:
        return None
    loss = float(frame[3])
    fault = "the loss is nan" if loss != loss else ""  # noqa: PLR0124 - only NaN differs from itself
    return Progress(int(frame[1]), int(frame[2]), loss, fault=fault)


def reader(_recipe: Recipe, _work: Path) -> Callable[[str], Progress | None]:
    return read


def lost_steps(_work: Path, _when: float) -> int:
    return 0


def history(_work: Path) -> list[dict[str, object]]:
    return []


def checkpoint(work: Path) -> tuple[Path, int] | None:
    total = int((work / "total").read_text("utf-8") or 0) if (work / "total").exists() else sys.maxsize
    states = {int(state.name[4:].partition("-")[0]): state for state in work.glob("step*-state")}
    step = max((step for step in states if step < total), default=0)
    return (states[step], step) if step else None


def finished(recipe: Recipe, work: Path, log: str) -> list[Problem]:
    if "model saved." not in log:
        return [Problem(f"{recipe.name}/train", 'ended without "model saved."', f"log: {work / 'log.txt'}")]
    return []


def _train(request: dict[str, object]) -> int:
    work, behave = Path(str(request["work"])), str(request["behave"])
    first = int(Path(str(request["state"])).name[4:].partition("-")[0]) if request["state"] else 0
    total = int(str(request["steps"]))
    if first >= total:  # as sd-scripts and the embedded trainer do
        print(f"AssertionError: max_train_steps should be greater than initial step: {total} vs {first}", file=sys.stderr)
        return 1
    (work / "total").write_text(str(total), "utf-8")
    linked = sorted((work / "latents").rglob("*.png"))  # as sd-scripts' cache_latents_to_disk: beside the pictures it sees
    for picture in linked:
        assert picture.is_symlink()
        assert picture.with_suffix(".txt").is_file()
        picture.with_suffix(".npz").write_bytes(picture.read_bytes()[:8])
    print(f"{len(linked)} latents", flush=True)
    if behave == "noise":
        os.write(1, bytes(range(256)) * 8 + b"x" * (1 << 20))
        if (left := os.fork()) == 0:
            time.sleep(600)
        (work / "left").write_text(str(left), "utf-8")
    for step in range(first + 1, total + 1):
        time.sleep(float(str(request["pause"])))
        loss = "nan" if behave == "nan" and step == total // 2 and request["precision"] != "bf16" else "0.1"
        if behave == "nan" and loss == "nan":
            sys.stderr.write(f"\rsteps: 50%|##| {step}/{total} [00:00<00:00, 1it/s, avr_loss=nan]")
            sys.stderr.flush()
            time.sleep(60)
        sys.stderr.write(f"\rsteps: 50%|##| {step}/{total} [00:00<00:00, 1it/s, avr_loss={loss}]")
        sys.stderr.flush()
        _save_step(request, step)
        if step % 5 == 0:
            draft = work / f".state-{os.getpid()}"
            draft.mkdir(exist_ok=True)
            if behave == "nan":
                (draft / "model.safetensors").write_bytes(
                    lora() if request["precision"] != "fp16" else lora()[:-2] + b"\xff\x7f"
                )
            draft.rename(work / f"step{step:04}-state")
        if behave == "die" and step == total // 2 + 1 and not request["state"]:
            os.kill(os.getpid(), signal.SIGKILL)
        if behave == "fail":
            print("\nRuntimeError: CUDA out of memory", file=sys.stderr)
            return 1
    if behave == "silent":
        return 0
    if behave != "no file":
        draft = work / f".{request['name']}"
        content = lora() if behave != "truncated" else lora()[:200]
        if behave == "zero" and request["precision"] != "bf16":
            content = content[: -2 * 320 * 2] + bytes(2 * 320 * 2)  # lora_up, the last tensor
        draft.write_bytes(content)
        draft.rename(work / f"{request['name']}.safetensors")
    print("model saved.", flush=True)
    return 0


def _save_step(request: dict[str, object], step: int) -> None:
    every = int(str(request["save"]))
    if every and step % every == 0:
        (Path(str(request["work"])) / f"{request['name']}-step{step:08d}.safetensors").write_bytes(lora())


def _render(request: dict[str, object]) -> int:
    from PIL import Image  # noqa: PLC0415 - trainings need none

    shade = Path(str(request["lora"])).read_bytes()[-3:]
    for name in list(request["prompts"]):  # type: ignore[call-overload]
        Image.new("RGB", (64, 64), tuple(shade)).save(Path(str(request["work"])) / f"{name}.png")
    return 0


def _draw(request: dict[str, dict[str, str]]) -> int:
    from PIL import Image  # noqa: PLC0415 - trainings need none

    for name, file in request["images"].items():
        shade = Path(file).read_bytes()[-3:] if file else b"\x80\x80\x80"
        Image.new("RGB", (64, 64), tuple(shade)).save(Path(str(request["work"])) / f"{name}.png")
    return 0


def lora(rank: int = 2) -> bytes:
    """Return a real safetensors file: one attention module of SD1.5 with random fp16 values, other ones every time."""
    module = "lora_unet_down_blocks_0_attentions_0_proj_in"
    shapes: dict[str, list[int]] = {"alpha": [], "lora_down.weight": [rank, 320, 1, 1], "lora_up.weight": [320, rank, 1, 1]}
    return safetensors({f"{module}.{name}": shape for name, shape in shapes.items()}, rank)


def checkpoint_file() -> bytes:
    """Return a safetensors file whose names are those of an SD1 checkpoint."""
    return safetensors({"model.diffusion_model.input_blocks.0.0.weight": [4, 4, 3, 3]}, 0)


def safetensors(shapes: dict[str, list[int]], rank: int) -> bytes:
    """Return a safetensors file of random fp16 tensors."""
    header: dict[str, object] = {"__metadata__": {"ss_network_module": "networks.lora", "ss_network_dim": str(rank)}}
    body = b""
    for name, shape in shapes.items():
        count = 1
        for side in shape:
            count *= side
        # an exponent of 0x3000 keeps every random half between 0.125 and 0.25
        data = b"".join((0x3000 | value & 0x3FF).to_bytes(2, "little") for value in os.urandom(count))
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + body


if __name__ == "__main__":
    _verb, _text = sys.argv[1], sys.argv[2]
    sys.exit({"train": _train, "render": _render, "draw": _draw}[_verb](json.loads(_text)))
