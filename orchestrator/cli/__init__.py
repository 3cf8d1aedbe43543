"""The command line: verbs, errors, exit codes.

A verb imports its program when it is called.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import typer
from typer.exceptions import TyperException
from typer.main import get_command

from orchestrator.cli import dataset, inspect, machine, merge_resize, recipes, results, run, select, usage, weights
from orchestrator.errors import OrchestratorError, report
from orchestrator.system import crash_report, settings
from orchestrator.system.terminal import clean, fit_streams, use_commands

FAULT = 70
"""Exit code after a fault of this program itself (sysexits.h: EX_SOFTWARE)."""

app = typer.Typer(
    cls=usage.GroupedHelp,
    help="Character LoRAs from images to a published release. Try:  make demo",
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _verbless(context: typer.Context, *, version: usage.Version = False) -> None:
    del version  # printed by its callback
    usage.help_alone(context)


for _module in (recipes, run, dataset, merge_resize, weights, inspect, machine, results, select):
    _module.register(app)


def main() -> int:
    """Run the command line.

    Errors end here as a text on stderr and an exit code.
    """
    fit_streams()
    here = Path.cwd()
    use_commands(usage.command_as_typed(sys.orig_argv, here), usage.make_command(here, settings.ROOT))
    command = get_command(app)
    try:
        code = command(prog_name=usage.NAME, standalone_mode=False)
    except OrchestratorError as error:
        print(clean(report(error)), file=sys.stderr)
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        print("stopped", file=sys.stderr)
        return run.STOPPED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader of our output has closed it
        return 0
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(clean(f"{where}{error.strerror or error}\n    fix it, then run the same command again"), file=sys.stderr)
        return 1
    except TyperException as error:
        print(clean(usage.usage_error(error, usage.typed_verb(command, sys.argv[1:]))), file=sys.stderr)
        return 2
    except Exception as error:  # noqa: BLE001 - kept in a file, never shown as a traceback
        print(clean(str(crash_report.problem(error))), file=sys.stderr)
        return FAULT
    return code if isinstance(code, int) else 0
