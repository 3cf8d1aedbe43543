"""Joining a cluster: addresses without one, drivers outside."""

from __future__ import annotations

import socket

import pytest

from orchestrator.errors import NotReady
from orchestrator.run.cluster import connect


def test_an_address_without_a_cluster_fails_at_once() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: no other process gets it, and nothing answers
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(NotReady, match="nothing answers there"):
            connect.join(address)


def test_a_driver_outside_the_cluster_is_refused_with_the_way_in() -> None:
    with pytest.raises(NotReady, match="ray start --address=HOST:6379"):
        connect.join("ray://192.0.2.1:10001")
