"""The engine that this program is for: kohya-ss/sd-scripts, run as it is, in an environment of its own."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.engines.sdscripts import (
    arguments,
    checkout,
    constraints,
    gen_img,
    network_args,
    parser_options,
    result_checks,
    tensorboard,
    training_states,
    write_tokenizer,
)
from orchestrator.engines.sdscripts.output_parser import Reader, read
from orchestrator.errors import Problem
from orchestrator.system import settings
from orchestrator.system.process import Command

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

    from orchestrator.recipe import Recipe
    from orchestrator.system.process import Progress

__all__ = ["NAME", "check", "checkpoint", "finished", "history", "preflight", "read", "reader", "render", "train", "version"]

NAME = "sd-scripts"
_SETUP = "make setup  fetches it; or set SD_SCRIPTS_DIR, or dir under [sd-scripts] in "
# Optimizers that live in packages of their own, in the order in which train_util.py get_optimizer asks.
_PACKAGES = (
    (re.compile(r"lion$"), "lion_pytorch"),
    (re.compile(r".*8bit$|pagedadamw(32bit)?$"), "bitsandbytes"),
    (re.compile(r"dadapt"), "dadaptation"),
    (re.compile(r"prodigy$"), "prodigyopt"),
    (re.compile(r".*schedulefree$"), "schedulefree"),
)
_GPUS = ("/dev/nvidia0", "/dev/kfd", "/dev/dxg", "/dev/nvhost-gpu")


def version() -> str:
    """Return the commit of the checkout, with "modified" when its tree is dirty; without a checkout the pinned commit."""
    return checkout.version(settings.sd_scripts())


def script(recipe: Recipe) -> str:
    """Return the training script that serves the recipe's architecture."""
    return "sdxl_train_network.py" if recipe.base.architecture == "sdxl" else "train_network.py"


def check(recipe: Recipe) -> list[Problem]:
    """Return the recipe's problems that only this engine knows. Starts nothing."""
    known = parser_options.of(script(recipe))
    found = [*parser_options.problems(known, recipe.training.options, "training.options", arguments.OWNED)]
    found += [*network_args.problems(recipe.network), *gen_img.problems(recipe), *constraints.problems(recipe)]
    if recipe.borrows(NAME):
        from orchestrator.engines.sdscripts import lora_tools  # noqa: PLC0415 - it makes its commands with this module

        found += lora_tools.problems(recipe)
    if recipe.base.checkpoint == "embedded":
        found.append(
            ("base.checkpoint", "the embedded base is of a size that sd-scripts cannot build; name an SD1.5 or SDXL model")
        )
    return [Problem(f"{recipe.name}: {where}", what) for where, what in dict.fromkeys(found)]


def preflight(recipe: Recipe) -> list[Problem]:
    """Return what this machine lacks for this recipe. Starts nothing."""
    found = missing("the embedded engine works without it: --profile demo")
    python = settings.sd_scripts_python()
    packages = _site_packages(python) if python.is_file() else None
    if packages is not None:
        found += _packages(recipe, packages)
    if not any(Path(one).exists() for one in _GPUS):
        for key, value, bad in (
            ("training.mixed_precision", recipe.training.mixed_precision, recipe.training.mixed_precision == "fp16"),
            ("training.optimizer", recipe.training.optimizer, recipe.training.optimizer.lower().endswith("8bit")),
        ):
            if bad:
                what = f'{key} = "{value}" needs a GPU, and there is none here'
                found.append(
                    Problem(
                        f"{recipe.name}: {key}", what, "--profile cpu  trains on the CPU (slowly); --profile demo in minutes"
                    )
                )
    return found


def missing(instead: str) -> list[Problem]:
    """Return whether the checkout and its Python are there; ``instead`` says what works without them."""
    folder, python = settings.sd_scripts(), settings.sd_scripts_python()
    found: list[Problem] = []
    if not checkout.present(folder):
        found.append(Problem(str(folder), f"sd-scripts is not there; {instead}", _SETUP + str(settings.config_file())))
    else:
        parser_options.remember(folder)
    if not python.is_file():
        hint = "make setup  builds it; or set SD_SCRIPTS_PYTHON to the Python that has sd-scripts' requirements"
        if python != settings.ROOT / ".venv-sd-scripts" / python.relative_to(python.parent.parent):
            named = f"SD_SCRIPTS_PYTHON, or python under [sd-scripts] in {settings.config_file()}"
            hint = f"mend what names it ({named}); or leave that out: make setup  builds one"
        found.append(Problem(str(python), f"the Python of sd-scripts is not there; {instead}", hint))
    return found


def _site_packages(python: Path) -> Path | None:
    """Return the packages folder of a virtual environment; None where ``python`` is none, and nothing can be said."""
    root = python.parent.parent
    if not (root / "pyvenv.cfg").is_file():
        return None
    found = [*root.glob("lib/python3*/site-packages"), *root.glob("Lib/site-packages")]
    return found[0] if found else None


