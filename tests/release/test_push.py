from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
import yaml

import made_runs
from orchestrator.errors import RecipeError, StepFailed
from orchestrator.release import push

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass
class Hub:
    """A stand-in for the Hub on loopback: create, preupload, LFS, commit."""

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    created: list[dict[str, Any]] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    message: str = ""
    refuse: bool = False


def answers(hub: Hub) -> type[BaseHTTPRequestHandler]:  # noqa: C901 - one branch an address
    class Answers(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def say(self, value: Any, status: int = 200) -> None:
            data = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def read(self) -> bytes:
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))

        def do_POST(self) -> None:
            data = self.read()
            hub.tokens.add(self.headers.get("Authorization", ""))
            if hub.refuse:
                self.say({"error": "Invalid credentials"}, 401)
            elif self.path == "/api/repos/create":
                hub.created.append(json.loads(data))
                self.say({"url": f"{hub.address}/someone/cats", "name": "cats"})
            elif self.path == "/api/validate-yaml":
                head = yaml.safe_load(json.loads(data)["content"].split("---\n")[1])
                self.say({"errors": [] if head["instance_prompt"] else [{"message": "no prompt"}], "warnings": []})
            elif self.path.endswith("/preupload/main"):
                files = json.loads(data)["files"]
                kinds = [{"path": f["path"], "uploadMode": mode(f["path"]), "shouldIgnore": False} for f in files]
                self.say({"files": kinds})
            elif self.path.endswith("/info/lfs/objects/batch"):
                objects = [
                    {"oid": o["oid"], "size": o["size"], "actions": {"upload": {"href": f"{hub.address}/put/{o['oid']}"}}}
                    for o in json.loads(data)["objects"]
                ]
                self.say({"transfer": "basic", "objects": objects})
            elif self.path.endswith("/commit/main"):
                self.commit([json.loads(line) for line in data.splitlines()])
                self.say({"commitUrl": f"{hub.address}/someone/cats/commit/1", "commitOid": "1" * 40, "success": True})
            else:
                self.say({"error": self.path}, 404)

        def do_PUT(self) -> None:
            hub.blobs[self.path.rpartition("/")[2]] = self.read()
            self.say({})

        def do_GET(self) -> None:
            self.say({"id": "someone/cats", "sha": "0" * 40, "siblings": []})

        def commit(self, lines: list[dict[str, Any]]) -> None:
            for line in lines:
                value = line["value"]
                if line["key"] == "header":
                    hub.message = value["summary"]
                elif line["key"] == "file":
                    hub.files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    hub.files[value["path"]] = hub.blobs[value["oid"]]

    return Answers


def mode(path: str) -> str:
    return "lfs" if path.endswith((".safetensors", ".png", ".webp")) else "regular"


@pytest.fixture
def hub() -> Iterator[Hub]:
    made = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), answers(made))
    made.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield made
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_runs.collection(tmp_path_factory.mktemp("runs"), ["krnk-locon", "krnk-loha"])


def run(hub: Hub, *argv: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "HF_ENDPOINT": hub.address, "HF_HUB_OFFLINE": "0", "HF_TOKEN": "hf_test", "HF_HUB_DISABLE_XET": "1"}
    env |= {"NO_PROXY": "*", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    return subprocess.run(
        [sys.executable, "-m", "orchestrator", *argv], env=env, capture_output=True, text=True, check=False, timeout=60
    )


def test_without_yes_nothing_is_sent(hub: Hub, bundle: Path) -> None:
    done = run(hub, "push", str(bundle), "--repo", "someone/cats")
    assert done.returncode == 0, done.stderr
    assert "would be uploaded to someone/cats" in done.stdout
    assert "krnk-locon.safetensors" in done.stdout
    assert hub.created == []
    assert hub.files == {}
    assert hub.tokens == set()


def test_with_yes_every_file_arrives_whole_in_one_commit(hub: Hub, bundle: Path) -> None:
    done = run(hub, "push", str(bundle), "--repo", "someone/cats", "--private", "--yes")
    assert done.returncode == 0, done.stderr
    manifest = json.loads((bundle / "manifest.json").read_text("utf-8"))
    assert set(hub.files) == {*manifest["files"], "manifest.json", "SHA256SUMS"}
    for name, data in hub.files.items():
        assert hashlib.sha256(data).digest() == hashlib.sha256((bundle / name).read_bytes()).digest(), name
    assert hub.created[0]["private"] is True
    assert hub.tokens == {"Bearer hf_test"}
    assert hub.message.startswith("Release release-")
    assert "record.json" not in hub.files


def test_a_refusal_names_the_next_command(hub: Hub, bundle: Path) -> None:
    hub.refuse = True
    done = run(hub, "push", str(bundle), "--repo", "someone/cats", "--yes")
    assert done.returncode != 0
    assert "the Hub refused it: 401" in done.stderr
    assert "hf auth login" in done.stderr
    assert "hf_test" not in done.stderr + done.stdout


def test_a_bundle_that_does_not_verify_is_not_pushed(tmp_path: Path) -> None:
    made = made_runs.released(tmp_path, "krnk-locon")
    (made / "README.md").write_text("changed", "utf-8")
    with pytest.raises(StepFailed, match=r"README\.md"):
        push.push(made, "someone/cats")


@pytest.mark.parametrize("entry", [7, {}, {"sha256": None}])
def test_a_manifest_that_names_a_file_outside_sends_nothing(tmp_path: Path, entry: Any) -> None:
    made = made_runs.released(tmp_path, "krnk-locon")
    (made.parent / "secret").write_text("mine", "utf-8")
    manifest = json.loads((made / "manifest.json").read_text("utf-8"))
    manifest["files"]["../secret"] = entry
    (made / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    sums = (made / "SHA256SUMS").read_text("utf-8").splitlines()
    own = f"{hashlib.sha256((made / 'manifest.json').read_bytes()).hexdigest()}  manifest.json"
    lines = [own if line.endswith("  manifest.json") else line for line in sums]
    (made / "SHA256SUMS").write_text("\n".join(lines) + "\n", "utf-8")
    with pytest.raises(StepFailed, match=r"manifest\.json and SHA256SUMS agree  \.\./secret"):
        push.push(made, "someone/cats")


@pytest.mark.parametrize("changes", [{"members": ["x"]}, {"members": {"x": 1}}, {"recipe": {"release": None}}])
def test_an_untrusted_manifest_names_no_repository(tmp_path: Path, changes: dict[str, Any]) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps(changes), "utf-8")
    with pytest.raises(RecipeError, match="OWNER/NAME"):
        push.push(tmp_path)


@pytest.mark.parametrize("repo", ["", "cats", "a/b/c"])
def test_a_repository_must_be_named(bundle: Path, repo: str) -> None:
    with pytest.raises(RecipeError, match="OWNER/NAME"):
        push.push(bundle, repo)
