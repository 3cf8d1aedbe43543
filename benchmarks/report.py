"""The report of 15 recipes: build time, size, first paint.

The pictures have 512 pixels. First paint needs Playwright and Chromium.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from PIL import Image

import made_runs
from benchmarks import Row
from orchestrator import report

SIDE = 512  # pixels of a picture


def page(folder: Path) -> list[Row]:
    """Make the runs, then the page of them, twice."""
    runs = folder / "runs"
    recipes = made_runs.recipes()
    with contextlib.redirect_stdout(io.StringIO()):
        made_runs.collection(runs, [each.recipe.name for each in recipes])
    for path in runs.glob("*/render-*/*.png"):
        with Image.open(path) as image:
            noisy = Image.effect_noise((SIDE, SIDE), 40).convert("RGB")
            Image.blend(image.convert("RGB").resize((SIDE, SIDE)), noisy, 0.25).save(path)
    plan = made_runs.plan_json(runs)
    out = runs / "report" / "index.html"
    times, processor = [], []
    for _ in range(2):
        start, used = time.perf_counter(), time.process_time()
        report.write(runs, recipes, out, plan=plan)
        times.append(time.perf_counter() - start)
        processor.append(time.process_time() - used)
    size = sum(path.stat().st_size for path in (out, *(out.parent / "img").iterdir())) / 1e6
    rows = [
        Row("report of 15 recipes, first time", times[0], 5.0, processor=processor[0]),
        Row("report again", times[1], 5.0, processor=processor[1]),
        Row("report, size", size, 15.0, "MB"),
    ]
    painted = first_paint(out)
    if painted is None:
        return rows
    beside = "PerformancePaintTiming, from disk, the slowest of three"
    return [*rows, Row("first paint in headless Chromium", painted, 1.0, beside=beside)]


def first_paint(path: Path) -> float | None:
    """Return the slowest of three first contentful paints, in seconds.

    The page comes from disk. None: there is no Playwright or Chromium.
    """
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if chromium is None or importlib.util.find_spec("playwright") is None:
        print("report: first paint left out, it needs Debian's chromium and Playwright (make test-browser)", file=sys.stderr)
        return None
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - where it is installed

    times: list[Any] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-dev-shm-usage"])
        for _ in range(3):
            tab = browser.new_page()
            tab.goto(path.as_uri())
            tab.wait_for_function("performance.getEntriesByName('first-contentful-paint').length")  # may follow the load event
            times.append(tab.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime"))
            tab.close()
        browser.close()
    return float(max(times)) / 1000


def rows() -> list[Row]:
    """Measure."""
    with tempfile.TemporaryDirectory(prefix="bench-report-") as folder:
        return page(Path(folder))
