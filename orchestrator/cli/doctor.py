"""Checks of this machine and of recipes, for the verb doctor."""

from __future__ import annotations

import importlib.metadata
import locale
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from orchestrator import engines
from orchestrator.dataset import lint
from orchestrator.dataset.lint.findings import Level
from orchestrator.engines.sdscripts import environment
from orchestrator.errors import counted, grouped
from orchestrator.run import model_files, preflight
from orchestrator.run.paths import LOCK
from orchestrator.system import settings
from orchestrator.system.gpu import query
from orchestrator.system.lock import held_by
from orchestrator.weights.checks import Check, CheckStatus

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from orchestrator.plan.inputs import ProjectInputs
    from orchestrator.recipe import Recipe
    from orchestrator.recipe.loader import Loaded
    from orchestrator.run.store import Store
    from orchestrator.run.workspace import Workspace

_OLDEST: Final = (3, 11)
_LITTLE_VRAM: Final = 6_000  # MiB that a training of SD1.5 with gradient checkpointing takes at batch 1
_LITTLE_DISK: Final = 2e9


def checks(space: Workspace, loaded: Sequence[Loaded]) -> list[Check]:
    """Return the checks of this machine and of recipes, each once."""
    recipes = [each.recipe for each in loaded]
    names = dict.fromkeys(recipe.engine for recipe in recipes)
    sd_scripts = "sd-scripts" in names
    result = [python(), packages(), encoding(), gpu(needed=sd_scripts), disk(space.store, space.root), tensorboard()]
    result += [*locks(space.store), *leases()]
    if sd_scripts:
        result += environment.checks([recipe for recipe in recipes if recipe.engine == "sd-scripts"])
    problems = preflight.runs_folder(space.store)
    for name in names:
        engine = engines.get(name)
        missing = [problem for recipe in recipes if recipe.engine == name for problem in engine.preflight(recipe)]
        problems += missing
        if not missing:
            result.append(Check(f"engine {name}", CheckStatus.PASS, engine.version()))
    datasets: dict[str, Recipe] = {}
    for recipe in recipes:
        problems += model_files.problems(recipe, space.inputs)
        result += model_files.checks(recipe, space.inputs)
        if recipe.built_dataset() not in datasets:
            datasets[recipe.built_dataset()] = recipe
            missing = preflight.images(recipe, space.inputs)
            problems += missing
            result += [] if missing else dataset(recipe, space.inputs)
    problems += preflight.disk_space(recipes, list(datasets.values()), space.inputs, space.store)
    result += [Check(problem.where, CheckStatus.FAIL, problem.what, problem.hint) for problem in grouped(problems)]
    result += [Check(each.where, CheckStatus.WARNING, each.what, each.hint) for each in space.cautions(loaded)]
    if space.store.root.is_dir():
        space.inputs.digests.save()
    return list(dict.fromkeys(result))


def dataset(recipe: Recipe, inputs: ProjectInputs) -> list[Check]:
    """Check the dataset of a recipe like ``dataset check``."""
    cache, architecture = lint.hash_cache(inputs.root), recipe.base.architecture
    report = lint.check(recipe.dataset, inputs.root, recipe.training, architecture=architecture, cache=cache)
    what = f"dataset {recipe.built_dataset()}"
    errors = [Check(finding.where, CheckStatus.FAIL, finding.what, finding.hint) for finding in report.errors()]
    counts = f"{counted(len(report.inspected.originals()), 'image')}, {report.inspected.prediction.images} with all sizes"
    warnings = sum(finding.level is Level.WARNING for finding in report.findings)
    if warnings:
        fix = f"python -m orchestrator dataset check {recipe.name}  lists them"
        return [*errors, Check(what, CheckStatus.WARNING, f"{counts}; {counted(warnings, 'warning')}", fix)]
    return [*errors, Check(what, CheckStatus.PASS, counts)]


def python() -> Check:
    """Check the version of this Python."""
    status = CheckStatus.PASS if sys.version_info >= _OLDEST else CheckStatus.FAIL
    detail = f"{sys.version.split()[0]}, {sys.executable}"
    return Check("python", status, detail, "make PYTHON=python3.11 setup", "3.11 or newer")


