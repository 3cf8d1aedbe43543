"""A Ray cluster of two nodes on this machine, loopback only, each with a folder of its own; all skipped without Ray."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from nodes import Nodes

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    pytest.importorskip("ray.cluster_utils", reason="needs the ray extra: pip install '.[ray]'")
    nodes = Nodes(tmp_path_factory.mktemp("nodes"))
    nodes.add("one")
    nodes.add("two")
    nodes.join(worker_process_setup_hook="workers.fake_engine")
    yield nodes
    nodes.end()


@pytest.fixture
def real(cluster: Nodes) -> Iterator[Nodes]:
    """The same cluster, with the real engine on its nodes."""
    cluster.join()
    yield cluster
    cluster.join(worker_process_setup_hook="workers.fake_engine")
