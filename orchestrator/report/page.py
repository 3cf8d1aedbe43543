"""Build the page from the collected data and its template."""

from __future__ import annotations

import functools
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
from markupsafe import Markup

from orchestrator.dataset import contact_sheet
from orchestrator.dataset.buckets import epochs as dataset_epochs
from orchestrator.dataset.manifest import SCHEMA
from orchestrator.errors import counted
from orchestrator.report import charts, recipe_page, tables
from orchestrator.report.collect import State
from orchestrator.report.images import Album
from orchestrator.run import trace
from orchestrator.run.paths import RECORD
from orchestrator.system.files import read_json

if TYPE_CHECKING:
    from orchestrator.report.collect import Member, ReportData, StepView
    from orchestrator.report.images import PageImage

JSON = dict[str, Any]

_TEMPLATES = Path(__file__).with_name("templates")
_CURVES = 12  # most curves in the chart of a subject; the section "Curves" takes any
_SHEET = 48  # originals on one contact sheet


def render(values: JSON) -> str:
    """Return the HTML of a context, with style and script in it.

    Images lie beside it.
    """
    style = (_TEMPLATES / "page.css").read_text("utf-8") + contact_sheet.STYLE
    script = "".join((_TEMPLATES / name).read_text("utf-8") for name in ("page.js", "curves.js"))
    return _environment().get_template("page.html.j2").render(**values, style=style, script=script)


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=jinja2.select_autoescape(("html", "j2"), default=True),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"size": tables.size, "clock": charts.clock}
    return environment


def context(data: ReportData, folder: Path, *, live: bool = False) -> JSON:
    """Return the template's context.

    Missing images are written to ``folder``.
    """
    album = Album(folder)
    looks = _looks(data)
    subjects = [_subject(name, members, data, album, looks, live=live) for name, members in data.subjects().items()]
    steps = data.steps()
    counts = Counter(str(member.state) for member in data.members)
    values: JSON = {
        "live": live,
        "subjects": subjects,
        "counts": [{"state": str(state), "word": recipe_page.WORDS[state], "count": counts[str(state)]} for state in State],
        "total": len(data.members),
        "steps_done": sum(step.state is State.DONE for step in steps),
        "steps_total": len(steps),
        "seconds": sum(step.seconds for step in steps),
        "wall": tables.wall(steps),
        "bytes": sum(member["bytes"] for subject in subjects for member in subject["members"]),
        "activity": [
            recipe_page.activity(step) for step in steps if step.state in (State.RUNNING, State.FAILED, State.UNFINISHED)
        ],
        "timeline": timeline(steps),
        "kinds": tables.kinds(steps),
        "made": time.strftime("%Y-%m-%d %H:%M", time.localtime()),
        "title": _title(data),
    }
    album.make()
    return values


def _title(data: ReportData) -> tuple[str, str]:
    release = next((member.recipe.release for member in data.members if member.recipe.release.collection_title), None)
    return (release.collection_title, release.collection_title_ja) if release else ("LoRA report", "")


def _looks(data: ReportData) -> dict[str, str]:
    """Return the classes of colour and dashes of each recipe, by name.

    24 recipes in a row differ: six colours, then the same ones with the next dashes.
    """
    members = [member for group in data.subjects().values() for member in group]
    return {member.recipe.name: f"a{number % 6} d{number // 6 % 4}" for number, member in enumerate(members)}


def _labels(members: list[Member]) -> dict[str, str]:
    """Return a label of each recipe of a subject, by name.

    It is its algorithm, or its name where several have that algorithm.
    """
    counts = Counter(member.recipe.algorithm for member in members)
    return {
        member.recipe.name: member.recipe.algorithm if counts[member.recipe.algorithm] == 1 else member.recipe.name
        for member in members
    }


