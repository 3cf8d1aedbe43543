"""The embedded engine: commands of its own trainer and renderer.

Both programs take sd-scripts' arguments and print its progress lines, so most of the contract is shared with that engine.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.dataset import buckets
from orchestrator.engines.embedded.trainer import cli_options
from orchestrator.engines.sdscripts import (
    arguments,
    environment,
    gen_img,
    lora_tools,
    network_args,
    optimizer_args,
    output_parser,
    parser_options,
    parser_source,
    result_checks,
    tensorboard,
    training_states,
    typed_options,
)
from orchestrator.errors import Problem, near_miss
from orchestrator.models.registry import ARCHITECTURES
from orchestrator.recipe import trainer_names
from orchestrator.system import settings
from orchestrator.system.process import Command

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from orchestrator.engines.protocol import RenderItem
    from orchestrator.recipe import Recipe, Training
    from orchestrator.recipe.base import Conflict
    from orchestrator.system.child import Progress

NAME = "embedded"
read = output_parser.read
# Samplers of sd-scripts that trainer/sampling.py does not have.
NO_SAMPLERS = ("lms", "k_lms", "dpmsolver")
OPTIMIZERS = ("AdamW", "Adam", "SGD", "SGDNesterov", "Adafactor")
# piecewise_constant of diffusers takes rules that no option of this trainer sets.
SCHEDULES = ("linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup")
PACKAGES = ("torch", "diffusers", "transformers", "lycoris-lora")
_IMPORTS = {"lycoris-lora": "lycoris"}
# trainer/training_state.py renames a complete state into place. Its position is in train_state.json.
_STATE = ("network.safetensors", "optimizer.pt", "schedule.json", "train_state.json")


@functools.cache
def version() -> str:
    """Return package versions and a digest of the trainer's source files.

    The bucket arithmetic of dataset/buckets.py counts as a source file.
    """
    versions = []
    for package in PACKAGES:
        try:
            versions.append(f"{package} {importlib.metadata.version(package).partition('+')[0]}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"{package} none")
    folder = Path(__file__).with_name("trainer")
    total = hashlib.sha256()
    for file in [*sorted(folder.glob("*.py")), Path(buckets.__file__)]:
        total.update(file.name.encode() + b"\0" + file.read_bytes())
    return ", ".join([*versions, f"programs {total.hexdigest()[:12]}"])


@functools.cache
def _trainer_options() -> dict[str, parser_source.ParserOption]:
    """Return the options of the embedded trainer, from its own parser."""
    actions = cli_options.parser()._actions  # noqa: SLF001 - argparse lists its options nowhere else
    return {name: option for action in actions for name, option in _parser_options(action)}


def _parser_options(action: argparse.Action) -> Iterator[tuple[str, parser_source.ParserOption]]:
    types = {int: "int", float: "float"}
    kind = "switch" if action.nargs == 0 else types.get(action.type, "str")  # type: ignore[call-overload]
    for name in action.option_strings:
        choices = tuple(action.choices) if action.choices is not None else ()
        yield name.lstrip("-"), parser_source.ParserOption(name.lstrip("-"), kind, action.nargs in ("*", "+"), choices)


def _optimizer(training: Training) -> Iterator[Conflict]:
    """Yield an optimizer or schedule that the embedded engine lacks."""
    name, hint = training.optimizer, near_miss(training.optimizer, OPTIMIZERS)
    if name.lower() not in (optimizer.lower() for optimizer in OPTIMIZERS):
        hint = "; AdamW has the same settings" if name.lower() == "adamw8bit" else hint
        yield "training.optimizer", f'is "{name}"; the embedded engine has {", ".join(OPTIMIZERS)}{hint}'
    yield from optimizer_args.problems(training)
    name = training.lr_scheduler
    if not training.relative_step and name not in SCHEDULES:
        yield (
            "training.lr_scheduler",
            f'is "{name}"; the embedded engine has {", ".join(SCHEDULES)}{near_miss(name, SCHEDULES)}',
        )


def _layers(recipe: Recipe) -> Iterator[Conflict]:
    """Yield choices of text encoders and layers, which only sd-scripts has."""
    values: dict[str, Any] = {f"network.{name}": getattr(recipe.network, name) for name in network_args.CHOICES}
    values["training.text_encoders"] = recipe.training.text_encoders is not None
    values["training.text_encoder_lr"] = isinstance(recipe.training.text_encoder_lr, tuple)
    for key, value in values.items():
        if value:
            what = "takes one rate" if key.endswith("_lr") else "does not have it; leave it out"
            yield key, f"the embedded engine {what}"


def check(recipe: Recipe) -> list[Problem]:
    """Return the recipe's problems with this engine.

    Checks options, families and samplers. Starts no process.
    """
    trainer, further = _trainer_options(), recipe.training.options
    elsewhere = dict.fromkeys(parser_options.of("train_network.py").keys() - trainer.keys(), "sd-scripts")
    problems = [
        *parser_options.problems(trainer, further, "training.options", trainer_names.OWNED, "the embedded engine", elsewhere)
    ]
    problems += [*typed_options.problems(recipe, trainer, "the embedded engine"), *_layers(recipe)]
    problems += _optimizer(recipe.training)
    problems += [*network_args.problems(recipe.network), *gen_img.problems(recipe)]
    if recipe.render.options:
        problems.append(("render.options", "the embedded engine draws without further options; leave it out"))
    if recipe.render.sampler in NO_SAMPLERS:
        problems.append(("render.sampler", f"is {recipe.render.sampler}; the embedded engine does not have it"))
    if recipe.network.family == "full":
        lycoris = f"lycoris-lora {network_args.LYCORIS_VERSION}"
        what = f'is "full", which {lycoris} cannot train: it deletes the weights its forward needs'
        problems.append(("network.family", what))
    if not ARCHITECTURES[recipe.base.architecture].embedded:
        trained = ", ".join(name for name, entry in ARCHITECTURES.items() if entry.embedded)
        problems.append(("base.architecture", f"is {recipe.base.architecture}; the embedded engine trains {trained}"))
    if recipe.borrows("sd-scripts"):
        problems += lora_tools.problems(recipe)
    return [Problem(f"{recipe.name}: {where}", what) for where, what in dict.fromkeys(problems)]


def preflight(recipe: Recipe) -> list[Problem]:
    """Return the packages and tools that this machine lacks for a recipe."""
    missing = [package for package in PACKAGES if importlib.util.find_spec(_IMPORTS.get(package, package)) is None]
    problems: list[Problem] = []
    if missing:
        hint = "make demo  installs it  (or: pip install -e '.[embedded]')"
        problems.append(Problem("the embedded engine", f"needs {', '.join(missing)}", hint))
    if recipe.training.wandb and importlib.util.find_spec("wandb") is None:
        problems.append(
            Problem(f"{recipe.name}: training.wandb", "needs the package wandb", f"{sys.executable} -m pip install wandb")
        )
    if recipe.borrows("sd-scripts"):
        reason = f"{recipe.name} uses its merge or resize (merge.tool, resize.tool); the orchestrator's own does both"
        problems += environment.missing(reason)
    return problems


def train(recipe: Recipe, inputs: Mapping[str, Path], work: Path, state: Path | None) -> Command:
    """Return the training command (see ``engines.Engine``)."""
    trainer = arguments.train(recipe, inputs, work, state)
    expected: dict[str, Any] = dict(result_checks.expected(recipe, inputs["checkpoint"], inputs["dataset"]))
    expected["checkpoint"] = str(inputs["checkpoint"].absolute())
    files = trainer.files | {result_checks.EXPECTED: json.dumps(expected, indent=1)}
    return _command("train_network", list(trainer.argv), work, files)


def render(recipe: Recipe, inputs: Mapping[str, Path], work: Path) -> Command:
    """Return the command that renders the prompts.

    This renderer reads every LoRA family itself.
    """
    argv = gen_img.arguments(recipe, inputs["checkpoint"], inputs.get("vae"), [inputs["lora"]], work)
    return _command("gen_img", argv, work, {gen_img.PROMPTS: gen_img.lines(recipe, names=True)})


def together(items: Sequence[RenderItem]) -> list[list[int]]:
    """Return the positions of items that share settings.

    This renderer changes the weights between items of any LoRA family.
    """
    groups: dict[object, list[int]] = {}
    for number, item in enumerate(items):
        groups.setdefault(gen_img.settings(item.recipe), []).append(number)
    return list(groups.values())


def render_together(items: Sequence[RenderItem], inputs: Mapping[str, Path], work: Path) -> Command:
    """Return the command that renders several items (see ``engines.Engine``)."""
    argv = gen_img.arguments(items[0].recipe, inputs["checkpoint"], inputs.get("vae"), gen_img.loras(items), work)
    return _command("gen_img", argv, work, {gen_img.PROMPTS: gen_img.lines_together(items)})


def _command(program: str, argv: list[str], work: Path, files: dict[str, str]) -> Command:
    command_line = (sys.executable, "-m", f"orchestrator.engines.embedded.trainer.{program}", *argv)
    root = str(settings.ROOT)
    env = {"PYTHONPATH": root, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    return Command(command_line, work.absolute(), env, files)


def reader(recipe: Recipe, work: Path) -> Callable[[str], Progress | None]:  # noqa: ARG001 - the Protocol's
    """Return a reader of the output of a training in ``work``."""
    return output_parser.OutputParser(lambda: result_checks.read_expected(work))


def checkpoint(work: Path) -> tuple[Path, int] | None:
    """Return the newest complete state with steps left to train.

    Its step is the second value.
    """
    steps = result_checks.read_expected(work).get("steps")
    below = steps if isinstance(steps, int) else sys.maxsize
    states = [
        (step, folder)
        for folder in work.glob("*-state")
        if all((folder / name).is_file() for name in _STATE) and (step := training_states.step_of(folder)) is not None
    ]
    step, folder = max((state for state in states if state[0] < below), default=(0, None))
    return (folder, step) if folder is not None else None


def finished(recipe: Recipe, work: Path, log: str) -> list[Problem]:
    """Return the problems of a training that exited 0."""
    checkpoint = result_checks.read_expected(work).get("checkpoint")
    return result_checks.finished(recipe, work, log, Path(checkpoint) if isinstance(checkpoint, str) else None)


def lost_steps(work: Path, when: float) -> int:  # noqa: ARG001 - the Protocol's
    """Return 0: this trainer counts on after a resume."""
    return 0


def history(work: Path) -> list[dict[str, Any]]:
    """Return loss and learning rates by step from the TensorBoard events."""
    return tensorboard.history(work / arguments.LOGS)
