"""Write contact sheets of datasets as HTML.

A sheet shows every training image with its caption, by bucket, the frequencies of tags, and the coverage of views.

A sheet is made from a manifest (``manifest.describe``, dataset.json) and the addresses of its sheets of tiles.
"""

from __future__ import annotations

import base64
import io
from html import escape
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from orchestrator.dataset import contact_tiles
from orchestrator.dataset.coverage import DIRECTIONS, HEIGHT_NAMES, HEIGHTS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestrator.dataset.lint import LintReport
    from orchestrator.dataset.lint.findings import Finding

JSON = dict[str, Any]

STYLE: Final = Path(__file__).with_name("contact.css").read_text("utf-8")
"""Style sheet of a page with sheets."""
_TAGS: Final = 60
_FRAMINGS: Final = {"f": "upper body", "b": "full body"}


def page(report: LintReport) -> str:
    """Return an HTML page with every image and the findings.

    It needs no other file. Every original is decoded once.
    """
    tiles = contact_tiles.arrange(report.inspected.prediction)
    sheets = []
    for image in contact_tiles.paste_sheets(tiles, contact_tiles.draw_tiles(tiles, report.inspected.dataset)):
        data = io.BytesIO()
        contact_tiles.save(image, data)
        sheets.append(f"data:image/webp;base64,{base64.b64encode(data.getvalue()).decode()}")
    manifest = report.as_json(tiles)
    title = escape(f"dataset {manifest['name']}")
    head = '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    head += f'<title>{title}</title><link rel="icon" href="data:,"><style>{STYLE}</style>'
    epochs = {"": report.epochs} if report.steps else {}
    body = f'<body class="contact-page"><h1>{title}</h1>{_findings(report.findings)}{sheet(manifest, sheets, epochs)}'
    return f"{head}{body}</body></html>\n"


def sheet(manifest: JSON, sheets: Sequence[str], epochs: Mapping[str, int]) -> str:
    """Return the sheet as an HTML fragment.

    Args:
        manifest: its images have a ``tile`` if a sheet shows them.
        sheets: addresses of the files with the tiles, as in the ``src`` of a page.
        epochs: "num epochs" by recipe.
    """
    urls = "".join(f"--sheet-{number}:url({url});" for number, url in enumerate(sheets))
    parts = [f'<section class="contact" style="{escape(urls)}">', _numbers(manifest, epochs)]
    parts += [_coverage(table) for table in manifest.get("coverage", [])]
    images = {
        size: list(members)
        for size, members in groupby(manifest["pictures"], lambda image: (tuple(image["resolution"]), tuple(image["bucket"])))
    }
    for bucket in manifest["buckets"]:
        parts.append(_bucket(bucket, images.get((tuple(bucket["resolution"]), tuple(bucket["size"])), [])))
    return "".join([*parts, _tags(manifest["tags"]), "</section>"])


def _numbers(manifest: JSON, epochs: Mapping[str, int]) -> str:
    rows = {
        "images in the folders": manifest["images"],
        "num train images * repeats": manifest["images_x_repeats"],
        "num reg images": manifest["regularization_x_repeats"],
        "num batches per epoch": manifest["batches_per_epoch"],
    } | {f"num epochs{f' of {name}' if name else ''}": count for name, count in epochs.items()}
    return _table("output of the trainer", ("line", "count"), [(name, str(count)) for name, count in rows.items()])


def _table(caption: str, head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """Return a table of texts, the first column as row headers."""
    top = "".join(_cell(cell, "col") for cell in head)
    body = "".join(f"<tr>{_cell(first, 'row')}{''.join(map(_cell, rest))}</tr>" for first, *rest in rows)
    return f"<table><caption>{escape(caption)}</caption><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def _cell(text: str, scope: str = "") -> str:
    return f'<th scope="{scope}">{escape(text)}</th>' if scope else f"<td>{escape(text)}</td>"


def _bucket(bucket: JSON, images: Sequence[JSON]) -> str:
    size, of = "x".join(map(str, bucket["size"])), "x".join(map(str, bucket["resolution"]))
    lacking = f", the last lacks {bucket['missing']}" if bucket["missing"] else ""
    batches = f"{bucket['batches']} batches of {bucket['batch_size']}{lacking}"
    shown = [image for image in images if image.get("tile")]
    rest = f" {len(shown)} of {len(images)} are shown." if len(shown) < len(images) else ""
    title = f"{size} <small>class {of}: {bucket['count']} with repeats, {batches}.{rest}</small>"
    figures = "".join(map(_figure, shown))
    return f'<h4>{title}</h4><ul class="tiles">{figures}</ul>'


def _figure(image: JSON) -> str:
    caption = image["caption"] or image["class_tokens"]
    left, top, width, height = image["tile"]["box"]
    style = f"width:{width}px;height:{height}px;background:var(--sheet-{image['tile']['sheet']}) -{left}px -{top}px"
    loss = f", {image['crop_loss']:.0%} cropped" if image["crop_loss"] else ""
    kind = ", regularization" if image["regularization"] else ""
    flips = ", flips" if image["flip"] else ""
    note = f"{'x'.join(map(str, image['size']))} &times;{image['repeats']}{loss}{flips}{kind}"
    name = escape(image["file"].rpartition("/")[2])
    tile = f'<i role="img" aria-label="{name}" style="{style}"></i>'
    return f'<li title="{escape(image["file"])}">{tile}<b>{name}</b> {note}<br>{escape(caption)}</li>'


def _coverage(table: JSON) -> str:
    head = "".join(_cell(f"{int(way) * 45}°", "col") for way in DIRECTIONS)
    mirrored = set(table["mirrored"])
    rows = []
    for height, name, counts in zip(HEIGHTS, HEIGHT_NAMES, table["heights_x_directions"], strict=True):
        cells = []
        for way, count in zip(DIRECTIONS, counts, strict=True):
            kind, text = ("some", str(count)) if count else ("flip", "flip") if f"{height}{way}" in mirrored else ("none", "–")
            cells.append(f'<td class="{kind}">{text}</td>')
        rows.append(f"<tr>{_cell(name, 'row')}{''.join(cells)}</tr>")
    title = f"{escape(table['source'])}, {_FRAMINGS[table['framing']]}: images by height and direction"
    return f"<table><caption>{title}</caption><thead><tr><td></td>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _tags(tags: Mapping[str, int]) -> str:
    rows = [(tag, str(count)) for tag, count in list(tags.items())[:_TAGS]]
    return _table("number of images, with repeats, by tag", ("tag", "images"), rows) if rows else ""


def _findings(findings: Sequence[Finding]) -> str:
    if not findings:
        return ""
    rows = (
        f"<li>{finding.level.value}: <code>{escape(finding.where)}</code> {escape(finding.what)}</li>" for finding in findings
    )
    return f"<h2>Findings</h2><ul>{''.join(rows)}</ul>"
