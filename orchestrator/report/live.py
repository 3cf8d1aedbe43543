"""Serve the report on loopback.

Its page fetches itself every few seconds and shows the parts that have changed.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
import threading
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator import report
from orchestrator.errors import NotReady, OrchestratorError, Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from orchestrator.recipe.loader import Loaded

Read = tuple["Sequence[Loaded]", "dict[str, Any]"]
"""Recipes, and the output of ``plan --json`` for them."""
_POLICY = "default-src 'none'; img-src 'self' data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'"
_LOCK = threading.Lock()


class _Handler(SimpleHTTPRequestHandler):
    """Answers with the page, written at each request, and with its images."""

    def __init__(self, write: Callable[[Path], None], *args: Any, directory: str) -> None:
        self._write = write
        super().__init__(*args, directory=directory)

    def send_head(self) -> Any:
        host = (self.headers.get("Host") or "").rpartition(":")[0]
        if host not in ("127.0.0.1", "localhost", "[::1]"):  # a page elsewhere whose name leads here asks for ours
            return self.send_error(HTTPStatus.FORBIDDEN)
        if self.path in ("/", "/index.html"):
            with _LOCK:
                self._write(Path(self.directory, "index.html"))
        return super().send_head()

    def list_directory(self, _: Any) -> None:
        self.send_error(HTTPStatus.NOT_FOUND)

    def guess_type(self, path: Any) -> str:
        return "image/webp" if str(path).endswith(".webp") else "text/html; charset=utf-8"

    def end_headers(self) -> None:
        self.send_header("Content-Security-Policy", _POLICY)
        super().end_headers()

    def log_message(self, *_: Any) -> None:
        """Print nothing: the terminal belongs to the run."""


def server(write: Callable[[Path], None], folder: Path, port: int = 0) -> ThreadingHTTPServer:
    """Return a server on loopback for the page that ``write`` writes.

    Raises:
        NotReady: the port is taken.
    """
    try:
        return ThreadingHTTPServer(("127.0.0.1", port), partial(_Handler, write, directory=str(folder)))
    except OSError as error:
        hint = "--port 0 takes any that is free"
        raise NotReady(Problem(f"--port {port}", f"cannot be served: {error.strerror}", hint)) from error


def writer(root: Path, read: Callable[[], Read]) -> Callable[[Path], None]:
    """Return a function that writes the page of a store to a path."""
    content = read()

    def write(path: Path) -> None:
        nonlocal content
        with contextlib.suppress(OSError, OrchestratorError):  # a recipe is being edited: as it was before
            content = read()
        report.write(root, content[0], path, plan=content[1], measure=False, live=True)

    return write


def serve(root: Path, read: Callable[[], Read], port: int) -> None:
    """Serve the page of the store at ``root`` until ^C."""
    with tempfile.TemporaryDirectory(prefix="report-") as folder, server(writer(root, read), Path(folder), port) as serving:
        print(f"http://127.0.0.1:{serving.server_port}/   ^C ends it", file=sys.stderr, flush=True)
        try:
            serving.serve_forever()
        except KeyboardInterrupt:
            return
