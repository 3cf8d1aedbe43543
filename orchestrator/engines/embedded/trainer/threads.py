"""Threads of the embedded programs. Nothing is imported and nothing starts here.

OpenMP's threads spin while they wait for each other; with anything else running on the machine a training of small operations
then takes ten times as long (measured: 228 s instead of 17 s), so they are told to sleep.
"""

from __future__ import annotations

import os


def prepare() -> None:
    """Say how OpenMP waits. Has an effect only before torch is imported; what the environment says stands."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def apply() -> None:
    """Take ``OMP_NUM_THREADS`` of this moment: a forked process has torch already, and torch read it long ago."""
    import torch  # noqa: PLC0415

    said = os.environ.get("OMP_NUM_THREADS", "")
    if said.isdigit() and int(said) > 0:
        torch.set_num_threads(int(said))
