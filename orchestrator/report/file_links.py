"""List the files of a recipe's steps, with links from the page."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from orchestrator.release.facts import weights_of
from orchestrator.run.paths import LOG, PROGRESS, RECORD

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.report.collect import Member, StepView

JSON = dict[str, Any]


def steps(root: Path, member: Member, page: Path | None) -> list[JSON]:
    """Return the folder and the existing files of each step with a folder.

    An entry has ``name``, ``folder`` and ``files``. Each of them has ``text`` and ``url``.

    Args:
        root: the store.
        member: the recipe and its steps.
        page: the folder of the page, from which the links lead. None: without links.
    """
    entries: list[JSON] = []
    for step in member.steps.values():
        if step.folder is None:
            continue
        folder = {"text": os.path.relpath(step.folder, root.parent) + "/", "url": _url(step.folder, page)}
        files = [{"text": path.name, "url": _url(path, page)} for path in _files(step, step.folder)]
        entries.append({"name": step.name, "folder": folder, "files": files})
    return entries


def _files(step: StepView, folder: Path) -> list[Path]:
    weights = weights_of(step.record)[0] if step.record else ""
    return [path for name in (LOG, PROGRESS, RECORD, weights) if name and (path := folder / name).is_file()]


def _url(path: Path, page: Path | None) -> str:
    """Return a relative URL, so that a copied store keeps its links."""
    return quote(os.path.relpath(path.resolve(), page.resolve())) if page is not None else ""