def _packages(recipe: Recipe, packages: Path) -> Iterator[Problem]:
    """Yield what the recipe needs and the environment has not: torch, LyCORIS of the right version, optimizers."""
    needed = {"torch": "", "accelerate": "", "transformers": "", "diffusers": ""}
    optimizer = recipe.training.optimizer
    package = next((package for name, package in _PACKAGES if name.match(optimizer.lower())), "")
    needed |= {package: f"training.optimizer = {optimizer}"} if package else {}
    if recipe.training.attention == "xformers":
        needed["xformers"] = "training.attention = xformers"
    if recipe.training.wandb:
        needed["wandb"] = "training.wandb = true"
    if recipe.network.family != "lora":
        needed["lycoris"] = f"network.family = {recipe.network.family}"
    for package, why in needed.items():
        if not (packages / package).is_dir() and not (packages / f"{package}.py").is_file():
            what = f"the package {package} is not there" + (f" ({why})" if why else "")
            hint = f"{settings.sd_scripts_python()} -m pip install wandb" if package == "wandb" else "make setup"
            yield Problem(str(packages), what, hint)
    for info in packages.glob("lycoris_lora-*.dist-info"):
        said = info.name.removeprefix("lycoris_lora-").removesuffix(".dist-info")
        if recipe.network.family == "full" and said == network_args.LYCORIS_VERSION:
            what = f"is lycoris-lora {said}, which cannot train full: it deletes the weights that its forward needs"
            yield Problem(str(info), what, f"install lycoris-lora=={network_args.TRAINS_FULL} there, or train another family")
        if recipe.network.family != "lora" and said.split(".")[0].isdigit() and int(said.split(".")[0]) >= 4:
            what = f"is lycoris-lora {said}, which stops in sd-scripts: duplicated lora name"
            yield Problem(str(info), what, f"install lycoris-lora=={network_args.LYCORIS_VERSION} there (make setup)")


def environment(tokenizers: Path, *, sdxl: bool = False) -> dict[str, str]:
    """Return what a program of sd-scripts needs in its environment, besides what is there; SDXL has two tokenizers."""
    env = {
        "PYTHONUTF8": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": str(settings.sd_scripts()),
        "COLUMNS": "400",  # rich wraps messages at the width of a console: 80 where there is none
        "HF_HUB_DISABLE_TELEMETRY": "1",
        # Accelerator() reads these, the traces of somebody's `accelerate launch`.
        "ACCELERATE_USE_DEEPSPEED": "false",
        "ACCELERATE_USE_FSDP": "false",
        "ACCELERATE_DYNAMO_BACKEND": "no",
    }
    if all((tokenizers / name).is_dir() for name in write_tokenizer.NAMES[: 2 if sdxl else 1]):
        env |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}  # nothing else is ever fetched
    return env


def command(program: str, argv: list[str], work: Path, files: dict[str, str]) -> Command:
    """Return the command of one of sd-scripts' programs."""
    whole = (str(settings.sd_scripts_python()), str(settings.sd_scripts() / program), *argv)
    sdxl = program.startswith("sdxl_") or "--sdxl" in argv
    return Command(whole, work.absolute(), environment(settings.tokenizers(), sdxl=sdxl), files)


def train(recipe: Recipe, inputs: Mapping[str, Path], work: Path, state: Path | None) -> Command:
    """Return the training command (see ``engines.Engine``). One process: `accelerate launch` and its config play no part."""
    newest = checkpoint(work) if state is not None else None
    initial = newest[1] if newest is not None and newest[0] == state else None
    said = arguments.train(recipe, inputs, work, state, initial)
    argv = [*said.argv, "--tokenizer_cache_dir", str(settings.tokenizers()), "--console_log_simple"]
    files = said.files | {
        result_checks.EXPECTED: json.dumps(result_checks.expected(recipe, None, inputs["dataset"]), indent=1)
    }
    return command(script(recipe), argv, work, files)


def render(recipe: Recipe, inputs: Mapping[str, Path], work: Path) -> Command:
    """Return the command that draws the prompts; families that gen_img.py cannot read go through ``gen_step``."""
    from orchestrator.engines.sdscripts import render_program  # noqa: PLC0415

    files = {gen_img.PROMPTS: gen_img.lines(recipe, names=True)}
    more = ["--tokenizer_cache_dir", str(settings.tokenizers()), "--console_log_simple"]
    how = render_program.how(recipe)
    if how is render_program.How.DIRECT:
        argv = gen_img.arguments(recipe, inputs["checkpoint"], inputs.get("vae"), inputs["lora"], work)
        return command("gen_img.py", argv + more, work, files)
    return render_program.command(recipe, inputs, work, files, more)


def reader(recipe: Recipe, work: Path) -> Callable[[str], Progress | None]:  # noqa: ARG001 - the Protocol's
    """Return what reads the output of a training in ``work``: it knows the prediction and a resumed bar's offset."""
    return Reader(lambda: result_checks.read_expected(work))


def checkpoint(work: Path) -> tuple[Path, int] | None:
    """Return the newest complete state in ``work`` from which something is left to train, and its step."""
    return training_states.newest(work, result_checks.read_expected(work).get("steps"))


def finished(recipe: Recipe, work: Path, log: str) -> list[Problem]:
    """Return why a training that exited 0 is no success."""
    return result_checks.finished(recipe, work, log, None)


def history(work: Path) -> list[dict[str, Any]]:
    """Return loss and learning rates by step from the TensorBoard events in ``work``."""
    known = training_states.shifts(work)
    return tensorboard.history(work / arguments.LOGS, lambda when: training_states.shift_at(known, when))
