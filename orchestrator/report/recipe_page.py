"""Build the context of one recipe: images, curves, tables, commands."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from orchestrator.models import blocks
from orchestrator.models.registry import ARCHITECTURES
from orchestrator.report import block_stats, charts, commands, file_links, tables
from orchestrator.report.collect import State
from orchestrator.report.images import SAMPLE
from orchestrator.run.paths import SAMPLES, STEPS, VARIANTS
from orchestrator.system.files import read_json

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.report.collect import Member, StepView
    from orchestrator.report.images import Album

JSON = dict[str, Any]

WORDS = {
    State.DONE: "done",
    State.OUTDATED: "outdated",
    State.RUNNING: "running",
    State.FAILED: "failed",
    State.UNFINISHED: "stopped",
    State.WAITING: "waiting",
}


def activity(step: StepView) -> JSON:
    """Return progress, loss and last output of a step that runs or went wrong."""
    loss = next((point.loss for point in reversed(step.curve) if point.loss is not None), None)
    values: JSON = {"name": step.name, "state": str(step.state), "word": WORDS[step.state]}
    return values | {"done": step.done, "total": step.total, "loss": loss, "tail": step.tail}


def context(root: Path, member: Member, album: Album, look: str, *, live: bool = False) -> JSON:
    """Return the template's context of one recipe.

    Args:
        root: the store.
        member: the recipe and its steps.
        album: the images of the page.
        look: classes of the colour and dashes of its curves, as "a2 d0".
        live: the page is served, without the files of the store.
    """
    recipe = member.recipe
    pictures = _pictures(member, album)
    cover = next((entry["picture"] for entry in pictures if entry["name"] == recipe.release.cover), None)
    curve = [(point.step, point.loss) for point in member.curve if point.loss is not None]
    colour = look.partition(" ")[0]
    names = blocks.names(recipe.base.architecture)
    stages = block_stats.stages(root, member)
    train = member.steps.get("train")
    return {
        "name": recipe.name,
        "algorithm": recipe.algorithm,
        "summary": recipe.summary,
        "colour": colour,
        "look": look,
        "words": f"{recipe.name} {recipe.subject} {recipe.algorithm} {WORDS[member.state]}".lower(),
        "state": str(member.state),
        "word": WORDS[member.state],
        "steps": [_chip(step) for step in member.steps.values()],
        "percent": _percent(train),
        "cover": cover or (pictures[0]["picture"] if pictures else None),
        "pictures": pictures,
        "samples": _samples(member, album),
        "variants": _variants(root, member, album),
        "measured": tables.measured_steps(read_json(root / recipe.name / STEPS), train.record if train else {}),
        "spark": charts.spark(curve, colour),
        "loss_now": f"{curve[-1][1]:.4f}" if curve else "",
        "validation_now": next(
            (f"{point.validation:.4f}" for point in reversed(member.curve) if point.validation is not None), ""
        ),
        "loss": _losses(member, curve, colour),
        "rate": _rates(member, colour),
        "bytes": tables.released(member),
        "sizes": tables.sizes(member),
        "heat": tables.heat(member, names, stages),
        "spectra": tables.spectra(names, stages, recipe.name),
        "times": tables.times(member),
        "seconds": sum(step.seconds for step in member.steps.values()),
        "wall": tables.wall(member.steps.values()),
        "files": file_links.steps(root, member, None if live else album.folder.parent),
        "network": tables.network(member),
        "commands": commands.commands(root, member),
        "failed": [activity(step) for step in member.steps.values() if step.state is State.FAILED],
    }


def _losses(member: Member, curve: list[tuple[int, float]], colour: str) -> JSON:
    """Return the chart of the losses of mean, step, validation, and its keys."""
    own = [(point.step, point.now) for point in member.curve if point.now is not None]
    lines = [charts.Line("this step", f"{colour} faint", own)] if own else []
    lines.append(charts.Line("mean", colour, curve))
    validated = [(point.step, point.validation) for point in member.curve if point.validation is not None]
    words = _words("Mean loss", member.recipe.name, curve)
    if validated:
        lines.append(charts.Line("held-out images", f"{colour} dashed", validated))
        words += f"; {_words('validation loss', member.recipe.name, validated)}"
    return _with_keys(lines, words)


def _with_keys(lines: list[charts.Line], words: str, size: tuple[int, int] = (380, 170), *, zero: bool = False) -> JSON:
    """Return ``chart`` and ``keys``, the label and look of several lines."""
    drawn = [line for line in lines if line.points]
    keys = [{"label": line.label, "look": line.colour} for line in reversed(drawn)] if len(drawn) > 1 else []
    return {"chart": charts.lines(drawn, words, size, zero=zero), "keys": keys}


def _rates(member: Member, colour: str) -> JSON:
    """Return the chart of the rates of denoiser and text encoder, and its keys."""
    rates = [(point.step, point.rate) for point in member.curve if point.rate is not None]
    text = [(point.step, point.text_rate) for point in member.curve if point.text_rate is not None]
    lines = [charts.Line("text encoder", f"{colour} dashed", text)] if text else []
    denoiser = ARCHITECTURES[member.recipe.base.architecture].denoiser
    words = _words("Learning rate", member.recipe.name, rates)
    return _with_keys([*lines, charts.Line(denoiser, colour, rates)], words, (380, 90), zero=True)


def _percent(step: StepView | None) -> int | None:
    """Return the progress of a running training in percent."""
    if step is None or step.state.finished or not step.total:
        return None
    return round(100 * step.done / step.total)


def _chip(step: StepView) -> JSON:
    return {
        "kind": step.kind,
        "state": str(step.state),
        "word": WORDS[step.state],
        "seconds": step.seconds,
        "reason": step.reason,
    }


def _words(what: str, name: str, points: list[tuple[int, float]]) -> str:
    if not points:
        return f"{what} of {name}"
    return f"{what} of {name}: from {charts.short(points[0][1])} to {charts.short(points[-1][1])} in {points[-1][0]} steps"


def _pictures(member: Member, album: Album) -> list[JSON]:
    """Return the finished file's images, in the order of the prompts."""
    step = member.steps.get("render")
    if step is None or step.folder is None or not step.state.finished:
        return []
    shown = [(column, album.show(step.folder / f"{column['name']}.png")) for column in member.recipe.columns()]
    return [{**column, "picture": picture} for column, picture in shown if picture is not None]


