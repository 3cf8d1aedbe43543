"""A contact sheet: every picture as the trainer sees it, with its caption, by bucket; tag frequencies; coverage."""

from __future__ import annotations

import base64
import io
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from html import escape
from typing import TYPE_CHECKING, Final

from orchestrator.dataset import headers
from orchestrator.dataset.build import threads
from orchestrator.dataset.views import DIRECTIONS, HEIGHTS

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.dataset.buckets import Bucket, Placed
    from orchestrator.dataset.lint import Report
    from orchestrator.dataset.views import Coverage
    from orchestrator.recipe import Dataset

_THUMB: Final = 96  # pixels of the longer side
_TAGS: Final = 60

STYLE: Final = """
.contact figure{display:inline-block;vertical-align:top;width:112px;margin:4px;font:10px/1.25 system-ui,sans-serif}
.contact img{display:block;max-width:96px;background:#ddd}
.contact figcaption{overflow-wrap:anywhere}
.contact table{border-collapse:collapse;margin:.5em 0}
.contact td,.contact th{padding:.15em .5em;border:1px solid #8884;text-align:right}
.contact td:first-child{text-align:left}
.contact .none{background:#c224}
.contact .flip{background:#cc24}
.contact .some{background:#2c24}
"""


def page(dataset: Dataset, report: Report) -> str:
    """Return a whole HTML page with the sheet; it needs no other file."""
    title = escape(f"dataset {dataset.name}")
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>'
    return f"{head}<body><h1>{title}</h1>{sheet(dataset, report)}</body></html>\n"


def sheet(dataset: Dataset, report: Report) -> str:
    """Return the sheet as an HTML fragment (``STYLE`` goes with it). Decodes every original once, on all cores."""
    thumbs = _thumbs(dataset, report)
    parts = ['<section class="contact">', _numbers(report), "<h2>Buckets</h2>"]
    parts += [_bucket(bucket, thumbs) for bucket in report.inspected.prediction.buckets]
    parts += ["<h2>Coverage</h2>", *(_coverage(one) for one in report.inspected.coverage), "<h2>Tags</h2>", _tags(report)]
    if report.findings:
        parts.append("<h2>Findings</h2><ul>")
        parts += [
            f"<li>{one.level.value}: <code>{escape(one.where)}</code> {escape(one.what)}</li>" for one in report.findings
        ]
        parts.append("</ul>")
    return "".join([*parts, "</section>"])


def _numbers(report: Report) -> str:
    prediction = report.inspected.prediction
    rows = {
        "pictures in the folders": prediction.images,
        "num train images * repeats": prediction.images_x_repeats,
        "num reg images": prediction.regularization_x_repeats,
        "num batches per epoch": prediction.batches_per_epoch,
        "num epochs": report.epochs,
    }
    return "<table>" + "".join(f"<tr><td>{name}</td><td>{value}</td></tr>" for name, value in rows.items()) + "</table>"


def _bucket(bucket: Bucket, thumbs: dict[tuple[str, str], str]) -> str:
    size, of = "x".join(map(str, bucket.size)), "x".join(map(str, bucket.resolution))
    lacking = f", the last lacks {bucket.missing}" if bucket.missing else ""
    batches = f"{bucket.batches} batches of {bucket.batch_size}{lacking}"
    title = f"{size} <small>class {of}: {bucket.count} with repeats, {batches}</small>"
    return f"<h3>{title}</h3>" + "".join(_figure(one, thumbs) for one in bucket.placed)


def _figure(one: Placed, thumbs: dict[tuple[str, str], str]) -> str:
    picture = one.picture
    file = f"{one.folder.path}/{picture.name}"
    caption = one.folder.class_tokens if picture.caption is None else picture.caption
    loss = f", {one.fit.crop_loss:.0%} cropped" if one.fit.crop_loss else ""
    image = thumbs.get((one.folder.path, picture.name), "")
    shown = (
        f'<img loading="lazy" src="data:image/webp;base64,{image}" alt="{escape(file)}">' if image else "<p>not decodable</p>"
    )
    note = f"{picture.size[0]}x{picture.size[1]} &times;{one.repeats}{loss}{', flips' if one.folder.flip else ''}"
    text = f"<b>{escape(picture.name)}</b> {note}<br>{escape(caption)}"
    return f'<figure title="{escape(file)}">{shown}<figcaption>{text}</figcaption></figure>'


def _thumbs(dataset: Dataset, report: Report) -> dict[tuple[str, str], str]:
    """Return (folder, file name) -> WebP in base64: resized and cropped as the trainer does, then made small."""
    work: dict[tuple[Path, str], list[Placed]] = defaultdict(list)
    for bucket in report.inspected.prediction.buckets:
        for one in bucket.placed:
            work[one.picture.original, dataset.sources[one.folder.source].background_color or dataset.background_color].append(
                one
            )
    from orchestrator.dataset import pixels  # noqa: PLC0415 - Pillow

    with pixels.quiet(), ThreadPoolExecutor(threads()) as pool:
        results = pool.map(lambda item: _thumb(item[0][0], item[0][1], item[1], dataset.downscale), work.items())
        return {key: value for result in results for key, value in result.items()}


def _thumb(path: Path, color: str, wanted: list[Placed], downscale: str) -> dict[tuple[str, str], str]:
    from orchestrator.dataset import pixels  # noqa: PLC0415 - Pillow

    try:
        image = pixels.load(path, color)
    except headers.UnreadableError:
        return {}  # the findings say so
    result = {}
    for one in wanted:
        seen = pixels.resized(pixels.resized(image, one.picture.size, downscale), one.fit.resized, "area")
        left, top = (seen.width - one.fit.bucket[0]) // 2, (seen.height - one.fit.bucket[1]) // 2
        seen = seen.crop((left, top, left + one.fit.bucket[0], top + one.fit.bucket[1]))
        seen.thumbnail((_THUMB, _THUMB))
        data = io.BytesIO()
        seen.save(data, "WEBP", quality=70, method=0)
        result[one.folder.path, one.picture.name] = base64.b64encode(data.getvalue()).decode()
    return result


def _coverage(one: Coverage) -> str:
    head = "".join(f"<th>{way}</th>" for way in DIRECTIONS)
    rows = []
    for height, name in zip(HEIGHTS, ("level", "from above", "from below"), strict=True):
        cells = []
        for way in DIRECTIONS:
            count = one.counts.get((height, way), 0)
            kind = "some" if count else "flip" if (height, way) in one.mirrored else "none"
            cells.append(f'<td class="{kind}">{count or ("by a flip" if kind == "flip" else "")}</td>')
        rows.append(f"<tr><td>{name}</td>{''.join(cells)}</tr>")
    title = f"{escape(one.source)}, {'upper' if one.framing == 'f' else 'full'} body"
    return f"<h3>{title}</h3><table><tr><th></th>{head}</tr>{''.join(rows)}</table>"


def _tags(report: Report) -> str:
    rows = (f"<tr><td>{escape(tag)}</td><td>{count}</td></tr>" for tag, count in report.tags().most_common(_TAGS))
    return f"<table><tr><th>tag</th><th>pictures with repeats</th></tr>{''.join(rows)}</table>"
