"""The command line: verbs, errors, exit codes; no logic. Verbs import what they need when they are called."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Any

import typer
from typer.exceptions import TyperException
from typer.main import get_command_name, get_group

from orchestrator.cli import run
from orchestrator.errors import OrchestratorError, report

FAULT = 70
"""Exit code after a fault of this program itself (sysexits.h: EX_SOFTWARE)."""
MODULES = ("recipes", "machine", "weights", "dataset", "results")


def _empty(*, completion: bool = False, helping: bool = True) -> typer.Typer:
    return typer.Typer(
        help="Character LoRAs from images to a published release. Try:  make demo",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        add_completion=completion,
        add_help_option=helping,
    )


def whole() -> typer.Typer:
    """Return the command line with all verbs."""
    app = _empty(completion=any(name.endswith("_COMPLETE") for name in os.environ))  # a shell asks what could follow
    run.register(app)
    for name in MODULES:
        import_module(f"orchestrator.cli.{name}").register(app)
    return app


def _asked(argv: list[str]) -> Any:
    """Return what ``argv`` needs of the command line: one verb, where it names one, which takes a third of the time."""
    verb = argv[0] if argv else ""
    helping = any(word.startswith("--h") for word in argv)  # typer imports pydantic to find that nobody asked for help
    one = _empty(helping=helping)
    if verb in run.VERBS:
        one.command(verb, add_help_option=helping)(run.VERBS[verb])
        return get_group(one)
    app = whole()
    named = [
        (info, info.name or get_command_name(info.callback.__name__)) for info in app.registered_commands if info.callback
    ]
    one.registered_commands = [info for info, name in named if name == verb]
    return get_group(one) if one.registered_commands else app


def main() -> int:
    """Run the command line; everything that goes wrong becomes a text and an exit code here."""
    from orchestrator.cli.progress import fit_streams  # noqa: PLC0415
    from orchestrator.system.terminal import clean  # noqa: PLC0415

    fit_streams()
    try:
        ending = _asked(sys.argv[1:])(standalone_mode=False)
    except OrchestratorError as error:
        print(clean(report(error)), file=sys.stderr)
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        print("stopped", file=sys.stderr)
        return run.STOPPED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader of our output has left
        return 0
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(
            clean(f"{where}{error.strerror or error}\n    free or mend it, then run the same command again"), file=sys.stderr
        )
        return 1
    except TyperException as error:
        from orchestrator.cli import machine  # noqa: PLC0415

        print(clean(machine.usage(error, whole())), file=sys.stderr)
        return 2
    except Exception as error:  # noqa: BLE001 - said and kept, never shown as a traceback
        from orchestrator.system import crash_report  # noqa: PLC0415

        print(clean(str(crash_report.problem(error))), file=sys.stderr)
        return FAULT
    return ending if isinstance(ending, int) else 0
