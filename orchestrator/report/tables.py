"""Build the tables of the page: sizes, times, heat maps."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from orchestrator.errors import RecipeError
from orchestrator.release.facts import weights_of
from orchestrator.release.proposal import MEASURES, number
from orchestrator.report import charts
from orchestrator.weights.io.safetensors_io import read_header

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from orchestrator.report.collect import Member, StepView

JSON = dict[str, Any]

REST = 600.0
"""Seconds without a step that separate two runs."""
_STAGES = {"train": "trained", "merge": "merged", "resize": "compressed"}
_UNITS = {"KB": 2**10, "MB": 2**20, "GB": 2**30}  # as cards list them: 203 MB is 202.99 MiB


def size(count: float) -> str:
    """Return bytes as 40.3 MiB."""
    for unit, power in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= power:
            return f"{count / power:.1f} {unit}"
    return f"{count:.0f} B"


def _file(step: StepView | None) -> int:
    """Return the bytes of a finished step's LoRA file, 0 without one."""
    if step is None or not step.state.finished:
        return 0
    name = weights_of(step.record)[0]
    return int(step.record["outputs"][name]["bytes"]) if name else 0


def released(member: Member) -> int:
    """Return the size of the last file, from released down to trained.

    The order is released, compressed, merged, trained.
    """
    for kind in ("release", "resize", "merge", "train"):
        if count := _file(member.steps.get(kind)):
            return count
    return 0


def _tensors(step: StepView | None) -> int:
    """Return the tensor bytes of a finished step's file, 0 without one."""
    if step is None or step.folder is None or not step.state.finished:
        return 0
    name = weights_of(step.record)[0]
    path = step.folder / name
    if not name or not path.is_file():
        return 0
    try:
        return read_header(path).tensor_bytes
    except RecipeError:
        return 0


def sizes(member: Member) -> JSON:
    """Return rows of label, bytes and share of the largest.

    Tensors are as predicted and after each step, files as released.

    ``exact``: the trained tensors have to the byte the size that the plan predicts. Cards of earlier releases list files.
    """
    rows: list[tuple[str, int]] = [("predicted", int(member.predicted.get("tensor_bytes") or 0))]
    rows += [(word, _tensors(member.steps.get(kind))) for kind, word in _STAGES.items()]
    exact = rows[0][1] > 0 and rows[0][1] == rows[1][1]
    rows.append(("released file", _file(member.steps.get("release"))))
    listed = re.fullmatch(r"(?:about )?([\d.]+) ?([KMG]B)", member.recipe.release.listed_size)
    if listed:
        rows.append(("listed before", int(float(listed[1]) * _UNITS[listed[2]])))
    rows = [(label, count) for label, count in rows if count]
    most = max((count for _, count in rows), default=1)
    shown = [
        {"label": label, "bytes": count, "text": size(count), "share": round(100 * count / most, 1)} for label, count in rows
    ]
    return {"rows": shown, "exact": exact}


def times(member: Member) -> list[JSON]:
    """Return kind, seconds and share of each finished step of a recipe."""
    done = [step for step in member.steps.values() if step.seconds]
    whole = sum(step.seconds for step in done) or 1.0
    return [
        {
            "kind": step.kind,
            "seconds": step.seconds,
            "text": charts.clock(step.seconds),
            "share": round(100 * step.seconds / whole, 2),
        }
        for step in done
    ]


def wall(steps: Iterable[StepView]) -> float:
    """Return the seconds on the clock in which steps ran.

    Steps at the same time count once. A pause longer than ``REST`` does not count.
    """
    whole, end = 0.0, None
    for started, ended in sorted(
        (float(step.record["started"]), float(step.record["started"]) + step.seconds) for step in steps if step.seconds
    ):
        whole += ended - started if end is None or started - end > REST else max(0.0, ended - end)
        end = ended if end is None else max(end, ended)
    return whole


def kinds(steps: Sequence[StepView]) -> list[JSON]:
    """Return kind, count and seconds over all steps."""
    seconds: dict[str, float] = defaultdict(float)
    counts: dict[str, int] = defaultdict(int)
    for step in steps:
        if step.seconds:
            seconds[step.kind] += step.seconds
            counts[step.kind] += 1
    whole = sum(seconds.values()) or 1.0
    return [
        {"kind": kind, "count": counts[kind], "text": charts.clock(value), "share": round(100 * value / whole, 2)}
        for kind, value in seconds.items()
    ]


