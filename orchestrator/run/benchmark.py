"""How long a training will take and how much GPU memory it needs, measured by a few real steps on its largest pictures.

The result is remembered per machine, engine, network and shape in ``runs/probes.json``, so it is measured once, for all
recipes that differ in nothing that costs time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import shutil
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator import engines
from orchestrator.dataset import largest_bucket
from orchestrator.errors import Problem, StepFailed
from orchestrator.plan.step import StepKind
from orchestrator.run.paths import BENCHMARKS, LOG
from orchestrator.run.record import host
from orchestrator.system import child, files, gpu, process
from orchestrator.system.digests import canonical_json
from orchestrator.system.terminal import duration

if TYPE_CHECKING:
    from orchestrator.plan.planner import Plan
    from orchestrator.recipe import Recipe
    from orchestrator.run.record import Reason
    from orchestrator.run.workspace import Workspace
    from orchestrator.system.child import Progress

STEPS = 4  # the first one compiles, allocates and warms up; the others are timed
# What of a training changes what is trained, or what is kept of it, and not how long a step takes.
_SAME_TIME: tuple[str, ...] = (
    "steps",
    "seed",
    "learning_rate",
    "text_encoder_lr",
    "unet_lr",
    "log_prefix",
    "wandb",
    "save_precision",
)
_SAME_TIME += ("lr_scheduler", "lr_scheduler_num_cycles", "lr_warmup_steps", "keep_states")
_SAME_TIME += ("save_every_n_steps", "state_every_n_steps", "sample_every_n_steps")
_RATES = ("learning_rate", "text_encoder_lr", "unet_lr")


@dataclass(frozen=True, slots=True)
class Probe:
    """What a few steps showed: seconds a step, and the GPU's peak memory in MB (0 without a GPU)."""

    seconds_per_step: float
    peak_mb: int
    total_mb: int

    def spills(self) -> bool:
        """Whether the training fills the GPU so far that its memory may spill into RAM."""
        return self.total_mb > 0 and self.peak_mb > 0.97 * self.total_mb


@dataclass(frozen=True, slots=True)
class Left:
    """What the trainings of a plan that are still to be done will take, at most, one after the other."""

    seconds: float
    known: tuple[str, ...]
    """Recipes whose shape has been measured."""
    unknown: tuple[str, ...]
    """Recipes whose shape has not."""
    measure: tuple[str, ...]
    """One recipe of each shape that has not."""

    def told(self, profile: str = "", engine: str = "") -> str:
        """Return it as a line for people; "" where nothing has been measured or nothing is left.

        Args:
            profile: --profile of the command that says it, for the one that measures the others.
            engine: --engine.
        """
        said = f"training takes at most {duration(self.seconds)} for {_counted(self.known)}, one after the other"
        if not self.unknown:
            return said if self.known else ""
        command = ["python -m orchestrator probe", *self.measure]
        command += [f"--{name} {value}" for name, value in (("profile", profile), ("engine", engine)) if value]
        return f"{said}; not measured: {', '.join(self.unknown)};  {' '.join(command)}" if self.known else ""


def _counted(names: tuple[str, ...]) -> str:
    return f"{len(names)} recipes" if len(names) != 1 else names[0]


def left(plan: Plan, reasons: dict[str, Reason | None], space: Workspace) -> Left:
    """Return what is left to train of a plan, by what was measured: whole trainings, or from their last state on."""
    memo = _memo(space)
    seconds, found, lacking = 0.0, [], {}
    for step in plan.steps:
        reason = reasons[step.name]
        if step.kind is not StepKind.TRAIN or reason is None:
            continue
        recipe = plan.recipes[step.recipe]
        key = shape(recipe, space) if memo else ""
        probe = _probe(memo.get(key))
        if probe is None:
            lacking[recipe.name] = key
            continue
        seconds += max(0, recipe.training.steps - reason.done) * probe.seconds_per_step
        found.append(recipe.name)
    one = {key: name for name, key in reversed(lacking.items())}
    return Left(seconds, tuple(found), tuple(lacking), tuple(name for name in lacking if name in one.values()))


