"""The page while a run goes on: served on loopback only, refreshing its state, bars and curves by itself."""

from __future__ import annotations

import json
import re
import sys
import tempfile
import threading
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.errors import NotReady, OrchestratorError, Problem
from orchestrator.report import collect, page

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from orchestrator.recipe.loader import Loaded

_PICTURE = re.compile(r"^/img/([0-9a-f]{20}\.webp)$")
_POLICY = "default-src 'none'; img-src 'self' data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'"


Read = tuple["Sequence[Loaded]", "dict[str, Any]"]
"""Recipes, and what ``plan --json`` prints of them."""


class Changes:
    """Reads recipes and plan again when a file below a folder has changed; while they have mistakes, nothing has."""

    def __init__(self, folder: Path, read: Callable[[], Read]) -> None:
        """Watch the TOML files below ``folder``, which have just been read."""
        self._folder, self._read = folder, read
        self._mark = self._now()

    def _now(self) -> list[tuple[str, int]]:
        return sorted((str(path), path.stat().st_mtime_ns) for path in self._folder.rglob("*.toml"))

    def __call__(self) -> Read | None:
        """Return recipes and plan if they are others than at the last call."""
        try:
            mark = self._now()
            if mark == self._mark:
                return None
            self._mark = mark
            return self._read()
        except (OSError, OrchestratorError):
            return None


class Site:
    """What the server answers with: the page anew at each call, and the parts of it that move."""

    def __init__(
        self,
        root: Path,
        recipes: Sequence[Loaded],
        folder: Path,
        plan: dict[str, Any] | None = None,
        again: Callable[[], Read | None] | None = None,
    ) -> None:
        """Show ``recipes`` of the store at ``root``; pictures are made in ``folder``.

        ``again`` is asked before each answer for recipes and plan anew; None: nothing has changed.
        """
        self._root, self._recipes, self._plan = root, recipes, plan
        self._again = again
        self.folder = folder
        self._lock = threading.Lock()

    def _described(self, *, draw: bool) -> dict[str, Any]:
        with self._lock:
            if self._again is not None and (read := self._again()) is not None:
                self._recipes, self._plan = read
            found = collect.gather(self._root, self._recipes, self._plan)
            return page.described(found, self.folder, live=True, draw=draw)

    def page(self) -> bytes:
        """Return the whole page."""
        return page.render(self._described(draw=True)).encode()

    def refresh(self) -> bytes:
        """Return {"version", "parts": {id: html}}: what changes while a step runs."""
        return json.dumps(page.moving(self._described(draw=False))).encode()


class _Answers(BaseHTTPRequestHandler):
    """GET of the page, its moving parts and its pictures; nothing else exists."""

    def __init__(self, site: Site, *args: Any) -> None:
        self._site = site
        super().__init__(*args)

    def do_GET(self) -> None:
        """Answer one request."""
        host = (self.headers.get("Host") or "").rpartition(":")[0]
        if host not in ("127.0.0.1", "localhost", "[::1]"):  # another name that leads here: a page elsewhere asks for ours
            self.send_error(HTTPStatus.FORBIDDEN)
            return
        path = self.path.partition("?")[0]
        picture = _PICTURE.match(path)
        if path in ("/", "/index.html"):
            self._send(self._site.page(), "text/html; charset=utf-8")
        elif path == "/refresh.json":
            self._send(self._site.refresh(), "application/json")
        elif picture and (self._site.folder / picture[1]).is_file():
            self._send((self._site.folder / picture[1]).read_bytes(), "image/webp", keep=True)
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    def _send(self, data: bytes, kind: str, *, keep: bool = False) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Cache-Control", "max-age=86400, immutable" if keep else "no-store")
        self.send_header("Content-Security-Policy", _POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Say nothing: the terminal belongs to the run."""


def server(site: Site, port: int = 0) -> ThreadingHTTPServer:
    """Return a server on loopback at ``port`` (0: any free one); ``NotReady`` if the port is taken."""
    try:
        return ThreadingHTTPServer(("127.0.0.1", port), partial(_Answers, site))
    except OSError as error:
        raise NotReady(
            Problem(f"--port {port}", f"cannot be served: {error.strerror}", "--port 0 takes any that is free")
        ) from error


def serve(root: Path, folder: Path, read: Callable[[], Read], *, port: int = 0) -> None:
    """Serve the store at ``root`` until ^C; ``read`` gives recipes and plan, anew when a recipe below ``folder`` changes."""
    recipes, plan = read()
    again = Changes(folder, read)
    with (
        tempfile.TemporaryDirectory(prefix="report-") as place,
        server(Site(root, recipes, Path(place) / "img", plan, again), port) as serving,
    ):
        print(f"http://127.0.0.1:{serving.server_port}/   ^C ends it", file=sys.stderr, flush=True)
        try:
            serving.serve_forever()
        except KeyboardInterrupt:
            return
