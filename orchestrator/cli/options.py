"""Arguments and options that several verbs take, each said once. Typer reads them."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.errors import Problem


def recipe_names(incomplete: str) -> list[str]:
    """Return the recipes whose names begin so, for a shell's completion; nothing is loaded."""
    from orchestrator.errors import OrchestratorError  # noqa: PLC0415
    from orchestrator.run.workspace import find_root  # noqa: PLC0415

    try:
        found = sorted(path.stem for path in (find_root() / "recipes").glob("*.toml"))
    except (OrchestratorError, OSError):
        return []
    return [name for name in ("all", *found) if name.startswith(incomplete)]


Names = Annotated[
    list[str],
    typer.Argument(metavar="RECIPE…", help="Recipe names, paths of TOML files, or `all`.", autocompletion=recipe_names),
]
Profile = Annotated[str, typer.Option(help="Overlay from recipes/_profiles.")]
EngineName = Annotated[str, typer.Option("--engine", help="sd-scripts or embedded, instead of the recipe's.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, nothing else there.")]
Only = Annotated[list[str], typer.Option(help="Run only this step or kind; those before it must be done.")]
Force = Annotated[list[str], typer.Option(help="Run this step or kind again, even if it is done.")]
KeepGoing = Annotated[
    bool, typer.Option("--keep-going/--stop-at-failure", help="After a failure, go on with what does not depend on it.")
]
Executor = Annotated[str, typer.Option(help="local: beside each other; inline: one after another; ray: on a Ray cluster.")]
Address = Annotated[
    str, typer.Option(help="Of the Ray cluster: auto, HOST:PORT; default: $RAY_ADDRESS, or this machine alone.")
]
Transport = Annotated[
    str,
    typer.Option(help="How files reach the cluster: auto (a shared runs folder, else Ray), object-store, or s3://…, file://…"),
]
Gpus = Annotated[str, typer.Option(help="GPUs to use, as 0,1; default: all.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but problems and the result.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Also say what is cached, where logs are, and progress often.")]
LogFormat = Annotated[str, typer.Option(help="text, or json: one JSON object per event on stderr.")]
Verify = Annotated[bool, typer.Option("--verify", help="Read finished files again and compare their digests.")]


def misplaced(executor: str, gpus: str, address: str, transport: str) -> list[Problem]:
    """Return what is wrong with the options that say where steps run."""
    found: list[Problem] = []
    if executor not in ("local", "inline", "ray"):
        found.append(Problem(f"--executor {executor}", "no such executor", "local, inline or ray"))
    if transport not in ("auto", "object-store") and "://" not in transport:
        found.append(
            Problem(f"--transport {transport}", "no such transport", "auto, object-store, or a URL as s3://bucket/krnk")
        )
    if executor != "ray":
        given = [f"--address {address}"] * bool(address) + [f"--transport {transport}"] * (transport != "auto")
        found += [Problem(one, "is for a Ray cluster", "--executor ray") for one in given]
    elif gpus:
        found.append(Problem(f"--gpus {gpus}", "is for this machine alone", "ray start --num-gpus=N says it on each node"))
    return found
