"""Show the commands of finished steps as a shell takes them.

A training has the trainer's own command, a merge or resize the verb that does the same.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from orchestrator.models import block_weights
from orchestrator.recipe.outputs import RANK_KEYS
from orchestrator.release.facts import weights_of

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.report.collect import Member, StepView

_PROGRAM = ("python", "-m", "orchestrator")


def commands(root: Path, member: Member) -> list[dict[str, str]]:
    """Return name and text of each finished step's command.

    Paths are relative to the project's folder.
    """
    shown: list[dict[str, str]] = []
    weights = ""  # the newest LoRA file on the way
    for step in member.steps.values():
        if not step.record:
            continue
        argv = _surgery(step, weights) if step.kind in ("merge", "resize") and weights else []
        text = shlex.join(argv or [str(part) for part in step.record.get("argv", [])]).replace("/.partial/", "/")
        for folder in dict.fromkeys((str(root.resolve().parent), str(root.parent))):
            if len(folder) > 1:
                text = text.replace(f"{folder}/", "")
        shown.append({"name": step.name, "text": text})
        name = weights_of(step.record)[0]
        weights = str(step.folder / name) if step.folder is not None and name and step.kind != "release" else weights
    return shown


def _surgery(step: StepView, source: str) -> list[str]:
    """Return the verb that repeats a merge or resize step.

    Empty for a program of sd-scripts: its own command is complete.
    """
    params: dict[str, Any] = step.record.get("params") or {}
    name = weights_of(step.record)[0]
    if params.get("tool") != "orchestrator" or not name:
        return []
    argv = [*_PROGRAM, step.kind, source, name]
    if step.kind == "merge":
        weights = block_weights.parse(params["block_weights"], params["architecture"])
        argv += ["--block-weights", weights.text()]
        argv += ["--prune"] if params["zeroed"] == "prune" else []
        argv += ["--unmapped", f"{params['unmapped']:g}"] if params["unmapped"] != 1 else []
        return argv + (["--compat", params["compat"]] if params["compat"] else [])
    for option in (*RANK_KEYS, "new_rank", "new_conv_rank", "rank_rule", "save_precision"):
        value = params.get(option)
        if value is not None:
            argv += [f"--{option.replace('_', '-')}", f"{value:g}" if isinstance(value, float) else str(value)]
    return argv
