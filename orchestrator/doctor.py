"""What would stop or spoil a run, found before it starts: where, what, and the command that mends it."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import sys
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from orchestrator import engines, process
from orchestrator.errors import Problem
from orchestrator.plan import Kind

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from orchestrator.known import World
    from orchestrator.load import Loaded
    from orchestrator.plan import Plan
    from orchestrator.recipe import Recipe
    from orchestrator.record import Reason
    from orchestrator.store import Store
    from orchestrator.workspace import Workspace


class State(StrEnum):
    """What a check found."""

    OK = "ok"
    WARN = "warning"
    BAD = "missing"

    @property
    def ok(self) -> bool:
        """Whether a run can start all the same."""
        return self is not State.BAD


@dataclass(frozen=True, slots=True)
class Check:
    """One line of doctor: what was looked at, what was found, and the command that mends it."""

    what: str
    state: State
    found: str
    fix: str = ""


_NEEDS_ENGINE = (Kind.TRAIN, Kind.RENDER)


def preflight(plan: Plan, reasons: Mapping[str, Reason | None], world: World, store: Store) -> list[Problem]:
    """Return everything that this machine lacks for the steps that will run; empty if they can run."""
    due = [step for step in plan.steps if reasons[step.name] is not None]
    problems: list[Problem] = []
    for owner in {step.owner for step in due if step.kind is Kind.DATASET}:
        problems += pictures(next(recipe for recipe in plan.recipes.values() if recipe.dataset.name == owner), world)
    needs_engine = {step.recipe for step in due if step.recipe and step.kind in _NEEDS_ENGINE}
    for name in needs_engine:
        recipe = plan.recipes[name]
        problems += engines.get(recipe.engine).preflight(recipe)
        problems += models(recipe, world)
    trained = [plan.recipes[step.recipe] for step in due if step.kind is Kind.TRAIN]
    problems += disk_space(trained, world, store)
    problems = list(dict.fromkeys(problems))
    if needs_engine and problems and any(plan.recipes[name].engine == "sd-scripts" for name in needs_engine):
        names = " ".join(plan.recipes) if len(plan.recipes) == 1 else "all"
        hint = f"python -m orchestrator run {names} --profile demo" if names != "all" else "make demo"
        problems.append(Problem("without all this", "the same pipeline runs on the embedded engine", hint))
    return problems


def pictures(recipe: Recipe, world: World) -> list[Problem]:
    """Return what is wrong with the originals of a recipe's dataset."""
    from orchestrator import dataset  # noqa: PLC0415 - reads image headers

    return list(dataset.problems(dataset.layout(recipe.dataset, world.root), recipe.dataset, world.root))


def models(recipe: Recipe, world: World) -> list[Problem]:
    """Return what is wrong with the base model and VAE: missing, or another file than the recipe means."""
    problems: list[Problem] = []
    asked = [
        ("base.checkpoint", recipe.base.checkpoint, recipe.base.sha256),
        ("base.vae", recipe.base.vae, recipe.base.vae_sha256),
    ]
    if recipe.network.weights:
        asked.append(("network.weights", recipe.network.weights, ""))
    for key, name, sha256 in asked:
        if not name:
            continue
        path = world.find(name)
        if path is None:
            folders = ", ".join(str(folder) for folder in world.searched()[:6])
            problems.append(
                Problem(f"{key} = {name}", "not found", f"put it into {world.root / 'models'}; searched: {folders}")
            )
        elif sha256 and world.digests.of(path) != sha256:
            problems.append(
                Problem(f"{key} = {name}", f"is another file: SHA-256 {world.digests.of(path)}", f"the recipe wants {sha256}")
            )
    return problems


