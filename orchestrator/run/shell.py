"""A plan as commands for a shell, and a folder in which they run."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Final

from orchestrator.dataset import sd_scripts_toml
from orchestrator.engines.sdscripts import arguments
from orchestrator.errors import Problem, RecipeError, counted
from orchestrator.plan.step import StepKind
from orchestrator.run import step_command
from orchestrator.run.store import Store
from orchestrator.system import files

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from orchestrator.plan.inputs import ProjectInputs
    from orchestrator.plan.plan import Plan
    from orchestrator.plan.step import Step
    from orchestrator.system.process import Command

SCRIPT: Final = "commands.sh"


class _Folders(Store):
    """Folders of steps without a run: each works in its final one."""

    def work(self, step: Step) -> Path:
        return self.folder(step)


def text(plan: Plan, store: Store, root: Path, again: str) -> str:
    """Return every command of a plan, quoted for a shell, with its folder.

    Args:
        plan: the plan.
        store: the folders of its steps.
        root: the project folder.
        again: the command that printed them.
    """
    commands = list(_commands(plan, store, root))
    missing = [
        f"{command.cwd / name}" for _, command in commands for name in command.files if not (command.cwd / name).is_file()
    ]
    head = []
    if missing:
        head = [f"# These commands read {counted(len(missing), 'file')} that a run writes, as {missing[0]}."]
        head += [f"# A folder with all of them, in which the commands run:  {again} --write DIR", ""]
    return "\n".join([*head, *_lines(commands)])


def write(plan: Plan, inputs: ProjectInputs, root: Path, folder: Path) -> Path:
    """Write the files that the commands of a plan read, and a script of them.

    Each step works in its own folder below ``folder``. Nothing outside of it is written.

    Returns:
        The script.

    Raises:
        RecipeError: the folder exists and is not empty, or images of a dataset cannot be read.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RecipeError(Problem(str(folder), "exists and is not empty", "choose another folder"))
    if inputs.problems:
        raise RecipeError(inputs.problems)
    store = _Folders(folder.absolute())
    commands: list[tuple[Step, Command]] = []
    for step, command in _commands(plan, store, root):
        commands.append((step, command))
        command.cwd.mkdir(parents=True, exist_ok=True)
        for name, content in command.files.items():
            files.write_text(command.cwd / name, content)
        if step.kind is StepKind.TRAIN:
            built = store.folder(plan.by_name[step.needs[0]])
            recipe = plan.recipes[step.recipe]
            config = sd_scripts_toml.text(inputs.layout(recipe), recipe.dataset)
            files.write_text(command.cwd / arguments.DATASET, sd_scripts_toml.absolute(config, built))
    script = folder / SCRIPT
    files.write_text(script, "\n".join(["#!/bin/sh", "set -e", "", *_lines(commands)]))
    script.chmod(0o755)
    return script


def _commands(plan: Plan, store: Store, root: Path) -> Iterator[tuple[Step, Command]]:
    for step in plan.steps:
        yield step, step_command.command(step, plan, store, root)


def _lines(commands: Sequence[tuple[Step, Command]]) -> Iterator[str]:
    for step, command in commands:
        env = " ".join(f"{key}={shlex.quote(value)}" for key, value in command.env.items())
        yield f"# {step.name}"
        yield f"cd {shlex.quote(str(command.cwd))}"
        yield f"{env} {shlex.join(command.argv)}".strip()
        yield ""
