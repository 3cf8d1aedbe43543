"""The CPU engine: this project's own trainer and renderer, which take sd-scripts' arguments and print what it prints."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.engines.sdscripts import (
    arguments,
    gen_img,
    network_args,
    parser_options,
    result_checks,
    tensorboard,
    training_states,
)
from orchestrator.engines.sdscripts.output_parser import Reader, read
from orchestrator.errors import Problem
from orchestrator.system import settings
from orchestrator.system.process import Command

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Mapping

    from orchestrator.recipe import Recipe
    from orchestrator.system.process import Progress

__all__ = ["NAME", "check", "checkpoint", "finished", "history", "preflight", "read", "reader", "render", "train", "version"]

NAME = "embedded"
# What sd-scripts samples with and orchestrator/engines/embedded/trainer/sampling.py does not.
NO_SAMPLERS = ("lms", "k_lms", "dpmsolver")
PACKAGES = ("torch", "diffusers", "transformers", "lycoris-lora")
_IMPORTS = {"lycoris-lora": "lycoris"}
# trainer/training_state.py: a state appears by rename when it is whole; its position is in train_state.json.
_STATE = ("network.safetensors", "optimizer.pt", "schedule.json", "train_state.json")


@functools.cache
def version() -> str:
    """Return the versions of the packages that train, and a digest of our own programs."""
    import hashlib  # noqa: PLC0415

    found = []
    for package in PACKAGES:
        try:
            found.append(f"{package} {importlib.metadata.version(package).partition('+')[0]}")
        except importlib.metadata.PackageNotFoundError:
            found.append(f"{package} none")
    folder = Path(__file__).with_name("trainer")
    total = hashlib.sha256()
    for file in sorted(folder.glob("*.py")):
        total.update(file.name.encode() + b"\0" + file.read_bytes())
    return ", ".join([*found, f"programs {total.hexdigest()[:12]}"])


@functools.cache
def _known() -> dict[str, parser_options.Opt]:
    """Return the options of the embedded trainer, from its own parser (which imports no torch)."""
    from orchestrator.engines.embedded.trainer import cli_options as own  # noqa: PLC0415

    return {name: opt for action in own.parser()._actions for name, opt in _opts(action)}  # noqa: SLF001 - argparse shows its options nowhere else


def _opts(action: argparse.Action) -> Iterator[tuple[str, parser_options.Opt]]:
    words = {int: "int", float: "float"}
    kind = "switch" if action.nargs == 0 else words.get(action.type, "str")  # type: ignore[call-overload]
    for name in action.option_strings:
        choices = tuple(action.choices) if action.choices is not None else ()
        yield name.lstrip("-"), parser_options.Opt(name.lstrip("-"), kind, action.nargs in ("*", "+"), choices)


def check(recipe: Recipe) -> list[Problem]:
    """Return the recipe's problems that only this engine knows. Starts nothing."""
    found = [*parser_options.problems(_known(), recipe.training.options, "training.options", arguments.OWNED)]
    found += [*network_args.problems(recipe.network), *gen_img.problems(recipe)]
    if recipe.render.sampler in NO_SAMPLERS:
        found.append(("render.sampler", f"is {recipe.render.sampler}; the embedded engine does not have it"))
    if recipe.network.family == "full":
        lycoris = f"lycoris-lora {network_args.LYCORIS_VERSION}"
        what = f'is "full", which {lycoris} cannot train: it deletes the weights its forward needs'
        found.append(("network.family", what))
    if recipe.base.architecture != "sd1":
        found.append(("base.architecture", f"is {recipe.base.architecture}; the embedded engine trains sd1"))
    if recipe.borrows("sd-scripts"):
        from orchestrator.engines.sdscripts import lora_tools  # noqa: PLC0415 - only for recipes that ask for the other engine's tools

        found += lora_tools.problems(recipe)
    return [Problem(f"{recipe.name}: {where}", what) for where, what in dict.fromkeys(found)]


def preflight(recipe: Recipe) -> list[Problem]:
    """Return what this machine lacks: the packages of the extra `embedded`, and sd-scripts where its tools are asked for."""
    missing = [one for one in PACKAGES if importlib.util.find_spec(_IMPORTS.get(one, one)) is None]
    found: list[Problem] = []
    if missing:
        hint = "make setup  (or: pip install -e '.[embedded]')"
        found.append(Problem("the embedded engine", f"needs {', '.join(missing)}", hint))
    if recipe.training.wandb and importlib.util.find_spec("wandb") is None:
        found.append(
            Problem(f"{recipe.name}: training.wandb", "needs the package wandb", f"{sys.executable} -m pip install wandb")
        )
    if recipe.borrows("sd-scripts"):
        from orchestrator.engines.sdscripts import engine  # noqa: PLC0415 - as above

        found += engine.missing(f"{recipe.name} asks for its merge or resize (merge.tool, resize.tool); ours does both")
    return found


def train(recipe: Recipe, inputs: Mapping[str, Path], work: Path, state: Path | None) -> Command:
    """Return the training command (see ``engines.Engine``)."""
    said = arguments.train(recipe, inputs, work, state)
    expected: dict[str, Any] = dict(result_checks.expected(recipe, inputs["checkpoint"], inputs["dataset"]))
    expected["checkpoint"] = str(inputs["checkpoint"].absolute())
    files = said.files | {result_checks.EXPECTED: json.dumps(expected, indent=1)}
    return _command("train_network", list(said.argv), work, files)


def render(recipe: Recipe, inputs: Mapping[str, Path], work: Path) -> Command:
    """Return the command that draws the prompts; this renderer reads every family itself."""
    argv = gen_img.arguments(recipe, inputs["checkpoint"], inputs.get("vae"), inputs["lora"], work)
    return _command("gen_img", argv, work, {gen_img.PROMPTS: gen_img.lines(recipe, names=True)})


def _command(program: str, argv: list[str], work: Path, files: dict[str, str]) -> Command:
    whole = (sys.executable, "-m", f"orchestrator.engines.embedded.trainer.{program}", *argv)
    root = str(settings.ROOT)
    env = {"PYTHONPATH": root, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    return Command(whole, work.absolute(), env, files)


def reader(recipe: Recipe, work: Path) -> Callable[[str], Progress | None]:  # noqa: ARG001 - the Protocol's
    """Return what reads the output of a training in ``work``."""
    return Reader(lambda: result_checks.read_expected(work))


def checkpoint(work: Path) -> tuple[Path, int] | None:
    """Return the newest state in ``work`` from which something is left to train, and its step."""
    steps = result_checks.read_expected(work).get("steps")
    below = steps if isinstance(steps, int) else sys.maxsize
    found = [
        (step, folder)
        for folder in work.glob("*-state")
        if all((folder / name).is_file() for name in _STATE) and (step := training_states.step_of(folder)) is not None
    ]
    step, folder = max((one for one in found if one[0] < below), default=(0, None))
    return (folder, step) if folder is not None else None


def finished(recipe: Recipe, work: Path, log: str) -> list[Problem]:
    """Return why a training that exited 0 is no success."""
    said = result_checks.read_expected(work).get("checkpoint")
    return result_checks.finished(recipe, work, log, Path(said) if isinstance(said, str) else None)


def history(work: Path) -> list[dict[str, Any]]:
    """Return loss and learning rates by step from the TensorBoard events in ``work``."""
    return tensorboard.history(work / arguments.LOGS)
