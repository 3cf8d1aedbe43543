"""Arguments and options of several verbs. Typer reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from orchestrator.cli import project
from orchestrator.errors import OrchestratorError, Problem, RecipeError, near_miss
from orchestrator.system.terminal import print_json, say


def recipe_names(incomplete: str) -> list[str]:
    """Return the names of recipes that begin with ``incomplete``."""
    try:
        names = sorted(path.stem for path in (project.root() / "recipes").glob("*.toml"))
    except (OrchestratorError, OSError):
        return []
    return [name for name in ("all", *names) if name.startswith(incomplete)]


ENGINES = ("sd-scripts", "embedded")

Name = Annotated[str, typer.Argument(metavar="RECIPE", help="Name or TOML file of a recipe.", autocompletion=recipe_names)]
Names = Annotated[
    list[str],
    typer.Argument(metavar="RECIPE…", help="Recipe names, paths of TOML files, or `all`.", autocompletion=recipe_names),
]
Profile = Annotated[str, typer.Option(help="Overlay from recipes/_profiles.")]
EngineName = Annotated[str, typer.Option("--engine", help="sd-scripts or embedded, instead of the recipe's engine.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, and nothing else there.")]
Only = Annotated[list[str], typer.Option(help="Run only this step or kind of step. Its inputs must be done.")]
Force = Annotated[list[str], typer.Option(help="Run this step or kind of step again, even if it is done.")]
KeepGoing = Annotated[
    bool, typer.Option("--keep-going/--stop-at-failure", help="After a failure, continue with independent steps.")
]
Executor = Annotated[str, typer.Option(help="local: in parallel; inline: one after another; ray: on a Ray cluster.")]
Address = Annotated[str, typer.Option(help="Ray cluster: auto or HOST:PORT. Default: $RAY_ADDRESS, or this machine alone.")]
Storage = Annotated[
    str,
    typer.Option(help="URL for files of the cluster, as s3://…, sftp://… or file://… Default: a shared runs folder."),
]
Gpus = Annotated[str, typer.Option(help="GPUs to use, as 0,1. Default: all.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print problems and the result only.")]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="Also print cached steps, paths of logs, and frequent progress.")
]
LogFormat = Annotated[str, typer.Option(help="text, or json: one JSON object per event on stderr.")]
Verify = Annotated[bool, typer.Option("--verify", help="Read finished files again and compare their digests.")]

In = Annotated[Path, typer.Argument(metavar="IN", help="A LoRA file (.safetensors).")]
Out = Annotated[Path, typer.Argument(metavar="OUT", help="The file to write.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Allow the output to be the input.")]
Order = Annotated[str, typer.Option(help="Order of another tool's list: lbw-61, inspire-58 (FLUX), inspire-21 (SDXL), …")]
RankRule = Annotated[str, typer.Option(help="2023 (as the release) or sd-scripts-0.10 (one more in every layer).")]
Precision = Annotated[str, typer.Option(help="fp16, bf16 or fp32.")]


def check_engine(engine: str) -> None:
    """Raise RecipeError for the name of an unknown engine."""
    if engine and engine not in ENGINES:
        raise RecipeError(Problem(f"--engine {engine}", f"no such engine{near_miss(engine, ENGINES)}", " or ".join(ENGINES)))


def executor_problems(executor: str, gpus: str, address: str, storage: str) -> list[Problem]:
    """Return the problems of the options for executor, GPUs and cluster."""
    problems: list[Problem] = []
    if executor not in ("local", "inline", "ray"):
        problems.append(Problem(f"--executor {executor}", "no such executor", "local, inline or ray"))
    if storage and "://" not in storage:
        problems.append(Problem(f"--storage {storage}", "is not a URL", "for example s3://bucket/krnk or sftp://HOST/FOLDER"))
    if executor != "ray":
        options = [f"--address {address}"] * bool(address) + [f"--storage {storage}"] * bool(storage)
        problems += [Problem(option, "is for a Ray cluster", "--executor ray") for option in options]
    elif gpus:
        problems.append(
            Problem(f"--gpus {gpus}", "is for this machine alone", "ray start --num-gpus=N sets the GPUs of each node")
        )
    return problems


def check_rank_rule(text: str) -> Any:
    """Return the rank rule ``text``.

    Raises:
        RecipeError: an unknown rule.
    """
    if text not in {"2023", "sd-scripts-0.10"}:
        raise RecipeError(Problem("--rank-rule", f"{text!r} is neither 2023 nor sd-scripts-0.10"))
    return text


def print_report(report: Any, *, json: bool) -> None:
    """Print the table of a report, or its JSON."""
    if json:
        print_json(report.to_json())
    else:
        say("\n".join(report.table()))
