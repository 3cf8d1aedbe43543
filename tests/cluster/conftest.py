"""A Ray cluster of two nodes on this machine, loopback only, each with a folder of its own; all skipped without Ray."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

LOOPBACK = "127.0.0.1"
TESTS = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TESTS))


class Nodes:
    """The cluster, and what a test may do to it."""

    def __init__(self, folder: Path) -> None:
        from ray._private import services  # noqa: PLC0415
        from ray.cluster_utils import Cluster  # noqa: PLC0415

        services.resolve_ip_for_localhost = lambda host: host  # it would take the machine's outer address
        self.folder = folder
        self.cluster = Cluster()
        self.cluster.add_node(num_cpus=0, include_dashboard=False, **self._own("head"))
        self.nodes: list[Any] = []

    def _own(self, name: str) -> dict[str, Any]:
        env = {"KRNK_NODE": str(self.folder / name)}
        return {"env_vars": env, "object_store_memory": 100 << 20, "node_ip_address": LOOPBACK}

    def add(self, name: str) -> None:
        self.nodes.append(self.cluster.add_node(num_cpus=2, num_gpus=1, **self._own(name)))

    def kill(self, index: int) -> None:
        self.cluster.remove_node(self.nodes.pop(index), allow_graceful=False)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    pytest.importorskip("ray.cluster_utils", reason="needs the ray extra: pip install '.[ray]'")
    import ray  # noqa: PLC0415

    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_raylet_start_wait_time_s": "120"}
    nodes = Nodes(tmp_path_factory.mktemp("nodes"))
    nodes.add("one")
    nodes.add("two")
    paths = os.pathsep.join([str(TESTS), str(TESTS / "cluster"), str(TESTS.parent)])
    env = {"worker_process_setup_hook": "workers.fake_engine", "env_vars": {"PYTHONPATH": paths}}
    ray.init(nodes.cluster.address, log_to_driver=False, logging_level="error", runtime_env=env, _node_ip_address=LOOPBACK)
    yield nodes
    ray.shutdown()
    nodes.cluster.shutdown()
