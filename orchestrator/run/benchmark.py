"""Time and GPU memory of trainings, measured by a few real steps.

``runs/probes.json`` keeps the result per machine, engine, network and image size, so that recipes of equal cost share one
measurement.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import shutil
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator import engines
from orchestrator.dataset import largest_bucket, latent_links
from orchestrator.errors import Problem, StepFailed, counted
from orchestrator.plan.step import StepKind
from orchestrator.run.paths import BENCHMARKS, LOG
from orchestrator.run.record import host, load
from orchestrator.system import child, files, gpu, process
from orchestrator.system.digests import canonical_json
from orchestrator.system.files import read_json
from orchestrator.system.terminal import duration

if TYPE_CHECKING:
    from orchestrator.plan.plan import Plan
    from orchestrator.recipe import Recipe
    from orchestrator.run.record import Reason
    from orchestrator.run.workspace import Workspace
    from orchestrator.system.child import Progress

STEPS = 4  # the first one compiles, allocates and warms up, the others are timed
# Training keys without influence on the time of a step.
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
class StepCost:
    """Measured cost of a training.

    Seconds per step, and peak and total memory of the GPU in MB (0 without a GPU).
    """

    seconds_per_step: float
    peak_mb: int
    total_mb: int

    def spills(self) -> bool:
        """Return whether the GPU's memory may spill into RAM."""
        return self.total_mb > 0 and self.peak_mb > 0.97 * self.total_mb


@dataclass(frozen=True, slots=True)
class Estimate:
    """Most time for the remaining trainings of a plan, in sequence."""

    seconds: float
    known: tuple[str, ...]
    """Measured recipes."""
    unknown: tuple[str, ...]
    """Recipes without a measurement."""
    measure: tuple[str, ...]
    """One recipe for each missing measurement."""

    def summary(self, profile: str = "", engine: str = "") -> str:
        """Return the estimate as a line, or "" without a measurement.

        Args:
            profile: --profile for the command that measures the other recipes.
            engine: --engine for that command.
        """
        text = f"training takes at most {duration(self.seconds)} for {_counted(self.known)}, one after the other"
        if not self.unknown:
            return text if self.known else ""
        command = ["python -m orchestrator probe", *self.measure]
        command += [f"--{name} {value}" for name, value in (("profile", profile), ("engine", engine)) if value]
        return f"{text}; not measured: {', '.join(self.unknown)};  {' '.join(command)}" if self.known else ""


def _counted(names: tuple[str, ...]) -> str:
    return counted(len(names), "recipe") if len(names) != 1 else names[0]


def estimate(plan: Plan, reasons: dict[str, Reason | None], space: Workspace) -> Estimate:
    """Estimate the time of the remaining trainings of a plan.

    Resumed trainings count from their state on.
    """
    costs = read_json(space.store.root / BENCHMARKS)
    seconds = 0.0
    measured: list[str] = []
    missing: dict[str, str] = {}
    for step in plan.steps:
        reason = reasons[step.name]
        if step.kind is not StepKind.TRAIN or reason is None or reason.links:
            continue
        recipe = plan.recipes[step.recipe]
        key = cache_key(recipe, space) if costs else ""
        cost = _cost(costs.get(key))
        if cost is None:
            missing[recipe.name] = key
            continue
        seconds += max(0, recipe.training.steps - reason.done) * cost.seconds_per_step
        measured.append(recipe.name)
    first = {key: name for name, key in reversed(missing.items())}
    return Estimate(seconds, tuple(measured), tuple(missing), tuple(name for name in missing if name in first.values()))


def seconds_per_image(recipe: Recipe, space: Workspace) -> float | None:
    """Return the time of an image by the recipe's newest render, or None."""
    records = [record for path in (space.store.root / recipe.name).glob("render-*/record.json") if (record := load(path))]
    newest = max(records, key=lambda record: record.started, default=None)
    return newest.seconds / max(1, len(newest.outputs)) if newest is not None else None


