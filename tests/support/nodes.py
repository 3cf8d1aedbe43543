"""A Ray cluster of several nodes on this machine.

It uses loopback only, and each node has a folder of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from pathlib import Path
from typing import Any

LOOPBACK = "127.0.0.1"
TESTS = Path(__file__).resolve().parents[1]


def saved(folder: Path, step: int = 1) -> bool:
    """Return whether a training has saved a state of ``step`` or later.

    Args:
        folder: holds the project, whose runs folder is shared, or the storage ``depot``.
        step: the step of the training.
    """
    with contextlib.suppress(OSError, ValueError):  # a folder that is just being renamed
        if (folder / "depot").is_dir():
            states = [path for path in (folder / "depot" / "states").rglob("*") if path.suffix == ".json"]
            return any(json.loads(path.read_text("utf-8"))["step"] >= step for path in states)
        folders = [str(path) for path in (folder / "project" / "runs").glob("*/.partial/train-*/*-state")]
        return any(int(digits) >= step for state in folders for digits in re.findall(r"(\d+)-state$", state))
    return False


class Nodes:
    """The cluster, with the means of a test to change it."""

    def __init__(self, folder: Path) -> None:
        from ray._private import services  # noqa: PLC0415
        from ray.cluster_utils import Cluster  # noqa: PLC0415

        os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_raylet_start_wait_time_s": "120"}
        services.resolve_ip_for_localhost = lambda host: host  # it would take the machine's outer address
        self.folder = folder
        self.cluster = Cluster()
        self._start("head", num_cpus=0, include_dashboard=False)
        self.nodes: list[Any] = []

    def _own(self, name: str) -> dict[str, Any]:
        env = {"KRNK_NODE": str(self.folder / name)}
        return {"env_vars": env, "object_store_memory": 100 << 20, "node_ip_address": LOOPBACK}

    def _start(self, name: str, **resources: Any) -> Any:
        """Start a node, in three attempts at most.

        Ray gives each 30 s, too few on a busy machine.
        """
        for _ in range(2):
            with contextlib.suppress(Exception):
                return self.cluster.add_node(**resources, **self._own(name))
        return self.cluster.add_node(**resources, **self._own(name))

    def add(self, name: str, cpus: int = 2) -> None:
        self.nodes.append(self._start(name, num_cpus=cpus, num_gpus=1))

    def kill(self, index: int) -> None:
        self.cluster.remove_node(self.nodes.pop(index), allow_graceful=False)

    def join(self, **env: Any) -> None:
        """Make this process the driver, with ``env`` on every worker."""
        import ray  # noqa: PLC0415

        ray.shutdown()
        paths = os.pathsep.join([str(TESTS / "support"), str(TESTS.parent)])
        env |= {"env_vars": {"PYTHONPATH": paths}}
        ray.init(self.cluster.address, log_to_driver=False, logging_level="error", runtime_env=env, _node_ip_address=LOOPBACK)

    def training(self) -> int:
        """Return the index of a node whose only GPU is taken."""
        import ray  # noqa: PLC0415

        free = ray._private.state.available_resources_per_node()
        return next(index for index, node in enumerate(self.nodes) if free.get(node.node_id, {}).get("GPU", 0) < 1)

    def end(self) -> None:
        import ray  # noqa: PLC0415

        ray.shutdown()
        self.cluster.shutdown()
