"""Measure costs and print them as one table.

``python -m benchmarks [AREA…] [--readme] [--last]``: ratios stand side by side, each from one run.

Without names, all areas are measured. The numbers go to build/bench/results.json (machine, versions, medians); measured alone,
an area replaces its own rows there. ``--readme`` also writes the table between the markers of README.md, and the numbers
beside this program; ``--last`` measures nothing and takes the numbers of the last run.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import AREAS

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "build" / "bench" / "results.json"
KEPT = ROOT / "benchmarks" / "results.json"
PACKAGES = ("krnk", "numpy", "torch", "diffusers", "lycoris-lora", "pydantic", "ray", "typer")
BEGIN, END = "<!-- bench -->", "<!-- /bench -->"


def measure(area: str) -> dict[str, Any] | None:
    """Return an area's rows, time and load, or None without its needs.

    SystemExit: it fails.
    """
    print(f"measuring: {area}, {AREAS[area]} minutes at most", file=sys.stderr, flush=True)
    load, at, begun = os.getloadavg()[0], time.gmtime(), time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "rows.json"
        child = subprocess.Popen([sys.executable, "-m", "benchmarks.one", area, str(file)], cwd=ROOT, start_new_session=True)
        try:
            code = child.wait(60 * AREAS[area])
        except subprocess.TimeoutExpired:
            raise SystemExit(f"{area} took more than {AREAS[area]} minutes") from None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        if code not in (0, 3):
            raise SystemExit(f"{area} failed")
        if code:
            return None
        rows = json.loads(file.read_text("utf-8"))
    took = round(time.monotonic() - begun, 1)
    return {"at": time.strftime("%Y-%m-%d %H:%M UTC", at), "load_before": round(load, 2), "seconds": took, "rows": rows}


def machine() -> dict[str, Any]:
    """Return the machine and the versions behind the numbers."""
    cpu = next(
        (line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), platform.processor()
    )
    versions: dict[str, str] = {}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    system = f"{platform.system()} {platform.machine()}"
    return {"cpu": cpu, "cores": os.cpu_count(), "system": system, "python": platform.python_version(), "packages": versions}


def _lines(path: str) -> list[str]:
    return Path(path).read_text("utf-8", "replace").splitlines() if Path(path).exists() else []


def table(results: dict[str, Any]) -> str:
    """Return the results as Markdown: machine, kept promises, one table."""
    host, areas = results["machine"], [(area, results["areas"][area]) for area in AREAS if area in results["areas"]]
    rows = [row for _, result in areas for row in result["rows"]]
    promised = [row["kept"] for row in rows if row["kept"] is not None]
    loads = [result["load_before"] for _, result in areas]
    where = f"{host['cores']} cores ({host['cpu']}), Python {host['python']}"
    when = min(result["at"] for _, result in areas)
    how = f"load {min(loads):.1f} to {max(loads):.1f} before each area; medians"
    lines = [
        f"Measured {when} on {where}, {how}. {sum(promised)} of {len(promised)} promises kept.",
        "",
        "| what | measured | promised | beside | |",
        "| --- | ---: | ---: | --- | --- |",
    ]
    for area, result in areas:
        lines.append(f"| **{area}** | | | | |")
        lines += [_line(row) for row in result["rows"]]
    return "\n".join(lines)


def _line(row: dict[str, Any]) -> str:
    allowed = f"{row['allowed']:.2f} {row['unit']}".strip() if row["allowed"] is not None else ""
    beside = row["beside"]
    if row["processor"] is not None:
        beside = f"{row['processor']:.2f} s of processor time" + (f"; {beside}" if beside else "")
    kept = {True: "kept", False: "**missed**", None: ""}[row["kept"]]
    return f"| {row['what']} | {row['measured']:.2f} {row['unit']} | {allowed} | {beside} | {kept} |"


def readme(results: dict[str, Any]) -> None:
    """Write the README's table, and its numbers beside this program."""
    path = ROOT / "README.md"
    text = path.read_text("utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    if not rest or END not in rest:
        raise SystemExit(f"{path} has no {BEGIN} … {END}")
    path.write_text(f"{before}{BEGIN}\n{table(results)}\n{END}{after}", "utf-8")
    KEPT.write_text(json.dumps(results, indent=1) + "\n", "utf-8")


def main() -> int:
    """Measure, print and keep. Return 1 if a promise was not kept."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__, formatter_class=form)
    parser.add_argument("areas", nargs="*", metavar="AREA", help=", ".join(AREAS))
    parser.add_argument("--readme", action="store_true", help="also write the README's table")
    parser.add_argument("--last", action="store_true", help="measure nothing: the numbers of the last run")
    options = parser.parse_args()
    unknown = set(options.areas) - set(AREAS)
    if unknown:
        parser.error(f"no such area: {', '.join(sorted(unknown))}")
    last = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() and (options.areas or options.last) else {"areas": {}}
    if options.last and not last["areas"]:
        parser.error("nothing was measured yet: python -m benchmarks")
    results = last if options.last else {"machine": machine(), "areas": last["areas"]}
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    failed = []
    for area in [] if options.last else options.areas or AREAS:
        try:
            result = measure(area)
        except SystemExit as error:  # the other areas are still measured
            failed.append(str(error))
            continue
        if result:
            results["areas"][area] = result
            RESULTS.write_text(json.dumps(results, indent=1) + "\n", "utf-8")  # earlier areas are kept if a later one fails
    print("\n".join(failed), file=sys.stderr)
    if not results["areas"]:
        return 1
    if options.readme:
        readme(results)
    shown = {area: result for area, result in results["areas"].items() if area in (options.areas or AREAS)}
    if shown:
        print(table({**results, "areas": shown}))
        print(f"\n{RESULTS}", file=sys.stderr)
    return int(bool(failed) or any(row["kept"] is False for result in results["areas"].values() for row in result["rows"]))


if __name__ == "__main__":
    sys.exit(main())
