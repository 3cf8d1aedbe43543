"""``python -m benchmarks [GROUP…] [--json FILE] [--readme] [--last]``: one table, ratios side by side, all in one run.

Groups: start, overhead, dataset, weights, report, faults, ray (only where Ray is installed). ``--readme`` also writes the
table between the markers of README.md; ``--last`` measures nothing and takes the numbers of the last run.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import Row, others

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "build" / "bench" / "results.json"
GROUPS = ("start", "overhead", "dataset", "weights", "report", "faults", "ray")
PACKAGES = ("krnk", "numpy", "torch", "diffusers", "lycoris-lora", "pydantic", "ray", "typer")
BEGIN, END = "<!-- bench -->", "<!-- /bench -->"


def measure(group: str) -> list[Row]:
    """Return the rows of one group."""
    match group:
        case "start":
            from benchmarks import start  # noqa: PLC0415

            return start.rows()
        case "overhead":
            from benchmarks import overhead  # noqa: PLC0415

            return overhead.rows()
        case "faults":
            from benchmarks import faults  # noqa: PLC0415

            return faults.rows()
        case "ray":
            if importlib.util.find_spec("ray") is None:
                print("ray: not installed (pip install '.[ray]'), left out", file=sys.stderr)
                return []
            from benchmarks import cluster  # noqa: PLC0415

            return cluster.rows()
        case _:
            return others.rows(group)


def machine() -> dict[str, Any]:
    """Return what the numbers depend on."""
    versions = {name: importlib.metadata.version(name) for name in PACKAGES if _installed(name)}
    cpu = next(
        (line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), platform.processor()
    )
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": versions,
        "load_before": round(os.getloadavg()[0], 2),
        "at": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    }


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _lines(path: str) -> list[str]:
    return Path(path).read_text("utf-8", "replace").splitlines() if Path(path).exists() else []


def table(told: dict[str, Any]) -> str:
    """Return the results as a Markdown table."""
    found = told["machine"]
    where = f"{found['cores']} cores ({found['cpu']}), Python {found['python']}"
    lines = [
        f"Measured {found['at']} on {where}, load {found['load_before']} before the start; medians.",
        "",
        "| what | measured | promised | beside | |",
        "| --- | ---: | ---: | --- | --- |",
    ]
    for row in told["rows"]:
        allowed = f"{row['allowed']:.2f} {row['unit']}" if row["allowed"] is not None else ""
        beside = row["beside"]
        if row["processor"] is not None:
            beside = f"{row['processor']:.2f} s of processor time" + (f"; {beside}" if beside else "")
        kept = {True: "kept", False: "**missed**", None: ""}[row["kept"]]
        lines.append(f"| {row['what']} | {row['measured']:.2f} {row['unit']} | {allowed} | {beside} | {kept} |")
    return "\n".join(lines)


def readme(told: dict[str, Any]) -> None:
    """Write the table between the markers of the README."""
    path = ROOT / "README.md"
    text = path.read_text("utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    if not rest or END not in rest:
        raise SystemExit(f"{path} has no {BEGIN} … {END}")
    path.write_text(f"{before}{BEGIN}\n{table(told)}\n{END}{after}", "utf-8")


def main() -> int:
    """Measure, print and keep; 1 if a promise was not kept."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=", ".join(GROUPS))
    parser.add_argument("--json", type=Path, default=RESULTS, help="where the numbers go")
    parser.add_argument("--readme", action="store_true", help="also write the README's table")
    parser.add_argument("--last", action="store_true", help="measure nothing: the numbers of the last run")
    asked = parser.parse_args()
    strange = set(asked.groups) - set(GROUPS)
    if strange:
        parser.error(f"no such group: {', '.join(sorted(strange))}")
    if asked.last:
        told = json.loads(asked.json.read_text("utf-8"))
    else:
        told = {"machine": machine(), "rows": []}
        asked.json.parent.mkdir(parents=True, exist_ok=True)
        for group in asked.groups or GROUPS:
            print(f"measuring: {group}", file=sys.stderr, flush=True)
            told["rows"] += [{**asdict(row), "kept": row.kept} for row in measure(group)]
            asked.json.write_text(json.dumps(told, indent=1) + "\n", "utf-8")  # what was measured outlives what fails after it
    if asked.readme:
        readme(told)
    print(table(told))
    print(f"\n{asked.json}", file=sys.stderr)
    return int(any(row["kept"] is False for row in told["rows"]))


if __name__ == "__main__":
    sys.exit(main())
