"""The store of three recipes that the report's tests show."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import made_runs

if TYPE_CHECKING:
    from pathlib import Path


NAMES = ["krnk-lora3x3", "krnk-locon", "krnk-loha"]


def loaded() -> list[Any]:
    return [made_runs.loaded(name) for name in NAMES]


def plan(runs: Path) -> dict[str, Any]:
    whole = made_runs.plan_json(runs)
    shared = [step for step in whole["shared"] if step["name"] == "krnk/grid"]
    return {"recipes": [entry for entry in whole["recipes"] if entry["name"] in NAMES], "shared": shared}


def broken_runs(tmp_path: Path, code: int | None) -> Path:
    """Return a store in which the training of krnk-locon has begun.

    It has ended with ``code`` if there is one.
    """
    work = tmp_path / "krnk-locon" / ".partial" / f"train-{made_runs.key('krnk-locon/train')[:12]}"
    work.mkdir(parents=True)
    lines = [{"t": 1, "done": n, "total": 100, "loss": 0.1, "lr": 1e-4, "note": ""} for n in range(1, 41)]
    (work / "progress.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"t": 2, "do', "utf-8")
    (work / "log.txt").write_text("loading\rstep 1\rstep 2\n<b>RuntimeError</b>: no memory\n", "utf-8")
    if code is not None:
        (work / "exit.json").write_text(json.dumps({"code": code}), "utf-8")
    return work


class Page(HTMLParser):
    """Collects a page's requests, ids and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.urls: list[str] = []
        self.ids: list[str] = []
        self.anchors: list[str] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "img":
            self.images.append(values)
        self.urls += [value for key, value in attrs if key in ("src", "data-full", "poster", "action") and value]
        if tag in ("link", "script") and values.get("href"):
            self.urls.append(str(values["href"]))
        if tag == "a":
            self.anchors.append(str(values.get("href")))
        if values.get("id"):
            self.ids.append(str(values["id"]))

    def handle_data(self, data: str) -> None:
        self.words.append(data)
