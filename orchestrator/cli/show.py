"""Recipes and plans as text, for the verbs show and plan."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.errors import WITHOUT, counted, warning
from orchestrator.recipe import toml
from orchestrator.run import benchmark, export_sd_scripts, preflight, shell
from orchestrator.run.workspace import override_lines, select
from orchestrator.system.terminal import clean, duration, say
from orchestrator.weights import loaders

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.plan.plan import Plan
    from orchestrator.recipe import Recipe
    from orchestrator.recipe.loader import Loaded
    from orchestrator.run.record import Reason
    from orchestrator.run.workspace import Selection, Workspace


def merged(loaded: Loaded, *, origin: bool = False) -> str:
    """Return a merged recipe as TOML.

    With ``origin``, the file of each value is a comment.
    """
    return "\n".join(toml.lines(loaded.merged, loaded.origin if origin else None))


def export(recipe: Recipe, space: Workspace, output: Path | None) -> None:
    """Write the input files of sd-scripts into a folder, or print them."""
    files = export_sd_scripts.sd_scripts(recipe, space.inputs, output or Path("sd-scripts"))
    if output is None:
        for name, text in files.items():
            print(f"# ==== {name}\n{text}")
    else:
        for path in export_sd_scripts.write(files, output):
            say(path)


def select_reasons(plan: Plan, space: Workspace, force: Sequence[str], *, verify: bool) -> dict[str, Reason | None]:
    """Return the reason of every step. Steps of ``--force`` run again."""
    return space.reasons(plan, select(plan, force, "--force"), verify=verify)


def plan_json(plan: Plan, reasons: dict[str, Reason | None], space: Workspace, loaded: Sequence[Loaded]) -> dict[str, Any]:
    """Return a plan, its duration and its profile's overrides as JSON."""
    table = space.as_json(plan, reasons) | {"left": asdict(benchmark.estimate(plan, reasons, space))}
    table["warnings"] = [asdict(caution) for caution in space.cautions(loaded)]
    overridden = {each.recipe.name: [asdict(override) for override in each.overrides] for each in loaded}
    for entry in table["recipes"]:
        if overridden.get(entry["name"]):
            entry["overrides"] = overridden[entry["name"]]
    return table


def print_commands(plan: Plan, space: Workspace, again: str, folder: Path | None) -> None:
    """Print the commands of a plan for a shell, or write them as a folder.

    Args:
        plan: its steps.
        space: its workspace.
        again: the command line that prints the same commands.
        folder: the folder to write. None: the commands are printed.
    """
    if folder is not None:
        say(shell.write(plan, space.inputs, space.root, folder))
    else:
        print(shell.text(plan, space.store, space.root, again), end="")


def print_overrides(loaded: Sequence[Loaded], selection: Selection) -> None:
    """Print the values that the profile overrides, those of parts as a number."""
    for line in override_lines(loaded, selection.profile):
        say(line)
    if parts := sum(override.of_part for each in loaded for override in each.overrides):
        name = loaded[0].recipe.name
        what = f"the profile {selection.profile} overrides {counted(parts, 'value')} of parts"
        say(f"{what};  python -m orchestrator show {name} --profile {selection.profile} --origin  lists them")


def print_warnings(space: Workspace, loaded: Sequence[Loaded]) -> None:
    """Print the values of recipes that train, but seldom well."""
    for caution in space.cautions(loaded):
        say(warning(caution), file=sys.stderr)


def print_plan(plan: Plan, reasons: dict[str, Reason | None], space: Workspace, selection: Selection) -> None:
    """Print a plan, its duration, and the number of preflight problems."""
    for note in space.notes:
        say(note, file=sys.stderr)
    say(plan_text(plan, reasons, space), end="")
    if left := benchmark.estimate(plan, reasons, space).summary(selection.profile, selection.engine):
        say(left)
    problems = preflight.problems(plan, reasons, space.inputs, space.store)
    for problem in problems:
        if problem.where.startswith("dataset."):  # of the recipe, and not of this machine
            say(f"{problem.where}\n    {problem.what}" + (f"\n    {problem.hint}" if problem.hint else ""), file=sys.stderr)
    if count := sum(problem.where != WITHOUT for problem in problems):
        head = f"not ready here: {counted(count, 'problem')} to solve first"
        say(f"{head};  python -m orchestrator doctor {' '.join(selection.names)}  lists them", file=sys.stderr)


def plan_text(plan: Plan, reasons: dict[str, Reason | None], space: Workspace) -> str:
    """Return a plan as text."""
    table = space.as_json(plan, reasons)
    lines: list[str] = []
    for entry in table["recipes"]:
        recipe, predicted = plan.recipes[entry["name"]], entry["predicted"]
        lines.append(f"{recipe.name}  ({recipe.engine})")
        lines += [f"  {step['kind']:8} {step['key'][:12]}  {step['reason'] or 'cached'}" for step in entry["steps"]]
        lines.append(f"  {_predicted(predicted)}")
        lines += _selected(recipe, predicted, space)
        if recipe.block_weights is not None:
            lines.append(f"  block weights {recipe.weights().text()}")
        if unread := loaders.fewer(recipe.network, recipe.base.architecture):
            lines.append(f"  {', '.join(loaders.of_network(recipe.network))}: not opened by {', '.join(unread)}")
        lines.append("")
    for step in table["shared"]:
        lines.append(f"{step['name']:30} {step['key'][:12]}  {step['reason'] or 'cached'}")
    cached = sum(reason is None for reason in reasons.values())
    linked = sum(reason is not None and reason.links for reason in reasons.values())
    due = f"{len(plan.steps) - cached - linked} to run" + (f", {linked} to link" if linked else "")
    lines.append(f"{counted(len(plan.steps), 'step')}, {due}, {cached} cached")
    return clean("\n".join(lines) + "\n")


def _selected(recipe: Recipe, predicted: dict[str, Any], space: Workspace) -> list[str]:
    """Return lines about the drawn saved steps and the released one."""
    lines = []
    if count := predicted["saved_steps"]:
        seconds = benchmark.seconds_per_image(recipe, space)
        time = (
            f"about {duration(seconds * predicted['saved_images'])}"
            if seconds is not None
            else "time unknown before the first"
        )
        lines.append(f"  grid of {counted(count, 'saved step')}: {counted(predicted['saved_images'], 'image')}, {time}")
    if recipe.select.step is not None:
        reason = f": {recipe.select.reason}" if recipe.select.reason else ""
        lines.append(f"  releases step {recipe.select.step} of {recipe.training.steps}{reason}")
    return lines


def _predicted(predicted: dict[str, Any]) -> str:
    size = predicted["tensor_bytes"]
    parts = [f"{size:,} tensor bytes ({size / 2**20:.2f} MiB) in {counted(predicted['modules'], 'module')}"] if size else []
    epochs = counted(predicted["epochs"], "epoch") if predicted["epochs"] is not None else "? epochs"
    parts.append(f"{counted(predicted['images'], 'image')}, {counted(predicted['train_steps'], 'step')}, {epochs}")
    if predicted["disk_bytes"]:
        parts.append(f"disk {predicted['disk_bytes'] / 1e9:.2f} GB")
    return "; ".join(parts)
