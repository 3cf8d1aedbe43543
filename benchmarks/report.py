"""Release and report, measured: the bundle beside `sha256sum` of its files, the page's build time, size and first paint.

``python -m benchmarks.report`` makes a release of 15 files of the real sizes (random bytes, the real layout) and a store of 15
finished recipes with 512-pixel pictures, in a temporary folder of about 4 GB. First paint needs Playwright and Chromium.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import made_runs  # noqa: E402 - it lies with the tests
from PIL import Image  # noqa: E402

from orchestrator import release, report  # noqa: E402
from orchestrator.weights.files import Entry, canonical, encode_header  # noqa: E402

MIB = {"lora3x3": 40, "locon": 203, "loha": 96}  # as the seed's card lists them


def heavy(path: Path, megabytes: int) -> None:
    """Write a LoRA file of so many MiB: LINEAR's modules with large factors of random bytes."""
    names = [f"{name}.lora_{part}.weight" for name in made_runs.LINEAR for part in ("down", "up")]
    rows = megabytes * 2**20 // len(names) // 2 // 1024
    entries = canonical(Entry(name, "F16", (rows, 1024)) for name in names)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(encode_header(entries, {"ss_steps": "1000"}))
        for _ in entries:
            file.write(os.urandom(1 << 20) * (rows * 2048 >> 20) + os.urandom(rows * 2048 & 0xFFFFF))


def bundle(place: Path) -> list[tuple[str, float, float]]:
    """Return (what, measured, allowed) for the collection of 15 files, in seconds."""
    members = []
    for each in made_runs.recipes():
        recipe = each.recipe
        asked = made_runs.request(place / "runs", recipe)
        heavy(place / "heavy" / f"{recipe.name}.safetensors", MIB[recipe.algorithm])
        asked["lora"] = str(place / "heavy" / f"{recipe.name}.safetensors")
        with contextlib.redirect_stdout(io.StringIO()):
            if made_runs.call(release, place / "request.json", asked):
                raise SystemExit(f"{recipe.name} could not be released")
        Path(asked["lora"]).unlink()
        members.append({"recipe": asked["recipe"], "folder": asked["output"]})
    out = place / "bundle"
    asked = {"kind": "collection", "output": str(out), "name": "krnk_tyank", "members": members, "grids": []}
    (place / "request.json").write_text(json.dumps(asked), "utf-8")
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "orchestrator.release", str(place / "request.json")], check=True, stdout=subprocess.DEVNULL
    )
    took = time.perf_counter() - start
    start = time.perf_counter()
    subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=out, check=True)  # noqa: S607
    hashing = time.perf_counter() - start
    return [("sha256sum of the bundle's files, s", hashing, 0.0), ("15-file bundle written, s", took, 2 * hashing + 2)]


def page(place: Path) -> list[tuple[str, float, float]]:
    """Return (what, measured, allowed) for the report of 15 recipes: s, s, MB, s."""
    runs = place / "runs"
    for each in made_runs.recipes():
        for path in runs.glob(f"{each.recipe.name}/render-*/*.png"):
            with Image.open(path) as image:
                noisy = Image.effect_noise((512, 512), 40).convert("RGB")
                Image.blend(image.convert("RGB").resize((512, 512)), noisy, 0.25).save(path)
    said = made_runs.plan_json(runs)
    out = runs / "report" / "index.html"
    times = []
    for _ in range(2):
        start = time.perf_counter()
        report.write(runs, made_runs.recipes(), out, plan=said)
        times.append(time.perf_counter() - start)
    size = sum(path.stat().st_size for path in (out, *(out.parent / "img").iterdir())) / 1e6
    found = [
        ("report of 15 recipes, first time, s", times[0], 5.0),
        ("report again, s", times[1], 5.0),
        ("report, MB", size, 15.0),
    ]
    painted = first_paint(out)
    return [*found, ("first paint in Chromium, s", painted, 1.0)] if painted is not None else found


def first_paint(path: Path) -> float | None:
    """Return the first contentful paint from disk in seconds, the best of three; None without Playwright or Chromium."""
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if chromium is None or importlib.util.find_spec("playwright") is None:
        return None
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - where it is installed

    times: list[Any] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for _ in range(3):
            tab = browser.new_page()
            tab.goto(path.as_uri())
            times.append(tab.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime"))
            tab.close()
        browser.close()
    return float(min(times)) / 1000


def main() -> int:
    """Measure, print one table, and return 1 if a number is above what is allowed."""
    with tempfile.TemporaryDirectory(prefix="bench-report-") as place:
        rows = [*bundle(Path(place)), *page(Path(place))]
    for what, value, allowed in rows:
        print(f"{what:40} {value:8.2f}" + (f"   allowed {allowed:6.2f}" if allowed else ""))
    return int(any(allowed and value > allowed for _, value, allowed in rows))


if __name__ == "__main__":
    sys.exit(main())
