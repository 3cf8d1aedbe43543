"""The report of 15 finished recipes with 512-pixel pictures: build time, size, first paint (needs Playwright and Chromium)."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import made_runs
from PIL import Image

from benchmarks import Row
from orchestrator import report


def page(place: Path) -> list[Row]:
    """Make the runs, then the page of them, twice."""
    runs = place / "runs"
    recipes = made_runs.recipes()
    with contextlib.redirect_stdout(io.StringIO()):
        made_runs.collection(runs, [each.recipe.name for each in recipes])
    for path in runs.glob("*/render-*/*.png"):
        with Image.open(path) as image:
            noisy = Image.effect_noise((512, 512), 40).convert("RGB")
            Image.blend(image.convert("RGB").resize((512, 512)), noisy, 0.25).save(path)
    said = made_runs.plan_json(runs)
    out = runs / "report" / "index.html"
    times = []
    for _ in range(2):
        start = time.perf_counter()
        report.write(runs, recipes, out, plan=said)
        times.append(time.perf_counter() - start)
    size = sum(path.stat().st_size for path in (out, *(out.parent / "img").iterdir())) / 1e6
    found = [
        Row("report of 15 recipes, first time", times[0], 5.0),
        Row("report again", times[1], 5.0),
        Row("report, size", size, 15.0, "MB"),
    ]
    painted = first_paint(out)
    return [*found, Row("first paint in Chromium", painted, 1.0)] if painted is not None else found


def first_paint(path: Path) -> float | None:
    """Return the first contentful paint from disk in seconds, the best of three; None without Playwright or Chromium."""
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if chromium is None or importlib.util.find_spec("playwright") is None:
        return None
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - where it is installed

    times: list[Any] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-dev-shm-usage"])
        for _ in range(3):
            tab = browser.new_page()
            tab.goto(path.as_uri())
            times.append(tab.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime"))
            tab.close()
        browser.close()
    return float(min(times)) / 1000


def rows() -> list[Row]:
    """Measure."""
    with tempfile.TemporaryDirectory(prefix="bench-report-") as place:
        return page(Path(place))
