"""The engine kohya-ss/sd-scripts, unmodified, in its own environment."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.engines.sdscripts import (
    arguments,
    checkout,
    constraints,
    environment,
    launch,
    lora_tools,
    network_args,
    output_parser,
    parser_options,
    render_command,
    result_checks,
    tensorboard,
    training_states,
    typed_options,
)
from orchestrator.errors import Problem
from orchestrator.models.registry import ARCHITECTURES
from orchestrator.recipe import trainer_names
from orchestrator.system import settings
from orchestrator.weights.io import pickle_scan, shards

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from orchestrator.engines.protocol import RenderItem
    from orchestrator.recipe import Recipe
    from orchestrator.system.child import Progress
    from orchestrator.system.process import Command

NAME = launch.NAME
read = output_parser.read
_GPUS = ("/dev/nvidia0", "/dev/kfd", "/dev/dxg", "/dev/nvhost-gpu")


def version() -> str:
    """Return the commit of the checkout (see ``checkout.version``)."""
    return checkout.version(settings.sd_scripts())


def script(recipe: Recipe) -> str:
    """Return the training script of the recipe's architecture."""
    return ARCHITECTURES[recipe.base.architecture].trainer_script


def check(recipe: Recipe) -> list[Problem]:
    """Return the recipe's problems with this engine. Starts nothing but git."""
    if not parser_options.has(script(recipe)):
        what = f"is {recipe.base.architecture}; this sd-scripts has no {script(recipe)}"
        return [Problem(f"{recipe.name}: base.architecture", what, "update the checkout, or take another base model")]
    options, program = parser_options.of(script(recipe)), f"sd-scripts' {script(recipe)}"
    elsewhere = {
        name: f"sd-scripts' {other}"
        for other in reversed(parser_options.TRAINERS)  # the first one names it
        if parser_options.has(other)
        for name in parser_options.of(other).keys() - options.keys()
    }
    rows = [
        *parser_options.problems(options, recipe.training.options, "training.options", trainer_names.OWNED, program, elsewhere)
    ]
    rows += [
        *typed_options.problems(recipe, options, program),
        *network_args.problems(recipe.network, ARCHITECTURES[recipe.base.architecture]),
        *render_command.problems(recipe),
        *constraints.problems(recipe),
    ]
    if recipe.borrows(NAME):
        rows += lora_tools.problems(recipe)
    if recipe.base.is_small:
        what = "the embedded base is of a size that sd-scripts cannot build; name an SD1.5 or SDXL model"
        rows.append(("base.checkpoint", what))
    drawn = render_command.delivery(recipe) if recipe.render.prompts else render_command.LoraDelivery.DIRECT
    if drawn is render_command.LoraDelivery.BAKE:
        count = len(shards.of(Path(recipe.base.checkpoint)))
        kind = "a pickle" if recipe.base.checkpoint.lower().endswith(pickle_scan.ENDINGS) else ""
        if kind := kind or (f"one of {count} shards" if count > 1 else ""):
            into = f"the images of a {recipe.network.family} are drawn with the LoRA baked into one .safetensors"
            rows.append(("base.checkpoint", f'is {kind}; {into}: name one, or unset = ["render.prompts"]'))
    return [Problem(f"{recipe.name}: {key}", what) for key, what in dict.fromkeys(rows)]


def preflight(recipe: Recipe) -> list[Problem]:
    """Return the machine's lacks for the recipe. Starts nothing but git."""
    problems = environment.missing("the embedded engine works without it: --profile demo")
    python = settings.sd_scripts_python()
    problems += environment.tokenizer_problems(recipe)
    packages = environment.site_packages(python) if python.is_file() else None
    if packages is not None:
        problems += environment.package_problems(recipe, packages)
    if not any(Path(device).exists() for device in _GPUS):
        training = recipe.training
        for key, value, needs_gpu in (
            ("training.mixed_precision", training.mixed_precision, training.mixed_precision == "fp16"),
            ("training.optimizer", training.optimizer, training.optimizer.lower().endswith("8bit")),
        ):
            if needs_gpu:
                what = f'{key} = "{value}" needs a GPU, and there is none here'
                hint = "--profile cpu  trains on the CPU (slowly); --profile demo in minutes"
                problems.append(Problem(f"{recipe.name}: {key}", what, hint))
    return problems


def train(recipe: Recipe, inputs: Mapping[str, Path], work: Path, state: Path | None) -> Command:
    """Return the training command: one process, no `accelerate launch`."""
    newest = checkpoint(work) if state is not None else None
    initial = newest[1] if newest is not None and newest[0] == state else None
    training = arguments.train(recipe, inputs, work, state, initial)
    expected = json.dumps(result_checks.expected(recipe, None, inputs["dataset"]), indent=1)
    argv = [*training.argv, *launch.tokenizer_options()]
    return launch.command(script(recipe), argv, work, training.files | {result_checks.EXPECTED: expected})


def render(recipe: Recipe, inputs: Mapping[str, Path], work: Path) -> Command:
    """Return the command that draws the prompts (see ``render_command``)."""
    return render_command.command(recipe, inputs, work)


def together(items: Sequence[RenderItem]) -> list[list[int]]:
    """Return the items that one process draws (see ``render_command``)."""
    return render_command.together(items)


def render_together(items: Sequence[RenderItem], inputs: Mapping[str, Path], work: Path) -> Command:
    """Return the command that draws several items (see ``render_command``)."""
    return render_command.command_together(items, inputs, work)


def reader(recipe: Recipe, work: Path) -> Callable[[str], Progress | None]:  # noqa: ARG001 - the Protocol's
    """Return the output parser of the training in ``work``."""
    return output_parser.OutputParser(lambda: result_checks.read_expected(work))


def checkpoint(work: Path) -> tuple[Path, int] | None:
    """Return the newest state in ``work`` to resume from, and its step."""
    return training_states.newest(work, result_checks.read_expected(work).get("steps"))


def finished(recipe: Recipe, work: Path, log: str) -> list[Problem]:
    """Return the reasons why a training that exited 0 failed."""
    return result_checks.finished(recipe, work, log, None)


def lost_steps(work: Path, when: float) -> int:
    """Return the steps that the counter had lost by a resume in a later epoch."""
    return training_states.shift_at(training_states.shifts(work), when)


def history(work: Path) -> list[dict[str, Any]]:
    """Return loss and learning rates by step from TensorBoard's events."""
    attempts, expected = training_states.shifts(work), result_checks.read_expected(work)
    batches, accumulation = expected.get("batches per epoch"), expected.get("gradient accumulation")
    first_epoch = -(-batches // accumulation) if isinstance(batches, int) and isinstance(accumulation, int) else 0
    return tensorboard.history(work / arguments.LOGS, lambda when: training_states.shift_at(attempts, when), first_epoch)
