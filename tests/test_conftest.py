"""The guard that keeps tests off the network works."""

import socket

import pytest


def test_the_guard_fails_a_test_that_connects_outside() -> None:
    with socket.socket() as connection, pytest.raises(pytest.fail.Exception, match="tried to connect"):
        connection.connect(("192.0.2.1", 80))
