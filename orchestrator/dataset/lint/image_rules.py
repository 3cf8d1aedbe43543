"""The rules of ``dataset check``: each looks at a whole dataset and yields (level, where, what, hint)."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final

from orchestrator.dataset import image_headers, naming
from orchestrator.dataset.latent_links import latent_caches
from orchestrator.dataset.lint.caption_rules import Said, captions, triggers
from orchestrator.dataset.lint.image_hash import pairs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from orchestrator.dataset.lint.findings import Inspected

_ENLARGED: Final = 1.25  # times; more is visibly soft
_CROPPED: Final = 0.15  # share of a picture
_EXTREME: Final = 3.0  # width to height, or height to width
_ASYMMETRIC: Final = 0.06  # looks.asymmetry; 0.01 to 0.045 are the demo's symmetric characters with a tail
_ENDINGS: Final = {
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg"),
    "MPO": (".jpg", ".jpeg"),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
}
_SD_SCRIPTS: Final = tuple(ending for lower in (".png", ".jpg", ".jpeg", ".webp", ".bmp") for ending in (lower, lower.upper()))


def files(seen: Inspected) -> Iterator[Said]:
    """Broken files, wrong endings, and files that would be lost without a word."""
    for role, (folder, picture) in seen.originals().items():
        path, where = picture.original, seen.shown(picture.original)
        error = seen.looks[path].error
        if error:
            yield "error", where, error, "replace it, or move it away"
        header = image_headers.read(path)
        if path.suffix.lower() not in _ENDINGS.get(header.format, (path.suffix.lower(),)):
            yield (
                "warning",
                where,
                f"is {header.format} inside, whatever its ending says",
                "rename it; the build reads it rightly",
            )
        if header.mode == "CMYK":
            yield (
                "warning",
                where,
                "has CMYK colours, made for print; they become sRGB",
                "save it as RGB to choose the colours yourself",
            )
        if header.transparent:
            color = seen.dataset.sources[folder.source].background_color or seen.dataset.background_color
            yield "note", where, f"is transparent; it stands on {color}", f"dataset.sources.{folder.source}.background_color"
        if header.animated:
            yield "warning", where, "is animated; only its first frame is used", "save the frame you mean"
        if path.suffix not in _SD_SCRIPTS:
            yield (
                "note",
                where,
                f"ends in {path.suffix}, which sd-scripts itself would not see; the build makes a PNG of it",
                "",
            )
        if role.count("\n"):
            yield "error", where, "has a line break in its name", "rename it"
    for one in seen.layout.ignored:
        yield "warning", seen.shown(one.path), one.why, one.hint


def caches(seen: Inspected) -> Iterator[Said]:
    """Latent caches in the built folder that are older than their pictures: the trainer checks their size only."""
    for folder in seen.layout.folders if seen.built is not None else ():
        for picture in folder.pictures:
            path = (seen.built or seen.root) / folder.path / picture.name
            stale = [
                cache for cache in latent_caches(path) if path.exists() and cache.stat().st_mtime_ns < path.stat().st_mtime_ns
            ]
            for cache in stale:
                yield (
                    "warning",
                    seen.shown(cache),
                    "is a latent cache older than its picture; the trainer would believe it",
                    "delete it",
                )


def sizes(seen: Inspected) -> Iterator[Said]:
    """Pictures that are enlarged, cropped or out of shape, and batches that stay half empty."""
    worst: dict[Path, tuple[float, str]] = defaultdict(lambda: (0.0, ""))
    enlarged: dict[Path, tuple[float, str]] = defaultdict(lambda: (0.0, ""))
    for bucket in seen.prediction.buckets:
        size = f"{bucket.size[0]}x{bucket.size[1]}"
        for placed in bucket.placed:
            original = placed.picture.original
            where = f"class {bucket.resolution[0]}x{bucket.resolution[1]}, bucket {size}"
            worst[original] = max(worst[original], (placed.fit.crop_loss, where))
            times = placed.fit.resized[0] / placed.picture.size[0]
            enlarged[original] = max(enlarged[original], (times, where))
        if bucket.missing:
            batches = f"{bucket.batches} batches of {bucket.batch_size}"
            what = f"{bucket.count} pictures with repeats in {batches}: the last lacks {bucket.missing}"
            yield "note", f"bucket {size} of {bucket.resolution[0]}x{bucket.resolution[1]}", what, ""
    for path, (loss, where) in worst.items():
        if loss > _CROPPED:
            yield (
                "warning",
                seen.shown(path),
                f"loses {loss:.0%} of its area at its edges ({where})",
                f"crop it to multiples of {seen.dataset.bucket_reso_steps}",
            )
    for path, (times, where) in enlarged.items():
        if times > _ENLARGED:
            hint = "use a larger picture, or dataset.bucket_no_upscale = true"
            yield "warning", seen.shown(path), f"is too small for its class: enlarged {times:.1f} times ({where})", hint
    for folder, picture in seen.originals().values():
        width, height = picture.original_size
        source = seen.dataset.sources[folder.source]
        larger = [size for size in (seen.dataset.sizes if source.sizes is None else source.sizes) if size > width]
        if larger and source.reading == "pictures" and not folder.regularization:
            what = f"is {width} wide, too small to be trained at {', '.join(map(str, larger))}: nothing is enlarged"
            yield "note", seen.shown(picture.original), what, ""
        if max(width / height, height / width) > _EXTREME:
            yield "warning", seen.shown(picture.original), f"{width}x{height} is an extreme shape", "crop it, or cut it in two"


def copies(seen: Inspected) -> Iterator[Said]:
    """Nearly the same picture twice; one name at several sizes, in folders that are read as they are, is meant so."""
    named = {picture.original: (folder.source, picture.name) for folder, picture in seen.originals().values()}
    others: dict[Path, list[Path]] = defaultdict(list)
    for first, second in pairs(seen.looks):
        if named[first] != named[second]:
            others[second].append(first)
    for path, same in others.items():
        more = f" and {len(same) - 1} more" if len(same) > 1 else ""
        yield (
            "warning",
            seen.shown(path),
            f"looks nearly the same as {seen.shown(same[0])}{more}",
            "keep one; to raise its share set `repeats` of its source",
        )


def flips(seen: Inspected) -> Iterator[Said]:
    """Flips of a character whose left differs from its right, measured on the front views."""
    fronts: dict[str, set[Path]] = defaultdict(set)
    for folder, picture in seen.originals().values():
        view = naming.view(picture.name)
        if (
            folder.flip
            and not folder.regularization
            and view
            and view.direction == "0"
            and not seen.looks[picture.original].error
        ):
            fronts[folder.source].add(picture.original)
    for source, paths in fronts.items():
        mean = sum(seen.looks[path].asymmetry for path in paths) / len(paths)
        if mean > _ASYMMETRIC:
            what = f"flips are on, and its front views differ by {mean:.1%} from their mirror image (limit {_ASYMMETRIC:.0%})"
            yield (
                "warning",
                f"dataset.sources.{source}",
                what,
                f"set dataset.sources.{source}.flip = false, or keep it if that is the pose only",
            )


def views(seen: Inspected) -> Iterator[Said]:
    """Views of the convention without a picture; of others than the subject none is missed."""
    others = {folder.source for folder in seen.layout.folders if folder.regularization}
    for one in seen.coverage:
        missing = () if one.source in others else one.missing()
        if missing:
            name = {"f": "upper body", "b": "full body"}[one.framing]
            yield "note", f"dataset.sources.{one.source}", f"{name}: no picture from {', '.join(missing)}", ""


def regularization(seen: Inspected) -> Iterator[Said]:
    """Regularization pictures that are never reached."""
    for resolution, members in seen.layout.classes():
        train = sum(one.repeats * len(one.pictures) for one in members if not one.regularization)
        pool = sum(one.repeats * len(one.pictures) for one in members if one.regularization)
        if pool > train:
            what = f"{pool} regularization pictures with repeats for {train} of the subject: the rest is never used"
            yield (
                "warning",
                f"class {resolution[0]}x{resolution[1]}",
                what,
                "lower the repeats of the regularization sources, raise the subject's, or use fewer",
            )


RULES: Final[tuple[Callable[[Inspected], Iterator[Said]], ...]] = (
    files,
    caches,
    captions,
    triggers,
    sizes,
    copies,
    flips,
    views,
    regularization,
)
