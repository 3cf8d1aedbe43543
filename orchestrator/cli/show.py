"""Recipes, plans and unfinished work as text."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from orchestrator.models import blocks
from orchestrator.run import preflight, step_command
from orchestrator.run.workspace import as_json
from orchestrator.system.terminal import clean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.plan.planner import Plan
    from orchestrator.run.record import Reason
    from orchestrator.run.workspace import Workspace


def plan(made: Plan, reasons: dict[str, Reason | None], space: Workspace) -> str:
    """Return a plan as a person reads it."""
    said = as_json(made, reasons, space.inputs)
    lines: list[str] = []
    for entry in said["recipes"]:
        recipe, predicted = made.recipes[entry["name"]], entry["predicted"]
        lines.append(f"{recipe.name}  ({recipe.engine})")
        lines += [f"  {step['kind']:8} {step['key'][:12]}  {step['reason'] or 'cached'}" for step in entry["steps"]]
        lines.append(f"  {_predicted(predicted)}")
        listed = recipe.expect.tensor_bytes
        if listed is not None and listed != predicted["tensor_bytes"]:
            lines.append(f"  expected {listed:,} bytes: this plan does not write the file that the recipe expects")
        if recipe.block_weights is not None:
            weights = blocks.parse(recipe.block_weights, recipe.base.architecture)
            name = blocks.preset_name(weights, recipe.base.architecture)
            lines.append(f"  block weights {name or ','.join(f'{weight:g}' for weight in weights)}")
        lines.append("")
    for step in said["shared"]:
        lines.append(f"{step['name']:30} {step['key'][:12]}  {step['reason'] or 'cached'}")
    due = sum(reason is not None for reason in reasons.values())
    lines.append(f"{len(made.steps)} steps, {due} to run, {len(made.steps) - due} cached")
    return clean("\n".join(lines) + "\n")


def lacking(made: Plan, reasons: dict[str, Reason | None], space: Workspace, names: Sequence[str]) -> str:
    """Return the number of preflight problems as a line, or "" without any."""
    problems = preflight.preflight(made, reasons, space.inputs, space.store)
    count = sum(problem.where != preflight.WITHOUT for problem in problems)
    if not count:
        return ""
    head = f"not ready here: {count} problem{'s' if count > 1 else ''} to solve first"
    return f"{head};  python -m orchestrator doctor {' '.join(names)}  lists them"


def _predicted(predicted: dict[str, Any]) -> str:
    size = predicted["tensor_bytes"]
    parts = [f"{size:,} tensor bytes ({size / 2**20:.2f} MiB) in {predicted['modules']} modules"] if size else []
    epochs = predicted["epochs"] if predicted["epochs"] is not None else "?"
    parts.append(f"{predicted['images']} images, {predicted['train_steps']} steps, {epochs} epochs")
    if predicted["disk_bytes"]:
        parts.append(f"disk {predicted['disk_bytes'] / 1e9:.2f} GB")
    return "; ".join(parts)


def shell(made: Plan, space: Workspace) -> str:
    """Return every command of a plan, quoted for a shell, with its folder and the files it reads."""
    lines: list[str] = []
    for step in made.steps:
        command = step_command.command(step, made, space.store, space.root)
        lines.append(f"# {step.name}")
        lines.append(f"cd {shlex.quote(str(command.cwd))}")
        env = " ".join(f"{key}={shlex.quote(value)}" for key, value in command.env.items())
        lines.append(f"{env} {shlex.join(command.argv)}".strip())
        lines.append("")
    return "\n".join(lines)