def measured_cost(recipe: Recipe, space: Workspace) -> StepCost | None:
    """Return the measured cost of a recipe on this machine, or None."""
    return _cost(read_json(space.store.root / BENCHMARKS).get(cache_key(recipe, space)))


def _cost(entry: Any) -> StepCost | None:
    """Return an entry of the file as a cost, or None if it is invalid."""
    with contextlib.suppress(LookupError, TypeError, ValueError, OverflowError):
        cost = StepCost(float(entry["seconds_per_step"]), int(entry["peak_mb"]), int(entry["total_mb"]))
        return cost if cost.seconds_per_step >= 0 and math.isfinite(cost.seconds_per_step) else None
    return None


def measure(recipe: Recipe, plan: Plan, space: Workspace) -> StepCost:
    """Measure a few training steps on the dataset's largest bucket.

    Raises:
        StepFailed: the dataset is not built, or the trainer ended before its last step.
    """
    step = plan.step_of(recipe.name, StepKind.TRAIN)
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
        cost = _train(short, folder, data, {source.role: source.path for source in step.sources})
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    files.write_json(
        space.store.root / BENCHMARKS, read_json(space.store.root / BENCHMARKS) | {cache_key(recipe, space): asdict(cost)}
    )
    return cost


def _train(recipe: Recipe, folder: Path, data: Path, models: dict[str, Path]) -> StepCost:
    """Run the training in ``folder`` and time its steps after the first."""
    (folder / "dataset").mkdir()
    largest_bucket.link_images(data, folder / "dataset")
    if recipe.training.caches_on_disk:  # links already, whose caches go with the folder
        (folder / latent_links.FOLDER).symlink_to("dataset")
    command = engines.get(recipe.engine).train(recipe, {"dataset": folder / "dataset", **models}, folder, None)
    frames: dict[int, float] = {}
    memory = [0, 0]

    def note_time(progress: Progress) -> None:
        frames.setdefault(progress.done, time.monotonic())

    def note_memory() -> str:
        used, total = max(gpu.numbers("memory.used", "memory.total") or [[0, 0]])  # of the fullest GPU
        memory[:] = [max(memory[0], used), total]
        return ""

    callbacks = child.ChildCallbacks(engines.get(recipe.engine).read, note_time, pause_reason=note_memory)
    end = process.run(command, folder, callbacks)
    timed = sorted(done for done in frames if done >= 1)
    if not end.ok or len(timed) < 2 or timed[-1] == timed[0]:
        tail = (folder / LOG).read_text("utf-8", "replace").splitlines()[-6:]
        raise StepFailed(Problem(recipe.name, "the trial steps did not end well:\n      " + "\n      ".join(tail)))
    seconds = (frames[timed[-1]] - frames[timed[0]]) / (timed[-1] - timed[0])
    return StepCost(round(seconds, 4), memory[0], memory[1])


def cache_key(recipe: Recipe, space: Workspace) -> str:
    """Return the digest of all parameters that a step's cost depends on.

    These are machine, engine, base, network, image size and training settings.
    """
    machine = host()
    training = recipe.training.model_dump(mode="json", exclude=set(_SAME_TIME))
    training["frozen"] = [getattr(recipe.training, name) == 0 for name in _RATES]
    parameters = {
        "machine": {name: machine[name] for name in ("node", "gpu", "driver", "cpus")},
        "engine": [recipe.engine, space.inputs.engine_version(recipe.engine)],
        "base": [recipe.base.architecture, recipe.base.is_small],
        "network": recipe.network.model_dump(mode="json", exclude={"alpha", "conv_alpha", "weights"}),
        "pictures": space.inputs.counts(recipe).largest,
        "augmentation": [recipe.dataset.color_aug, recipe.dataset.flip_aug, recipe.dataset.random_crop],
        "training": training,
    }
    return hashlib.sha256(canonical_json(parameters)).hexdigest()[:16]
