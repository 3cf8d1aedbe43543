"""How long a training will take and how much GPU memory it needs, measured by a few real steps on its largest pictures.

The result is remembered per machine, engine, network and shape in ``runs/probes.json``, so it is measured once.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import toml

from orchestrator import engines, process
from orchestrator.errors import Problem, StepFailed
from orchestrator.plan import Kind, canonical
from orchestrator.record import host

if TYPE_CHECKING:
    from orchestrator.plan import Plan
    from orchestrator.process import Progress
    from orchestrator.recipe import Recipe
    from orchestrator.workspace import Workspace

STEPS = 4  # the first one compiles, allocates and warms up; the others are timed


@dataclass(frozen=True, slots=True)
class Probe:
    """What a few steps showed: seconds a step, and the GPU's peak memory in MB (0 without a GPU)."""

    seconds_per_step: float
    peak_mb: int
    total_mb: int

    def spills(self) -> bool:
        """Whether the training fills the GPU so far that its memory may spill into RAM."""
        return self.total_mb > 0 and self.peak_mb > 0.97 * self.total_mb


def known(recipe: Recipe, space: Workspace) -> Probe | None:
    """Return what was measured for this recipe on this machine, or None."""
    found = _memo(space).get(_key(recipe))
    return Probe(**found) if found else None


def measure(recipe: Recipe, plan: Plan, space: Workspace) -> Probe:
    """Train a few steps on the largest resolution class of the recipe's dataset, in a folder that is removed afterwards.

    Raises:
        StepFailed: the dataset is not built yet, or the trainer ended before it had done its steps.
    """
    step = next(step for step in plan.of(recipe.name) if step.kind is Kind.TRAIN)
    data = space.store.folder(plan.by_name[step.needs[0]])
    if not (data / "dataset.toml").is_file():
        again = f"python -m orchestrator run {recipe.name} --only dataset"
        raise StepFailed(Problem(step.needs[0], "is not built yet", again))
    space.store.root.mkdir(parents=True, exist_ok=True)
    training: dict[str, Any] = {
        "steps": STEPS,
        "state_every_n_steps": None,
        "save_every_n_steps": None,
        "sample_every_n_steps": None,
    }
    training |= {"lr_warmup_steps": None, "cache_latents": "no" if recipe.training.cache_latents == "no" else "memory"}
    short = recipe.model_copy(update={"training": recipe.training.model_copy(update=training)})
    folder = Path(tempfile.mkdtemp(prefix=".probe-", dir=space.store.root))
    try:
        probe = _train(short, folder, data, {source.role: source.path for source in step.sources})
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    memo = {**_memo(space), _key(recipe): asdict(probe)}
    draft = space.store.root / f"probes.json.{os.getpid()}"
    draft.write_text(json.dumps(memo, indent=1), "utf-8")
    draft.replace(space.store.root / "probes.json")
    return probe


def _train(recipe: Recipe, folder: Path, data: Path, models: dict[str, Path]) -> Probe:
    (folder / "dataset").mkdir()
    (folder / "dataset" / "dataset.toml").write_text(_largest(data), "utf-8")
    command = engines.get(recipe.engine).train(recipe, {"dataset": folder / "dataset", **models}, folder, None)
    frames: dict[int, float] = {}
    memory = [0, 0]

    def progress(seen: Progress) -> None:
        frames.setdefault(seen.done, time.monotonic())

    def look() -> str:
        used, total = _memory()
        memory[:] = [max(memory[0], used), total]
        return ""

    watch = process.Watch(engines.get(recipe.engine).read, progress, hold=look)
    end = process.run(command, folder, watch)
    timed = sorted(done for done in frames if done >= 1)
    if not end.ok or len(timed) < 2 or timed[-1] == timed[0]:
        tail = (folder / process.LOG).read_text("utf-8", "replace").splitlines()[-6:]
        raise StepFailed(Problem(recipe.name, "the trial steps did not end well:\n      " + "\n      ".join(tail)))
    seconds = (frames[timed[-1]] - frames[timed[0]]) / (timed[-1] - timed[0])
    return Probe(round(seconds, 4), memory[0], memory[1])


def _largest(data: Path) -> str:
    """Return the dataset's TOML with absolute folders and only the class with the largest pictures."""
    from orchestrator.dataset import absolute_config  # noqa: PLC0415 - only a probe needs it

    table = tomllib.loads(absolute_config(data))

    def area(entry: dict[str, Any]) -> int:
        side = entry.get("resolution", 0)
        return int(side[0] * side[1]) if isinstance(side, list) else int(side) ** 2

    table["datasets"] = [max(table["datasets"], key=area)]
    return str(toml.dumps(table))


def _memory() -> tuple[int, int]:
    """Return used and total memory of the fullest GPU, in MB; zeros without one."""
    query = "--query-gpu=memory.used,memory.total"
    code, text = process.capture(("nvidia-smi", query, "--format=csv,noheader,nounits"), timeout=5.0)
    readings: list[tuple[int, int]] = []
    if code == 0:
        for line in text.splitlines():
            used, _, total = line.partition(",")
            with contextlib.suppress(ValueError):
                readings.append((int(used), int(total)))
    return max(readings, default=(0, 0))


def _key(recipe: Recipe) -> str:
    said = host()
    machine = {name: said[name] for name in ("node", "gpu", "driver", "cpus")}
    training = recipe.training.model_dump(
        mode="json", include={"mixed_precision", "gradient_checkpointing", "attention", "optimizer"}
    )
    asked = {"machine": machine, "engine": [recipe.engine, engines.get(recipe.engine).version()], "training": training}
    asked |= {"network": recipe.network.model_dump(mode="json"), "dataset": recipe.dataset.model_dump(mode="json")}
    return hashlib.sha256(canonical({**asked, "base": recipe.base.architecture})).hexdigest()[:16]


def _memo(space: Workspace) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        found = json.loads((space.store.root / "probes.json").read_text("utf-8"))
        if isinstance(found, dict):
            return found
    return {}
