"""fetch-base against a stand-in for the Hub on this machine, through the real huggingface_hub."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import pytest

from orchestrator.errors import RecipeError
from orchestrator.run import fetch_base
from orchestrator.run.workspace import Selection, Workspace

if TYPE_CHECKING:
    from collections.abc import Iterator

BODY = b"model" * 40_000
DIGEST = hashlib.sha256(BODY).hexdigest()
RECIPE = """
extends = ["_base/release-2023-03", "_algorithms/loha", "_base/face"]
unset = ["base.vae"]
summary = "x"
subject = "x"
[base]
checkpoint = "base.safetensors"
sha256 = "{sha256}"
url = "{url}"
[dataset]
name = "x"
[dataset.sources.x]
images = "data/x"
trigger = "x"
"""


class Hub(BaseHTTPRequestHandler):
    """Serves one file of one repository as the Hub does: headers first, then bytes."""

    requests: ClassVar[list[str]] = []

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        self.requests.append(f"{self.command} {self.path}")
        if self.path != "/cats/base/resolve/main/model/base.safetensors":
            self.send_response(404)
            code = "EntryNotFound" if self.path.startswith("/cats/base/") else "RepoNotFound"
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("ETag", f'"{DIGEST}"')
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        if body:
            self.wfile.write(BODY)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def fetch(root: Path, hub: str, url: str, sha256: str = "") -> subprocess.CompletedProcess[str]:
    """Run the verb in a process of its own: huggingface_hub reads its settings when it is imported."""
    (root / "recipes").mkdir(exist_ok=True)
    (root / "recipes" / "x.toml").write_text(RECIPE.format(url=url, sha256=sha256), "utf-8")
    env = {**os.environ, "HF_ENDPOINT": hub, "HF_HUB_OFFLINE": "0", "HF_HOME": str(root / "hf"), "KRNK_PROJECT": str(root)}
    env |= {"PYTHONPATH": str(Path(__file__).resolve().parents[2]), "NO_PROXY": "127.0.0.1", "HF_HUB_DISABLE_XET": "1"}
    argv = [sys.executable, "-m", "orchestrator", "fetch-base", "x"]
    return subprocess.run(argv, env=env, cwd=root, capture_output=True, text=True, check=False, timeout=120)


def test_it_is_fetched_checked_and_found_again(tmp_path: Path, hub: str) -> None:
    done = fetch(tmp_path, hub, "hf:cats/base/model/base.safetensors", DIGEST)
    assert done.returncode == 0, done.stderr
    path = Path(done.stdout.strip())
    assert path == tmp_path / "models" / "base.safetensors"
    assert path.read_bytes() == BODY
    assert sorted(file.name for file in path.parent.iterdir()) == ["base.safetensors"]
    count = len(Hub.requests)
    space = Workspace(tmp_path)
    assert fetch_base.fetch(space.load(Selection(("x",)))[0].recipe, space.inputs, tmp_path / "models") == path
    assert len(Hub.requests) == count  # it lies there already


def test_another_file_is_refused(tmp_path: Path, hub: str) -> None:
    done = fetch(tmp_path, hub, "hf:cats/base/model/base.safetensors", "b" * 64)
    assert done.returncode == 3
    assert f"is another file: SHA-256 {DIGEST}" in done.stderr
    assert not (tmp_path / "models" / "base.safetensors").exists()


def test_a_missing_file_is_an_error(tmp_path: Path, hub: str) -> None:
    done = fetch(tmp_path, hub, "hf:cats/base/other.safetensors")
    assert done.returncode == 3
    assert "no such file in the repository" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("url", "message"), [("", "no public source"), ("https://x/y", "takes hf:"), ("hf:a/b/../c", "takes hf:")]
)
def test_a_source_that_cannot_be_read(tmp_path: Path, url: str, message: str) -> None:
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "x.toml").write_text(RECIPE.format(url=url, sha256=""), "utf-8")
    space = Workspace(tmp_path)
    with pytest.raises(RecipeError, match=message):
        fetch_base.fetch(space.load(Selection(("x",)))[0].recipe, space.inputs, tmp_path / "models")


def test_the_stand_in_gets_no_other_requests(hub: str) -> None:
    assert json.dumps(Hub.requests).count("cats") == len(Hub.requests)
    assert hub.startswith("http://127.0.0.1")
