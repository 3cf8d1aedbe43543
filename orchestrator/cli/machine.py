"""The verbs about this machine: fetch-base, doctor, completion, man, trust, probe. Each imports what it needs."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.options import AsJson, Profile, recipe_names
from orchestrator.system.terminal import print_json, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.errors import Problem
    from orchestrator.plan.planner import Plan
    from orchestrator.recipe import Recipe
    from orchestrator.run.record import Reason
    from orchestrator.run.workspace import Workspace


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    app.command("fetch-base")(fetch_base)
    app.command("doctor")(doctor)
    app.command("completion")(completion)
    app.command("man")(man)
    app.command("trust")(trust)
    app.command("probe")(probe)


def fetch_base(
    recipe: Annotated[str, typer.Argument(help="A recipe whose base has a url.", autocompletion=recipe_names)],
    *,
    folder: Annotated[Path | None, typer.Option(help="Where to put it; default: models/ of the project.")] = None,
) -> None:
    """Fetch a recipe's base model from its public source, and check it.  Example: orchestrator fetch-base krnk-locon."""
    from orchestrator.run import fetch_base as fetch  # noqa: PLC0415
    from orchestrator.run.workspace import Selection, Workspace  # noqa: PLC0415

    space = Workspace()
    loaded = space.load(Selection((recipe,)))[0]
    say(fetch.fetch(loaded.recipe, space.inputs, folder or space.root / "models"))


def doctor(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[RECIPE…]", help="Default: all recipes.", autocompletion=recipe_names)
    ] = None,
    *,
    profile: Profile = "",
    engine: Annotated[str, typer.Option(help="sd-scripts or embedded, instead of the recipe's.")] = "",
    json: AsJson = False,
) -> None:
    """Everything that would stop or spoil a run, with the command that mends it.  Example: orchestrator doctor krnk-locon."""
    from orchestrator.run import preflight as doctor_  # noqa: PLC0415
    from orchestrator.run.workspace import Selection, Workspace  # noqa: PLC0415

    space = Workspace()
    loaded, problems = space.readable(Selection(tuple(names or ["all"]), profile, engine))
    checks = doctor_.checks(space, loaded)
    checks += [doctor_.Check(one.where, doctor_.State.BAD, one.what, one.hint) for one in problems]
    if json:
        print_json([doctor_.as_json(check) for check in checks])
    else:
        say(doctor_.table(checks), end="")
    if not all(check.state.ok for check in checks):
        raise typer.Exit(3)


def say_lacking(made: Plan, reasons: dict[str, Reason | None], space: Workspace, names: Sequence[str]) -> None:
    """Say below a plan how much this machine lacks for it; doctor says what."""
    from orchestrator.run import preflight as doctor_  # noqa: PLC0415

    lacking = doctor_.preflight(made, reasons, space.inputs, space.store)
    count = sum(problem.where != doctor_.WITHOUT for problem in lacking)
    if count:
        said = f"not ready here: {count} thing{'s' if count > 1 else ''} to mend first"
        say(f"{said};  python -m orchestrator doctor {' '.join(names)}  says which", file=sys.stderr)


def completion(
    shell: Annotated[str, typer.Argument(help="bash, zsh or fish.")],
) -> None:
    """Print the completion of a shell, recipe names included.  Example: orchestrator completion bash >> ~/.bashrc."""
    from orchestrator.cli import reference as manual  # noqa: PLC0415

    print(manual.completion(shell), end="")


def man(
    *,
    reference: Annotated[
        Path | None, typer.Option(help="Write the documentation's reference pages to this folder instead.")
    ] = None,
) -> None:
    """Print the manual page.  Example: orchestrator man > ~/.local/share/man/man1/orchestrator.1."""
    from orchestrator.cli import reference as manual  # noqa: PLC0415

    if reference is None:
        print(manual.page(), end="")
        return
    for path in manual.write(reference):
        say(path)


