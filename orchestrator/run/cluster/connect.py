"""Join a running Ray cluster, or start one of this machine alone."""

from __future__ import annotations

import contextlib
import os
import socket
from typing import Any

from orchestrator.errors import NotReady, Problem

ANSWER_SECONDS = 10.0
LOOPBACK = ("127.0.0.1", "localhost")
HINT = (
    "on one machine: ray start --head; on the others, and on this one: ray start --address=HOST:6379; "
    "where the cluster has a token, the same ~/.ray/auth_token and RAY_AUTH_MODE=token here too"
)


def join(address: str) -> tuple[Any, bool]:
    """Join the cluster at ``address``, or a new one of this machine alone.

    Args:
        address: as ``ray.init`` takes it: auto or HOST:PORT. The driver's machine has to be a node of the cluster.

    Returns:
        The module ray, and whether this call joined the cluster (then the caller leaves it).

    Raises:
        NotReady: Ray is not installed, or no cluster answers.
    """
    where = address or os.environ.get("RAY_ADDRESS", "")
    if "://" in where:  # Ray's client: tasks could not send progress
        raise NotReady(Problem(f"--address {where}", "the machine of this command must be a node of the cluster", HINT))
    host, _, port = where.rpartition(":")
    if port.isdigit() and not _answers(host, int(port)):  # Ray would try for many minutes
        what = f"nothing answers there within {ANSWER_SECONDS:.0f} s; use the address that ray start printed, or auto"
        raise NotReady(Problem(f"--address {where}", what, HINT))
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if not where or host in LOOPBACK:
        # ray/_private/ray_constants.py: a cluster on loopback stays there; else Ray takes the machine's outer address
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    ray = _ray()
    if ray.is_initialized():
        return ray, False
    extra = {} if where else {"include_dashboard": False}
    try:
        ray.init(address=where or None, log_to_driver=False, logging_level="error", **extra)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise NotReady(Problem(f"--address {where or 'of Ray'}", f"no cluster answers: {error}", HINT)) from error
    return ray, True


def _answers(host: str, port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=ANSWER_SECONDS):
        return True
    return False


def _ray() -> Any:
    try:
        import ray.exceptions  # noqa: PLC0415 - the extra `ray`
        import ray.util.scheduling_strategies  # noqa: PLC0415
    except ImportError as error:
        raise NotReady(Problem("--executor ray", f"Ray is not installed: {error}", "pip install '.[ray]'")) from error
    return ray
