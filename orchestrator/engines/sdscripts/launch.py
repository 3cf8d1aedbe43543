"""Commands of sd-scripts' programs, with their environment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.engines.sdscripts import write_tokenizer
from orchestrator.models.registry import ARCHITECTURES
from orchestrator.models.text_encoders import HUB
from orchestrator.system import settings
from orchestrator.system.process import Command

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

NAME = "sd-scripts"


def environment(tokenizers: Path, names: Sequence[str] = write_tokenizer.NAMES[:1]) -> dict[str, str]:
    """Return the environment variables that a program of sd-scripts needs.

    Args:
        tokenizers: folder of the tokenizers. With all of them there, the program runs offline.
        names: folders of the tokenizers that the program needs.
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
    if any(name.startswith(HUB) for name in names):
        env["HF_HUB_CACHE"] = str(tokenizers)  # these programs take some tokenizers from the Hub's cache only
    if all((tokenizers / name).is_dir() for name in names):
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
    env = environment(settings.tokenizers(), _tokenizers(program, argv))
    return Command((str(python), str(script), *argv), work.absolute(), env, dict(files))


def _tokenizers(program: str, argv: Sequence[str]) -> Sequence[str]:
    """Return the folders of the tokenizers that a program needs."""
    switches: dict[tuple[str, ...], tuple[str, ...]] = {}
    for entry in ARCHITECTURES.values():
        if program == entry.trainer_script:
            switches[entry.trainer_switches] = entry.tokenizers
        elif program == entry.renderer.script:
            switches[entry.renderer.switches] = entry.tokenizers
    chosen = [own for own in switches if set(own) <= set(argv)]
    return switches[max(chosen, key=len)] if chosen else write_tokenizer.NAMES[:1]


def tokenizer_options() -> list[str]:
    """Return the options of every program that has a tokenizer.

    The tokenizers' folder, and plain log lines.
    """
    return ["--tokenizer_cache_dir", str(settings.tokenizers()), "--console_log_simple"]
