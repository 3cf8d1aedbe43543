"""The page while it is served."""

from __future__ import annotations

import http.client
import json
import re
import threading
from typing import TYPE_CHECKING

import pytest

import made_runs
from orchestrator.errors import Problem, RecipeError
from orchestrator.report import live
from report_store import broken_runs, loaded, plan

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    broken_runs(tmp_path, 1)
    write = live.writer(tmp_path, lambda: (loaded(), plan(tmp_path)))
    with live.server(write, tmp_path / "page") as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port, tmp_path
        server.shutdown()
        thread.join()


def ask(port: int, path: str, host: str = "") -> tuple[int, bytes, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path, headers={"Host": host or f"127.0.0.1:{port}"})
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    return answer.status, data, {name.title(): value for name, value in answer.getheaders()}


def test_the_live_page_reads_recipes_again_when_they_change(tmp_path: Path) -> None:
    recipes, page_ = loaded(), tmp_path / "page" / "index.html"

    def read() -> live.Read:
        if not recipes:
            raise RecipeError(Problem("a.toml", "is wrong"))
        return list(recipes), {}

    write = live.writer(tmp_path / "runs", read)
    write(page_)
    assert "krnk-locon" in page_.read_text("utf-8")
    every = recipes.copy()
    recipes.clear()  # a mistake: the page stays as it was
    write(page_)
    assert "krnk-locon" in page_.read_text("utf-8")
    recipes.append(every[0])
    write(page_)
    assert "krnk-lora3x3" in page_.read_text("utf-8")
    assert "krnk-locon" not in page_.read_text("utf-8")


def test_the_live_page_follows_the_files(serving: tuple[int, Path]) -> None:
    port, root = serving
    status, data, headers = ask(port, "/")
    assert status == 200
    assert b'data-live="1"' in data
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert b"40 of 100" in data
    path = next(root.glob("krnk-locon/.partial/train-*")) / "progress.jsonl"
    with path.open("a") as file:
        file.write("\n" + json.dumps({"done": 55, "total": 100, "loss": 0.05, "lr": 1e-4}) + "\n")
    data = ask(port, "/")[1]
    assert b"55 of 100" in data
    assert b"now 0.0500" in data
    assert re.findall(rb'src="(img/[0-9a-f]+\.webp)"', data) == []
    made_runs.render(root, made_runs.loaded("krnk-loha").recipe)
    urls = re.findall(rb'src="(img/[0-9a-f]+\.webp)"', ask(port, "/index.html")[1])
    assert urls
    assert ask(port, "/" + urls[0].decode())[2]["Content-Type"] == "image/webp"


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/img/",
        "/img/../secret",
        "/img/x.webp",
        "/%2e%2e/etc/passwd",
        "/img/" + "0" * 20 + ".webp",
        "/..//etc/passwd",
    ],
)
def test_nothing_else_is_served(serving: tuple[int, Path], path: str) -> None:
    assert ask(serving[0], path)[0] == 404


def test_other_host_names_are_refused(serving: tuple[int, Path]) -> None:
    assert ask(serving[0], "/", host="evil.example:80")[0] == 403


def test_the_live_page_is_served_through_a_tunnel_of_another_port(serving: tuple[int, Path]) -> None:
    assert ask(serving[0], "/", host="localhost:9000")[0] == 200


def test_it_listens_on_loopback_only(serving: tuple[int, Path], tmp_path: Path) -> None:
    with live.server(lambda _: None, tmp_path) as server:
        assert server.server_address[0] == "127.0.0.1"
