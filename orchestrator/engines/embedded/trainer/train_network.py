"""The embedded trainer: a program with the arguments of sd-scripts' train_network.py.

Exit codes: 0 trained and saved; 1 stopped (a loss that is not a number); 2 wrong arguments, dataset or model; 130 interrupted.
Unlike there, no pictures and a NaN loss are failures.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from orchestrator.engines.embedded.trainer import cli_options, exit_codes, threads

if TYPE_CHECKING:
    from collections.abc import Sequence

# What a process that forks for every step imports beforehand.
PRELOAD = ("orchestrator.engines.embedded.trainer.preload",)


def main(argv: Sequence[str]) -> int:
    """Train with these arguments; the exit code. Torch is imported here, not before."""
    args = cli_options.parse(argv)
    threads.prepare()
    from orchestrator.engines.embedded.trainer import loop  # noqa: PLC0415 - `--help` and a mistyped option need no torch

    threads.apply()
    return exit_codes.code(lambda: loop.run(args))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
