"""A storage in a folder, and a Ray cluster of two nodes on this machine, loopback only, each with a folder of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import harness
from distant import TOKEN
from nodes import Nodes
from orchestrator.run.cluster.storage import Storage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


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


@pytest.fixture
def cats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> harness.Project:
    monkeypatch.setenv("KRNK_NODE", str(tmp_path / "node"))
    return harness.make(tmp_path / "project", monkeypatch)


@pytest.fixture
def depot(tmp_path: Path) -> Storage:
    storage = Storage(f"file://{tmp_path / 'depot'}")
    storage.write(TOKEN, b"")
    return storage