def known(recipe: Recipe, space: Workspace) -> Probe | None:
    """Return what was measured for this recipe's shape on this machine, or None."""
    return _probe(_memo(space).get(shape(recipe, space)))


def _probe(said: Any) -> Probe | None:
    """Return what the file of probes says of a shape; None where it says nothing of use."""
    with contextlib.suppress(LookupError, TypeError, ValueError, OverflowError):
        found = Probe(float(said["seconds_per_step"]), int(said["peak_mb"]), int(said["total_mb"]))
        return found if found.seconds_per_step >= 0 and math.isfinite(found.seconds_per_step) else None
    return None


def measure(recipe: Recipe, plan: Plan, space: Workspace) -> Probe:
    """Train a few steps on the largest bucket of the recipe's dataset, in a folder that is removed afterwards.

    Raises:
        StepFailed: the dataset is not built yet, or the trainer ended before it had done its steps.
    """
    step = next(step for step in plan.of(recipe.name) if step.kind is StepKind.TRAIN)
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
    memo = {**_memo(space), shape(recipe, space): asdict(probe)}
    files.write_json(space.store.root / BENCHMARKS, memo)
    return probe


def _train(recipe: Recipe, folder: Path, data: Path, models: dict[str, Path]) -> Probe:
    (folder / "dataset").mkdir()
    largest_bucket.link_images(data, folder / "dataset")
    command = engines.get(recipe.engine).train(recipe, {"dataset": folder / "dataset", **models}, folder, None)
    frames: dict[int, float] = {}
    memory = [0, 0]

    def progress(seen: Progress) -> None:
        frames.setdefault(seen.done, time.monotonic())

    def look() -> str:
        used, total = max(gpu.numbers("memory.used", "memory.total") or [[0, 0]])  # of the fullest GPU
        memory[:] = [max(memory[0], used), total]
        return ""

    watch = child.ChildCallbacks(engines.get(recipe.engine).read, progress, pause_reason=look)
    end = process.run(command, folder, watch)
    timed = sorted(done for done in frames if done >= 1)
    if not end.ok or len(timed) < 2 or timed[-1] == timed[0]:
        tail = (folder / LOG).read_text("utf-8", "replace").splitlines()[-6:]
        raise StepFailed(Problem(recipe.name, "the trial steps did not end well:\n      " + "\n      ".join(tail)))
    seconds = (frames[timed[-1]] - frames[timed[0]]) / (timed[-1] - timed[0])
    return Probe(round(seconds, 4), memory[0], memory[1])


def shape(recipe: Recipe, space: Workspace) -> str:
    """Return the key of what a step's time depends on: machine, engine, base, network, largest pictures, settings."""
    said = host()
    training = recipe.training.model_dump(mode="json", exclude=set(_SAME_TIME))
    training["frozen"] = [getattr(recipe.training, name) == 0 for name in _RATES]
    asked = {
        "machine": {name: said[name] for name in ("node", "gpu", "driver", "cpus")},
        "engine": [recipe.engine, space.inputs.engine_version(recipe.engine)],
        "base": [recipe.base.architecture, recipe.base.checkpoint == "embedded"],
        "network": recipe.network.model_dump(mode="json", exclude={"alpha", "conv_alpha", "weights"}),
        "pictures": space.inputs.counts(recipe).largest,
        "augmentation": [recipe.dataset.color_aug, recipe.dataset.flip_aug, recipe.dataset.random_crop],
        "training": training,
    }
    return hashlib.sha256(canonical_json(asked)).hexdigest()[:16]


def _memo(space: Workspace) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        found = json.loads((space.store.root / BENCHMARKS).read_text("utf-8"))
        if isinstance(found, dict):
            return found
    return {}
