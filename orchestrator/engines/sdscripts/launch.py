"""Commands of sd-scripts' programs, with their environment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.engines.sdscripts import write_tokenizer
from orchestrator.system import settings
from orchestrator.system.process import Command

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

NAME = "sd-scripts"


def environment(tokenizers: Path, *, sdxl: bool = False) -> dict[str, str]:
    """Return the environment variables that a program of sd-scripts needs.

    Args:
        tokenizers: folder of the tokenizers. With all of them there, the program runs offline.
        sdxl: whether the second tokenizer is needed too.
    """
    env = {
        "PYTHONUTF8": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": str(settings.sd_scripts()),
        "COLUMNS": "400",  # rich wraps messages at the console's width: 80 without a console
        "HF_HUB_DISABLE_TELEMETRY": "1",
        # Accelerator() reads these, which `accelerate launch` leaves in a shell.
        "ACCELERATE_USE_DEEPSPEED": "false",
        "ACCELERATE_USE_FSDP": "false",
        "ACCELERATE_DYNAMO_BACKEND": "no",
    }
    if all((tokenizers / name).is_dir() for name in write_tokenizer.NAMES[: 2 if sdxl else 1]):
        env |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}  # nothing but the tokenizers is ever fetched
    return env


def command(program: str, argv: Sequence[str], work: Path, files: Mapping[str, str]) -> Command:
    """Return the command of one of sd-scripts' programs.

    Args:
        program: path of the script in the checkout.
        argv: its arguments.
        work: folder in which it runs.
        files: texts to write there first, by name.
    """
    python, script = settings.sd_scripts_python(), settings.sd_scripts() / program
    sdxl = program.startswith("sdxl_") or "--sdxl" in argv
    env = environment(settings.tokenizers(), sdxl=sdxl)
    return Command((str(python), str(script), *argv), work.absolute(), env, dict(files))


def tokenizer_options() -> list[str]:
    """Return the options of every program that has a tokenizer.

    The tokenizers' folder, and plain log lines.
    """
    return ["--tokenizer_cache_dir", str(settings.tokenizers()), "--console_log_simple"]
