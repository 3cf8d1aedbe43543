"""A contact sheet as HTML: every picture as the trainer sees it, with its caption, by bucket; tag frequencies; coverage.

Made from a manifest (``manifest.described``, dataset.json) and from where its sheets of tiles are found.
"""

from __future__ import annotations

import base64
import io
from html import escape
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from orchestrator.dataset import contact_tiles
from orchestrator.dataset.coverage import DIRECTIONS, HEIGHTS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestrator.dataset.lint import Report
    from orchestrator.dataset.lint.findings import Finding

JSON = dict[str, Any]

STYLE: Final = Path(__file__).with_name("contact.css").read_text("utf-8")
"""Goes with a sheet, once a page."""
_TAGS: Final = 60
_HEIGHT_NAMES: Final = dict(zip(HEIGHTS, ("level", "from above", "from below"), strict=True))
_FRAMINGS: Final = {"f": "upper body", "b": "full body"}


def page(report: Report) -> str:
    """Return a whole HTML page with every picture and the findings; it needs no other file. Decodes every original once."""
    shown = contact_tiles.places(report.inspected.prediction)
    sheets = []
    for image in contact_tiles.sheets(shown, contact_tiles.drawn(shown, report.inspected.dataset)):
        data = io.BytesIO()
        contact_tiles.save(image, data)
        sheets.append(f"data:image/webp;base64,{base64.b64encode(data.getvalue()).decode()}")
    said = report.as_json(shown)
    title = escape(f"dataset {said['name']}")
    head = '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    head += f'<title>{title}</title><link rel="icon" href="data:,"><style>{STYLE}</style>'
    epochs = {"": report.epochs} if report.steps else {}
    body = f'<body class="contact-page"><h1>{title}</h1>{_findings(report.findings)}{sheet(said, sheets, epochs)}'
    return f"{head}{body}</body></html>\n"


def sheet(said: JSON, sheets: Sequence[str], epochs: Mapping[str, int]) -> str:
    """Return the sheet as an HTML fragment.

    Args:
        said: the manifest, its pictures with ``tile`` where a sheet shows them.
        sheets: the addresses of the files with the tiles, as in a page's ``src``.
        epochs: "num epochs" by recipe.
    """
    images = "".join(f"--sheet-{number}:url({url});" for number, url in enumerate(sheets))
    parts = [f'<section class="contact" style="{escape(images)}">', _numbers(said, epochs)]
    parts += [_coverage(one) for one in said.get("coverage", [])]
    pictures = {
        size: list(members)
        for size, members in groupby(said["pictures"], lambda one: (tuple(one["resolution"]), tuple(one["bucket"])))
    }
    for bucket in said["buckets"]:
        parts.append(_bucket(bucket, pictures.get((tuple(bucket["resolution"]), tuple(bucket["size"])), [])))
    return "".join([*parts, _tags(said["tags"]), "</section>"])


def _numbers(said: JSON, epochs: Mapping[str, int]) -> str:
    rows = {
        "pictures in the folders": said["images"],
        "num train images * repeats": said["images_x_repeats"],
        "num reg images": said["regularization_x_repeats"],
        "num batches per epoch": said["batches_per_epoch"],
    } | {f"num epochs{f' of {name}' if name else ''}": count for name, count in epochs.items()}
    return _table("what the trainer prints", ("line", "count"), [(name, str(count)) for name, count in rows.items()])


def _table(caption: str, head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """Return a table whose first column names the rows; all is text."""
    top = "".join(_cell(cell, "col") for cell in head)
    body = "".join(f"<tr>{_cell(first, 'row')}{''.join(map(_cell, rest))}</tr>" for first, *rest in rows)
    return f"<table><caption>{escape(caption)}</caption><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def _cell(text: str, scope: str = "") -> str:
    return f'<th scope="{scope}">{escape(text)}</th>' if scope else f"<td>{escape(text)}</td>"


def _bucket(bucket: JSON, pictures: Sequence[JSON]) -> str:
    size, of = "x".join(map(str, bucket["size"])), "x".join(map(str, bucket["resolution"]))
    lacking = f", the last lacks {bucket['missing']}" if bucket["missing"] else ""
    batches = f"{bucket['batches']} batches of {bucket['batch_size']}{lacking}"
    shown = [one for one in pictures if one.get("tile")]
    rest = f" {len(shown)} of {len(pictures)} are shown." if len(shown) < len(pictures) else ""
    title = f"{size} <small>class {of}: {bucket['count']} with repeats, {batches}.{rest}</small>"
    figures = "".join(map(_figure, shown))
    return f'<h4>{title}</h4><ul class="tiles">{figures}</ul>'


def _figure(one: JSON) -> str:
    caption = one["caption"] or one["class_tokens"]
    left, top, width, height = one["tile"]["box"]
    style = f"width:{width}px;height:{height}px;background:var(--sheet-{one['tile']['sheet']}) -{left}px -{top}px"
    loss = f", {one['crop_loss']:.0%} cropped" if one["crop_loss"] else ""
    kind = ", regularization" if one["regularization"] else ""
    flips = ", flips" if one["flip"] else ""
    note = f"{'x'.join(map(str, one['size']))} &times;{one['repeats']}{loss}{flips}{kind}"
    name = escape(one["file"].rpartition("/")[2])
    image = f'<i role="img" aria-label="{name}" style="{style}"></i>'
    return f'<li title="{escape(one["file"])}">{image}<b>{name}</b> {note}<br>{escape(caption)}</li>'


def _coverage(one: JSON) -> str:
    head = "".join(_cell(f"{int(way) * 45}°", "col") for way in DIRECTIONS)
    mirrored = set(one["mirrored"])
    rows = []
    for height, counts in zip(HEIGHTS, one["heights_x_directions"], strict=True):
        cells = []
        for way, count in zip(DIRECTIONS, counts, strict=True):
            kind, text = ("some", str(count)) if count else ("flip", "flip") if f"{height}{way}" in mirrored else ("none", "–")
            cells.append(f'<td class="{kind}">{text}</td>')
        rows.append(f"<tr>{_cell(_HEIGHT_NAMES[height], 'row')}{''.join(cells)}</tr>")
    title = f"{escape(one['source'])}, {_FRAMINGS[one['framing']]}: pictures by height and direction"
    return f"<table><caption>{title}</caption><thead><tr><td></td>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _tags(tags: Mapping[str, int]) -> str:
    rows = [(tag, str(count)) for tag, count in list(tags.items())[:_TAGS]]
    return _table("tags, and how many pictures with repeats carry them", ("tag", "pictures"), rows) if rows else ""


def _findings(findings: Sequence[Finding]) -> str:
    if not findings:
        return ""
    rows = (f"<li>{one.level.value}: <code>{escape(one.where)}</code> {escape(one.what)}</li>" for one in findings)
    return f"<h2>Findings</h2><ul>{''.join(rows)}</ul>"