def slider(rows: dict[str, dict[str, str]], labels: dict[str, str]) -> JSON:
    """Return a slider's context, or {} without two rows.

    It has image URLs by row and prompt, and the prompts that at least two rows share.

    Args:
        rows: URL of each prompt's image, by the compared thing (an algorithm, a ratio).
        labels: labels of the prompts, by name.
    """
    kept = {name: row for name, row in rows.items() if row}
    shared = {name: label for name, label in labels.items() if sum(name in row for row in kept.values()) > 1}
    return {"prompts": shared, "rows": kept} if shared else {}


def _variants(root: Path, member: Member, album: Album) -> list[JSON]:
    """Return images of ``orchestrator variants``: a slider and grids.

    There is a grid for every pair of axes.
    """
    entries: list[JSON] = []
    labels = {column["name"]: column["label"] for column in member.recipe.columns()}
    for path in sorted((root / member.recipe.name / VARIANTS).glob("*.json")):
        drawn = read_json(path)
        rows: dict[str, dict[str, str]] = {}
        for variant in drawn.get("variants", []):
            shown = {name: album.show(root / variant["folder"] / f"{name}.png") for name in labels}
            size = f" ({tables.size(variant['bytes'])})" if variant["bytes"] else ""
            rows[variant["label"] + size] = {name: picture.url for name, picture in shown.items() if picture is not None}
        grids = [
            picture for name in drawn.get("grids", []) if (picture := album.show((path.parent / name).with_suffix(".webp")))
        ]
        if grids:
            entries.append({"axes": " by ".join(drawn["axes"]), "compare": slider(rows, labels), "grids": grids})
    return entries


def _samples(member: Member, album: Album) -> list[JSON]:
    """Return the images drawn during training, one row per prompt.

    A row is ordered by steps, then epochs.

    Trainers write NAME_000200_00_….png and NAME_e000001_00_….png. The second number is the prompt's.
    """
    step = member.steps.get("train")
    if step is None or step.folder is None:
        return []
    labels = [column["label"] for column in member.recipe.columns()]
    by_prompt: dict[int, list[tuple[bool, int, Path]]] = {}
    for path in (step.folder / SAMPLES).glob("*.png"):
        match = re.search(r"_(e?)(\d{6})_(\d{2})_", path.name)
        if match:
            by_prompt.setdefault(int(match[3]), []).append((bool(match[1]), int(match[2]), path))
    rows = []
    for prompt, drawn in sorted(by_prompt.items()):
        shown = [
            (f"{'epoch' if epoch else 'step'} {number}", album.show(path, SAMPLE)) for epoch, number, path in sorted(drawn)
        ]
        pictures = [{"label": label, "picture": picture} for label, picture in shown if picture is not None]
        rows.append({"label": labels[prompt] if prompt < len(labels) else f"prompt {prompt + 1}", "pictures": pictures})
    return rows