def disk_space(recipes: list[Recipe], world: World, store: Store) -> list[Problem]:
    """Return a problem if the disk of the store is too small for what the recipes will write."""
    from orchestrator import architecture  # noqa: PLC0415 - only when something will be trained
    from orchestrator.workspace import disk  # noqa: PLC0415

    needed = 0
    for recipe in recipes:
        said = architecture.predict(recipe, architecture.of(recipe, world.find(recipe.base.checkpoint)))
        needed += disk(recipe, said.tensor_bytes) if said is not None and said.tensor_bytes is not None else 0
    folder: Path = store.root
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if needed <= free:
        return []
    what = f"{free / 1e9:.1f} GB free; these recipes write up to {needed / 1e9:.1f} GB"
    return [Problem(str(folder), what, "free some, or set KRNK_RUNS to a folder on a larger disk")]


def checks(space: Workspace, loaded: Sequence[Loaded]) -> list[Check]:
    """Return every check of this machine and of what the recipes need, each once."""
    found = [_python(), *_packages(space.root), _encoding(), _gpu()]
    recipes = [each.recipe for each in loaded]
    problems: list[Problem] = []
    for recipe in recipes:
        problems += engines.get(recipe.engine).preflight(recipe)
        problems += models(recipe, space.world)
        problems += pictures(recipe, space.world)
    problems += disk_space(recipes, space.world, space.store)
    found += [Check(problem.where, State.BAD, problem.what, problem.hint) for problem in dict.fromkeys(problems)]
    for name in dict.fromkeys(recipe.engine for recipe in recipes):
        ready = not any(engines.get(recipe.engine).preflight(recipe) for recipe in recipes if recipe.engine == name)
        if ready:
            found.append(Check(f"engine {name}", State.OK, engines.get(name).version()))
    folder = space.store.root if space.store.root.exists() else space.root
    found.append(Check("disk", State.OK, f"{shutil.disk_usage(folder).free / 1e9:.1f} GB free"))
    return found


def _python() -> Check:
    version = sys.version.split()[0]
    if sys.version_info < (3, 11):  # noqa: UP036 - what pip did not stop, we say
        return Check("python", State.BAD, version, "install Python 3.11 or newer, then make setup")
    return Check("python", State.OK, version)


def _packages(root: Path) -> list[Check]:
    """Compare the installed packages with the lock."""
    lock = root / "constraints.txt"
    if not lock.is_file():
        return []
    differ, missing, count = [], [], 0
    for line in lock.read_text("utf-8").splitlines():
        name, _, wanted = line.partition("==")
        if not wanted or line.startswith("#"):
            continue
        count += 1
        try:
            installed = importlib.metadata.version(name).partition("+")[0]
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
            continue
        if installed != wanted:
            differ.append(f"{name} {installed} (lock: {wanted})")
    state = State.WARN if differ else State.OK
    said = ", ".join(differ) or f"{count - len(missing)} of {count} as locked, {len(missing)} not installed"
    return [Check("packages", state, said, "make setup" if differ else "")]


def _encoding() -> Check:
    encoding = sys.getfilesystemencoding()
    good = encoding.lower().replace("-", "") == "utf8"
    return Check("encoding", State.OK if good else State.WARN, encoding, "" if good else "export PYTHONUTF8=1")


def _gpu() -> Check:
    code, text = process.capture(("nvidia-smi", "--query-gpu=name,memory.free,driver_version", "--format=csv,noheader"))
    if code != 0:
        return Check("gpu", State.WARN, "none seen by nvidia-smi", "the embedded engine trains on the CPU: make demo")
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    return Check("gpu", State.OK, "; ".join(text.splitlines()) + (f" (CUDA_VISIBLE_DEVICES={hidden})" if hidden else ""))


def table(found: Sequence[Check]) -> str:
    """Return the checks as lines: state, what, found, and below it the fix."""
    lines: list[str] = []
    for check in found:
        lines.append(f"{check.state:8} {check.what}: {check.found}")
        if check.fix:
            lines.append(f"         -> {check.fix}")
    bad = sum(not check.state.ok for check in found)
    lines.append(f"{len(found)} checks, {bad} that stop a run")
    return "\n".join(lines) + "\n"
