"""Recipes, plans and unfinished work as text."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any

from orchestrator import blocks, commands, owner, process, supervise, view
from orchestrator.record import PARTIAL, PROGRESS
from orchestrator.workspace import as_json

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.load import Loaded
    from orchestrator.plan import Plan
    from orchestrator.record import Reason
    from orchestrator.store import Store
    from orchestrator.workspace import Workspace


def toml(loaded: Loaded, *, origin: bool = False) -> str:
    """Return the merged recipe as TOML; with ``origin``, the file that set each value as a comment."""
    lines: list[str] = []
    _table(loaded.merged, (), loaded.origin if origin else None, lines)
    return "\n".join(lines) + "\n"


def _table(table: dict[str, Any], trail: tuple[str, ...], origin: dict[str, str] | None, lines: list[str]) -> None:
    if trail:
        lines += ["", f"[{'.'.join(_key(part) for part in trail)}]"]
    for key, value in table.items():
        if not isinstance(value, dict):
            said = f"   # {origin.get('.'.join((*trail, key)), '')}" if origin is not None else ""
            lines.append(f"{_key(key)} = {_value(value)}{said}")
    for key, value in table.items():
        if isinstance(value, dict):
            _table(value, (*trail, key), origin, lines)


def _key(key: str) -> str:
    bare = key.replace("-", "").replace("_", "").isalnum() and key.isascii()
    return key if bare else json.dumps(key, ensure_ascii=False)


def _value(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(_value(item) for item in value)}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(key)} = {_value(item)}" for key, item in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (str, bool)) else repr(value)


def plan(made: Plan, reasons: dict[str, Reason | None], space: Workspace) -> str:
    """Return a plan as a person reads it."""
    said = as_json(made, reasons, space.world)
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
    return view.clean("\n".join(lines) + "\n")


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
        command = commands.command(step, made, space.store, space.root)
        lines.append(f"# {step.name}")
        lines.append(f"cd {shlex.quote(str(command.cwd))}")
        env = " ".join(f"{key}={shlex.quote(value)}" for key, value in command.env.items())
        lines.append(f"{env} {shlex.join(command.argv)}".strip())
        lines.append("")
    return "\n".join(lines)


def unfinished(store: Store) -> list[dict[str, Any]]:
    """Return what lies unfinished in the store: step, whether it runs, since when, how far."""
    found: list[dict[str, Any]] = []
    for work in sorted(store.root.glob(f"*/{PARTIAL}/*")):
        if ".old-" in work.name or not work.is_dir():
            continue
        child, progress = work / supervise.CHILD, _last(work / PROGRESS)
        since = child.stat().st_mtime if child.exists() else work.stat().st_mtime
        entry: dict[str, Any] = {
            "step": f"{work.parent.parent.name}/{work.name.rpartition('-')[0]}",
            "key": work.name.rpartition("-")[2],
        }
        entry |= {"running": process.alive(work), "since": since, "log": str(work / process.LOG)}
        found.append(entry | {key: progress.get(key) for key in ("done", "total", "loss")})
    return found


def unfinished_line(item: dict[str, Any]) -> str:
    """Return one entry of ``unfinished`` as a line."""
    state = "running   " if item["running"] else "unfinished"
    far = f"{item['done']}/{item['total']}" if item["total"] else "no progress yet"
    loss = f"  loss {item['loss']:.4f}" if item["loss"] is not None else ""
    since = owner.clock(item["since"])
    return view.clean(f"{state}  {item['step']}  since {since}  {far}{loss}  {item['log']}")


def _last(path: Path) -> dict[str, Any]:
    """Return the last whole line of a progress file; a torn one is passed over."""
    try:
        lines = path.read_text("utf-8", "replace").splitlines()
    except OSError:
        return {}
    for line in reversed(lines[-3:]):
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            return value
    return {}