def export(recipe: Recipe, space: Workspace, form: str, output: Path | None) -> None:
    """Print or write a recipe in another program's form (``show --as``)."""
    from orchestrator.errors import Problem, RecipeError, near_miss  # noqa: PLC0415
    from orchestrator.run import export_sd_scripts as export_  # noqa: PLC0415

    if form != "sd-scripts":
        raise RecipeError(Problem(f"--as {form}", f"no such form{near_miss(form, ['sd-scripts'])}", "sd-scripts"))
    files = export_.sd_scripts(recipe, space.inputs, output or Path("sd-scripts"))
    if output is None:
        for name, text in files.items():
            print(f"# ==== {name}\n{text}")
        return
    standing = [
        Problem(str(output / name), "exists already", "choose another folder") for name in files if (output / name).exists()
    ]
    if standing:
        raise RecipeError(standing)
    output.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (output / name).write_text(text, "utf-8")
        say(output / name)


def usage(error: Exception, app: typer.Typer) -> str:
    """Return what a wrong command line is told: what is wrong, the near miss, and where the help is."""
    from orchestrator.errors import near_miss  # noqa: PLC0415

    said = str(error)
    named = getattr(getattr(error, "param", None), "opts", None) or [""]
    said = f"{named[0]}: {said}" if named[0] and named[0] not in said else said
    option = getattr(error, "option_name", None)
    near = getattr(error, "possibilities", None) or []
    if isinstance(option, str) and near and "did you mean" not in said.lower():
        said += f"; did you mean {near[0]}?"
    context = getattr(error, "ctx", None)
    path = getattr(context, "command_path", "") or ""
    verb = path.removeprefix("python -m ").partition(" ")[2]
    if isinstance(option, str) and not near:
        known = [one for param in getattr(getattr(context, "command", None), "params", []) for one in param.opts]
        said += near_miss(option, known)
    count = len(app.registered_commands) + len(app.registered_groups)
    help_ = (
        f"python -m orchestrator {verb} --help  shows its options"
        if verb
        else f"python -m orchestrator --help  shows the {count} verbs"
    )
    return f"{said}\n    {help_}"


def trust(folder: Annotated[Path, typer.Argument(help="A folder of pictures outside the project.")]) -> None:
    """Let recipes read pictures below a folder outside the project.  Example: orchestrator trust ~/pictures."""
    from orchestrator.system import allowlist as trust_  # noqa: PLC0415

    say(f"recipes may read {trust_.add(folder)}")


def probe(
    recipes: Annotated[list[str], typer.Argument(help="Recipes' names, or all: each kind of training is measured once.")],
    *,
    profile: Annotated[str, typer.Option(help="Overlay from recipes/_profiles.")] = "",
    engine: Annotated[str, typer.Option(help="sd-scripts or embedded, instead of the recipe's.")] = "",
) -> None:
    """Train a few steps on the largest pictures: time, GPU memory.  Example: orchestrator probe krnk-locon --profile demo."""
    from orchestrator.errors import RecipeError, StepFailed  # noqa: PLC0415
    from orchestrator.run import benchmark as probe_  # noqa: PLC0415
    from orchestrator.run.workspace import ALL, Selection, Workspace  # noqa: PLC0415
    from orchestrator.system.terminal import duration  # noqa: PLC0415

    space = Workspace()
    plan = space.plan(space.load(Selection(tuple(recipes), profile, engine)))
    space.preflight(plan, space.store.reasons(plan))
    problems: list[Problem] = []
    for asked in {probe_.shape(recipe, space): recipe for recipe in reversed(plan.recipes.values())}.values():
        try:
            found = probe_.measure(asked, plan, space)
        except StepFailed as error:
            problems += error.problems
            continue
        left = duration(found.seconds_per_step * asked.training.steps)
        steps = f"{asked.training.steps} steps take at most {left}"
        say(f"{asked.name}: {found.seconds_per_step:.3f} s a step on the largest pictures; {steps}")
        if found.total_mb:
            spills = "; it will spill into RAM" if found.spills() else ""
            say(f"{asked.name}: {found.peak_mb} of {found.total_mb} MB of GPU memory{spills}")
    if problems:
        raise StepFailed(problems)
    with contextlib.suppress(RecipeError):  # of others; `plan all` says them
        whole = space.plan(space.load(Selection((ALL,), profile, engine)))
        if total := probe_.left(whole, space.store.reasons(whole), space).told(profile, engine):
            say(f"all recipes: {total}")