def _subject(name: str, members: list[Member], report: ReportData, album: Album, looks: dict[str, str], *, live: bool) -> JSON:
    release = members[0].recipe.release
    contexts = [recipe_page.context(report.root, each, album, looks[each.recipe.name], live=live) for each in members]
    labels = _labels(members)
    grid = next((step for step in report.shared if step.name == f"{name}/grid" and step.folder), None)
    curves = [
        charts.Line(
            labels[member.recipe.name],
            looks[member.recipe.name],
            [(p.step, p.loss) for p in member.curve if p.loss is not None],
        )
        for member in members
    ]
    drawn = [curve for curve in curves if curve.points]
    overlay = 1 < len(drawn) <= _CURVES
    dataset = members[0].steps.get("dataset")
    return {
        "name": name,
        "title": release.title or name,
        "title_ja": release.title_ja,
        "description": release.description,
        "description_ja": release.description_ja,
        "triggers": members[0].recipe.triggers(),
        "members": contexts,
        "loss": charts.lines(drawn, _loss_words(name, drawn), (500, 230)) if overlay else "",
        "loss_keys": [{"label": curve.label, "look": curve.colour} for curve in drawn],
        "sheet": _sheet(dataset, album),
        "contact": _contact(dataset, members, album),
        "grid": _grid(grid, name, album),
        "compare": _compare(members, contexts, labels),
    }


def _loss_words(name: str, curves: list[charts.Line]) -> str:
    ends = ", ".join(f"{curve.label} {curve.points[0][1]:.3f} to {curve.points[-1][1]:.3f}" for curve in curves)
    return f"Mean loss of {name} over the training steps, first to last: {ends}"


def _grid(step: StepView | None, name: str, album: Album) -> PageImage | None:
    if step is None or step.folder is None:
        return None
    return album.show(step.folder / f"{name}_grid.webp")


def _sheet(step: StepView | None, album: Album) -> PageImage | None:
    """Return all originals of a dataset as one image."""
    if step is None or step.folder is None:
        return None
    largest: dict[str, JSON] = {}
    for image in read_json(step.folder / "dataset.json").get("pictures", []):
        other = largest.get(image.get("source", ""))
        if not image.get("regularization") and (other is None or other["size"] < image["size"]):
            largest[image["source"]] = image
    files = [step.folder / image["file"] for image in largest.values()]
    return album.sheet([file for file in files if file.is_file()][:_SHEET])


def _contact(step: StepView | None, members: list[Member], album: Album) -> Markup:
    """Return the dataset's contact sheet: the trainer's images by bucket."""
    sheet = album.show(step.folder / "contact.webp") if step is not None and step.folder is not None else None
    if step is None or step.folder is None or sheet is None:
        return Markup("")
    manifest = read_json(step.folder / "dataset.json")
    if manifest.get("schema") != SCHEMA:
        return Markup("")
    batches = manifest["batches_per_epoch"]
    epochs = {member.recipe.name: dataset_epochs(batches, member.recipe.training) for member in members}
    return Markup(contact_sheet.sheet(manifest, [sheet.url], epochs))  # noqa: S704 - it escapes every text


def _compare(members: list[Member], contexts: list[JSON], names: dict[str, str]) -> JSON:
    """Return the slider's context: images of every prompt by recipe.

    A prompt needs the images of at least two recipes.
    """
    labels = {entry["name"]: entry["label"] for each in contexts for entry in each["pictures"]}
    rows = {
        names[member.recipe.name]: {entry["name"]: entry["picture"].url for entry in entries["pictures"]}
        for member, entries in zip(members, contexts, strict=True)
    }
    return recipe_page.slider(rows, labels)


def timeline(steps: list[StepView]) -> Any:
    """Return a chart of the newest run by lane.

    The run is the last steps without a gap of ``_REST`` between them.
    """
    spans = trace.spans(step.folder / RECORD for step in steps if step.folder is not None and step.state.finished)
    newest: list[trace.Span] = []
    for span in reversed(spans):
        if newest and min(later.started for later in newest) - max(span.ended, 0) > tables.REST:
            break
        newest.append(span)
    rows = trace.rows(newest)
    if not rows:
        return ""
    whole = max(span.ended for span in newest) - min(span.started for span in newest)
    busy = ", ".join(f"{row['name']} busy for {row['busy']:.0%}" for row in rows)
    return charts.timeline(rows, f"{counted(len(newest), 'step')} over {charts.clock(whole)}, by lane: {busy}")