def network(member: Member) -> list[tuple[str, str]]:
    """Return the training's settings as pairs of words.

    They are those of the record if there is one, else of the recipe.
    """
    record = member.steps["train"].record if "train" in member.steps else {}
    params = record.get("params", {})
    net = params.get("network") or member.recipe.network.model_dump(mode="json")
    run = params.get("training") or member.recipe.training.model_dump(mode="json")
    conv = f" / {net['conv_dim']}" if net.get("conv_dim") else ""
    rows = [
        ("network", f"{net['family']}{' (Tucker)' if net.get('tucker') else ''}"),
        ("dim", f"{net['dim']}{conv}"),
        ("steps", f"{run['steps']}"),
        ("released step", _released_step(member)),
        ("learning rate", charts.short(run["learning_rate"]) if run.get("learning_rate") else ""),
        ("text encoder", charts.short(run["text_encoder_lr"]) if run.get("text_encoder_lr") else ""),
        ("optimizer", f"{run['optimizer']}"),
        ("seed", f"{run['seed']}"),
        ("engine", str(record.get("engine", "")).partition(" ")[0] or member.recipe.engine),
    ]
    if record.get("resumed_from") is not None:
        rows.append(("resumed at", f"step {record['resumed_from']}"))
    return [(word, value) for word, value in rows if value]


def measured_steps(table: JSON, train: JSON) -> JSON:
    """Return the table of ``select``, {} without one of this training.

    Args:
        table: content of measured-steps.json.
        train: record of the train step.
    """
    if not table.get("rows") or table.get("train") != train.get("key"):
        return {}
    names = [name for name in MEASURES if any(row.get(name) is not None for row in table["rows"])]
    proposed = table["proposed"]
    rows = [
        {
            "cells": [
                str(row["step"]),
                f"{row['multiplier']:g}",
                *(number(name, row.get(name)) for name in names),
                "+".join(str(rank) for rank in row["ranks"].values()),
            ],
            "proposed": (row["step"], row["multiplier"]) == (proposed["step"], proposed["multiplier"]),
        }
        for row in table["rows"]
    ]
    heads = ["step", "multiplier", *(name.replace("_", " ") for name in names), "ranks"]
    return {"heads": heads, "rows": rows, "by": table["measured_by"], "step": proposed["step"], "reason": proposed["reason"]}


def _released_step(member: Member) -> str:
    """Return the chosen step of the last release with its reason, or ""."""
    record = member.steps["release"].record if "release" in member.steps else {}
    chosen = record.get("params", {}).get("recipe", {}).get("select", {})
    return f"{chosen['step']}{': ' if chosen.get('reason') else ''}{chosen.get('reason', '')}" if chosen.get("step") else ""


def heat(member: Member, names: Sequence[str], stages: dict[str, JSON]) -> JSON:
    """Return the block table: norms, block weights between them, ranks.

    Shades run from 0 to 1 of the largest norm (of the largest weight) of the table.
    """
    rows: list[JSON] = []
    norms = {kind: {name: (stats.get(name) or {}).get("norm") for name in names} for kind, stats in stages.items() if stats}
    most = max((value for row in norms.values() for value in row.values() if value), default=0.0)

    def add(label: str, kind: str, texts: dict[str, str], shades: dict[str, float]) -> None:
        cells = [{"block": name, "text": texts.get(name, ""), "shade": round(shades.get(name, 0.0), 3)} for name in names]
        rows.append({"label": label, "kind": kind, "cells": cells})

    for kind, word in _STAGES.items():
        if kind == "merge" and member.recipe.block_weights is not None:
            weights = member.recipe.weights().by_name()
            values = {name: weights[name] for name in names}
            top = max(map(abs, values.values()), default=1.0) or 1.0
            add("weights", "weight", {n: f"{v:g}" for n, v in values.items()}, {n: abs(v) / top for n, v in values.items()})
        if kind in norms:
            here = {name: value for name, value in norms[kind].items() if value is not None}
            add(
                f"norm, {word}",
                "norm",
                {n: f"{v:.2g}" for n, v in here.items()},
                {n: v / most if most else 0 for n, v in here.items()},
            )
    for kind in ("train", "resize"):
        ranks = {name: block["ranks"] for name, block in stages[kind].items() if block.get("ranks") and name in names}
        if ranks:
            top = max(
                rank[2] for stats in (stages["train"], stages["resize"]) for b in stats.values() if (rank := b.get("ranks"))
            )
            texts = {n: f"{low}" if low == high else f"{low}–{high}" for n, (low, _, high) in ranks.items()}
            add(f"rank, {_STAGES[kind]}", "rank", texts, {n: middle / top for n, (_, middle, _) in ranks.items()})
    return {"blocks": list(names), "rows": rows}


def spectra(names: Sequence[str], stages: dict[str, JSON], name: str) -> list[JSON]:
    """Return maps of measured singular values around the compression."""
    maps = []
    for kind in ("train", "merge", "resize"):
        columns = [(block, (stages[kind].get(block) or {}).get("spectrum") or []) for block in names]
        if kind == "merge" and stages["resize"]:
            continue
        if any(values for _, values in columns):
            label = f"Singular values of {name}, {_STAGES[kind]}, by block, as shares of the largest"
            maps.append({"label": _STAGES[kind], "chart": charts.spectra(columns, label)})
    return maps
