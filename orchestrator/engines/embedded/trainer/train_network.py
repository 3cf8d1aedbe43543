"""The embedded trainer, with sd-scripts' train_network.py's arguments.

Exit codes: 0 trained and saved, 1 stopped (the loss is not a number), 2 wrong arguments, dataset or model, 130 interrupted.
Unlike in sd-scripts, a dataset without images and a loss that is not a number are failures.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from orchestrator.engines.embedded.trainer import cli_options, exit_codes, threads

threads.prepare()

from orchestrator.engines.embedded.trainer import loop  # noqa: E402 - it imports torch

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str]) -> int:
    """Train with these arguments and return the exit code."""
    args = cli_options.parse(argv)
    threads.apply()
    return exit_codes.code(lambda: loop.run(args))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
