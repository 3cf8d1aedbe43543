"""A message at the end of a long run, sent for real to a server on this machine."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator.errors import RecipeError
from orchestrator.run import notify
from orchestrator.run.context import Status
from orchestrator.system import settings
from outcomes import FAILED, outcome

if TYPE_CHECKING:
    from collections.abc import Iterator


pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")  # apprise's own


@pytest.fixture
def inbox() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    received: list[dict[str, Any]] = []

    class Inbox(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Inbox)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"json://127.0.0.1:{server.server_port}/", received
    server.shutdown()
    server.server_close()


def test_a_failure_is_sent(inbox: tuple[str, list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("apprise", reason="the extra `notify` is not installed")
    address, received = inbox
    monkeypatch.setenv("KRNK_NOTIFY", address)
    assert notify.send([FAILED], 5.0) == ""
    assert received[0]["title"] == "krnk-locon: failed"
    assert received[0]["type"] == "failure"
    assert received[0]["message"] == "1 failed in 0 min\nkrnk-locon/train: the disk is full"


def test_a_long_run_is_sent_and_a_short_one_is_not(
    inbox: tuple[str, list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("apprise", reason="the extra `notify` is not installed")
    address, received = inbox
    monkeypatch.setenv("KRNK_NOTIFY", address)
    assert notify.send([outcome(Status.DONE)], 5.0) == ""
    assert notify.send([outcome(Status.CACHED)], 500.0) == ""
    assert received == []
    assert notify.send([outcome(Status.DONE)], 500.0) == ""
    assert received[0]["title"] == "krnk-locon: done"


def test_nothing_is_sent_without_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KRNK_NOTIFY", raising=False)
    assert notify.addresses() == ()
    assert notify.send([FAILED], 5.0) == ""


def test_a_wrong_address_is_reported_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("apprise", reason="the extra `notify` is not installed")
    monkeypatch.setenv("KRNK_NOTIFY", "nosuch://user:secret@host")
    message = notify.send([FAILED], 5.0)
    assert "nosuch://…" in message
    assert "secret" not in message


def test_the_setting_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KRNK_NOTIFY", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    path = Path(settings.config_file())
    path.parent.mkdir(parents=True)
    path.write_text('notify = ["ntfy://a", "ntfy://b"]\n', "utf-8")
    assert notify.addresses() == ("ntfy://a", "ntfy://b")
    path.write_text("notify = 3\n", "utf-8")
    with pytest.raises(RecipeError, match="address of apprise"):
        notify.addresses()