def packages() -> Check:
    """Compare the installed packages with the lock."""
    lock = settings.ROOT / "constraints.txt"
    if not lock.is_file():
        return Check("packages", CheckStatus.PASS, "no lock beside the program (installed as a package)")
    differ, missing, count = [], [], 0
    for line in lock.read_text("utf-8").splitlines():
        name, _, locked = line.partition("==")
        if not locked or line.startswith("#"):
            continue
        count += 1
        try:
            installed = importlib.metadata.version(name).partition("+")[0]
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
            continue
        if installed != locked:
            differ.append(f"{name} {installed} (lock: {locked})")
    if not differ:
        absent = f", {len(missing)} of extras are not installed" if missing else ""
        return Check("packages", CheckStatus.PASS, f"{count - len(missing)} as locked{absent}")
    return Check(
        "packages",
        CheckStatus.WARNING,
        ", ".join(differ),
        f"{sys.executable} -m pip install -c {lock} -e .",
        "as constraints.txt",
    )


def encoding() -> Check:
    """Check that files, texts and terminal can hold Japanese."""
    encodings = {"files": sys.getfilesystemencoding(), "texts": locale.getpreferredencoding(do_setlocale=False)}
    encodings["terminal"] = sys.stdout.encoding or "none"
    narrow = [f"{what} {name}" for what, name in encodings.items() if name.lower().replace("-", "") not in ("utf8", "none")]
    if narrow:
        return Check("encoding", CheckStatus.WARNING, ", ".join(narrow), "export PYTHONUTF8=1 LC_ALL=C.UTF-8", "UTF-8")
    return Check("encoding", CheckStatus.PASS, "UTF-8")


def gpu(*, needed: bool) -> Check:
    """Check GPUs, their free memory and the driver."""
    rows, reason = query("name", "memory.free", "memory.total", "driver_version")
    if not rows:
        status = CheckStatus.WARNING if needed else CheckStatus.PASS
        return Check(
            "gpu", status, reason, "the embedded engine trains on the CPU:  run RECIPE --profile demo", "an NVIDIA GPU, 6 GB"
        )
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    detail = "; ".join(f"{name}, {free} of {total} MiB free, driver {driver}" for name, free, total, driver in rows)
    detail += f" (CUDA_VISIBLE_DEVICES={hidden})" if hidden else ""
    most = max((int(row[1]) for row in rows if row[1].isdigit()), default=_LITTLE_VRAM)
    if needed and most < _LITTLE_VRAM:
        return Check(
            "gpu", CheckStatus.WARNING, detail, "nvidia-smi  lists the processes in its memory", f"{_LITTLE_VRAM} MiB free"
        )
    return Check("gpu", CheckStatus.PASS, detail)


def disk(store: Store, root: Path) -> Check:
    """Check the free space of the store's disk."""
    folder = store.root if store.root.exists() else root
    free = shutil.disk_usage(folder).free
    status = CheckStatus.PASS if free > _LITTLE_DISK else CheckStatus.WARNING
    detail = f"{free / 1e9:.1f} GB free for {store.root}"
    return Check("disk", status, detail, "export KRNK_RUNS=/a/larger/disk", "2 GB or more")


def tensorboard() -> Check:
    """Check for TensorBoard, for curves of a running training."""
    try:
        return Check("tensorboard", CheckStatus.PASS, importlib.metadata.version("tensorboard"))
    except importlib.metadata.PackageNotFoundError:
        return Check(
            "tensorboard",
            CheckStatus.WARNING,
            "not installed: no curves with  make tensorboard",
            f"{sys.executable} -m pip install tensorboard",
        )


def locks(store: Store) -> Iterator[Check]:
    """Yield a check for every recipe with a running process."""
    for lock in sorted(store.root.glob(f"*/{LOCK}")):
        holder = held_by(lock)
        if holder:
            detail = f"{lock.parent.name} is in use by {holder}"
            fix = "python -m orchestrator status  shows it; wait, or end that process"
            yield Check("lock", CheckStatus.WARNING, detail, fix, "no other process")


def leases() -> Iterator[Check]:
    """Yield a check for every GPU in use by a training."""
    for lease in sorted(Path(tempfile.gettempdir()).glob("krnk-gpu-*.lease")):
        holder = held_by(lease)
        if holder:
            detail = f"GPU {lease.stem.removeprefix('krnk-gpu-')} is held by {holder}"
            yield Check(
                "GPU lease", CheckStatus.WARNING, detail, "python -m orchestrator status  shows it; a run waits for it"
            )
