"""Threads of the embedded programs. Importing this module starts nothing.

OpenMP's threads spin while they wait for each other. On a busy machine that makes a training of small operations ten times
slower (228 s instead of 17 s measured), so they sleep instead.
"""

from __future__ import annotations

import os


def prepare() -> None:
    """Let OpenMP threads sleep, unless the environment sets a policy.

    Works only before torch is imported.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def apply() -> None:
    """Use the current ``OMP_NUM_THREADS``.

    A forked process inherits a torch that read the variable of its parent.
    """
    import torch  # noqa: PLC0415 - after prepare()

    count = os.environ.get("OMP_NUM_THREADS", "")
    if count.isdigit() and int(count) > 0:
        torch.set_num_threads(int(count))
