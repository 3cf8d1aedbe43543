"""Rules of ``dataset check`` for images, and the list of all rules."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final

from orchestrator.dataset import image_headers, naming
from orchestrator.dataset.latent_links import latent_caches
from orchestrator.dataset.lint.caption_rules import captions, triggers
from orchestrator.dataset.lint.findings import Finding, Level
from orchestrator.dataset.lint.image_hash import alike, hash_image, near_copies
from orchestrator.errors import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from orchestrator.dataset.lint.findings import Inspected

_ENLARGED: Final = 1.25  # times; more is visibly soft
_CROPPED: Final = 0.15  # share of an image
_EXTREME: Final = 3.0  # width to height, or height to width
_ASYMMETRIC: Final = 0.06  # image_hash.asymmetry; 0.01 to 0.045 are the demo's symmetric characters with a tail
_ENDINGS: Final = {
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg"),
    "MPO": (".jpg", ".jpeg"),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
}
_SD_SCRIPTS: Final = tuple(ending for lower in (".png", ".jpg", ".jpeg", ".webp", ".bmp") for ending in (lower, lower.upper()))


def files(inspected: Inspected) -> Iterator[Finding]:
    """Find broken files, wrong endings, and files that are silently ignored."""
    for role, (folder, image) in inspected.originals().items():
        path, where = image.original, inspected.display(image.original)
        error = inspected.hashes[path].error
        if error:
            yield Finding(Level.ERROR, where, error, "replace it, or move it away")
        header = image_headers.read(path)
        if path.suffix.lower() not in _ENDINGS.get(header.format, (path.suffix.lower(),)):
            what = f"is {header.format} inside, in spite of its ending"
            yield Finding(Level.WARNING, where, what, "rename it; the build reads it correctly")
        if header.mode == "CMYK":
            what = "has CMYK colours, made for print; they become sRGB"
            yield Finding(Level.WARNING, where, what, "save it as RGB to choose the colours yourself")
        if _is_gray(inspected.hashes[path].color):
            what = "has no colours, which the LoRA would learn"
            yield Finding(Level.WARNING, where, what, "leave it out, or write monochrome, greyscale in its caption")
        if header.transparent:
            color = inspected.dataset.sources[folder.source].background_color or inspected.dataset.background_color
            what = f"is transparent; its background becomes {color}"
            yield Finding(Level.NOTE, where, what, f"dataset.sources.{folder.source}.background_color")
        if header.animated:
            yield Finding(
                Level.WARNING, where, "is animated; only its first frame is used", "save the right frame as an image"
            )
        if path.suffix not in _SD_SCRIPTS:
            yield Finding(Level.NOTE, where, f"ends in {path.suffix}, which sd-scripts ignores; the build makes a PNG of it")
        if role.count("\n"):
            yield Finding(Level.ERROR, where, "has a line break in its name", "rename it")
    for ignored in inspected.layout.ignored:
        yield Finding(Level.WARNING, inspected.display(ignored.path), ignored.why, ignored.hint)


def _is_gray(color: str) -> bool:
    """Return whether 8x8 RGB values, as hex, are gray to a difference of 2."""
    values = bytes.fromhex(color)
    pixels = [values[start : start + 3] for start in range(0, len(values), 3)]
    return bool(pixels) and all(max(pixel) - min(pixel) <= 2 for pixel in pixels)


def caches(inspected: Inspected) -> Iterator[Finding]:
    """Find latent caches that are older than their images.

    The trainer checks their size only.
    """
    if inspected.built is None:
        return
    for folder in inspected.layout.folders:
        for image in folder.images:
            path = inspected.built / folder.path / image.name
            for cache in latent_caches(path):
                if path.exists() and cache.stat().st_mtime_ns < path.stat().st_mtime_ns:
                    what = "is a latent cache older than its image; the trainer would use it"
                    yield Finding(Level.WARNING, inspected.display(cache), what, "delete it")


def sizes(inspected: Inspected) -> Iterator[Finding]:
    """Find enlarged, cropped and extreme images, and unfilled batches."""
    worst: dict[Path, tuple[float, str]] = defaultdict(lambda: (0.0, ""))
    enlarged: dict[Path, tuple[float, str]] = defaultdict(lambda: (0.0, ""))
    for bucket in inspected.prediction.buckets:
        size = f"{bucket.size[0]}x{bucket.size[1]}"
        for bucketed in bucket.images:
            original = bucketed.image.original
            where = f"class {bucket.resolution[0]}x{bucket.resolution[1]}, bucket {size}"
            worst[original] = max(worst[original], (bucketed.fit.crop_loss, where))
            times = bucketed.fit.resized[0] / bucketed.image.size[0]
            enlarged[original] = max(enlarged[original], (times, where))
        if bucket.missing:
            batches = f"{bucket.batches} {'batch' if bucket.batches == 1 else 'batches'} of {bucket.batch_size}"
            what = f"{counted(bucket.count, 'image')} with repeats in {batches}: the last lacks {bucket.missing}"
            yield Finding(Level.NOTE, f"bucket {size} of {bucket.resolution[0]}x{bucket.resolution[1]}", what)
    for path, (loss, where) in worst.items():
        if loss > _CROPPED:
            what = f"loses {loss:.0%} of its area at its edges ({where})"
            hint = f"crop it to multiples of {inspected.dataset.bucket_reso_steps}"
            yield Finding(Level.WARNING, inspected.display(path), what, hint)
    for path, (times, where) in enlarged.items():
        if times > _ENLARGED:
            what = f"is too small for its class: enlarged {times:.1f} times ({where})"
            hint = "use a larger image, or dataset.bucket_no_upscale = true"
            yield Finding(Level.WARNING, inspected.display(path), what, hint)
    for folder, image in inspected.originals().values():
        width, height = image.original_size
        source = inspected.dataset.sources[folder.source]
        larger = [size for size in (inspected.dataset.sizes if source.sizes is None else source.sizes) if size > width]
        if larger and source.reading == "pictures" and not folder.regularization:
            what = f"is {width} wide, too small to be trained at {', '.join(map(str, larger))}: nothing is enlarged"
            yield Finding(Level.NOTE, inspected.display(image.original), what)
        if max(width / height, height / width) > _EXTREME:
            what = f"{width}x{height} is an extreme shape"
            yield Finding(Level.WARNING, inspected.display(image.original), what, "crop it, or cut it in two")


def copies(inspected: Inspected) -> Iterator[Finding]:
    """Find near copies.

    One name at several sizes is allowed in folders that are read unchanged.
    """
    names = {image.original: (folder.source, image.name) for folder, image in inspected.originals().values()}
    others: dict[Path, list[Path]] = defaultdict(list)
    held_out = _held_out(inspected)
    for first, second in near_copies(inspected.hashes):
        apart = (first in held_out) != (second in held_out)  # see held_out_copies
        if names[first] != names[second] and not apart:
            others[second].append(first)
    for path, same in others.items():
        more = f" and {len(same) - 1} more" if len(same) > 1 else ""
        what = f"looks nearly the same as {inspected.display(same[0])}{more}"
        hint = "keep one; to raise its share set `repeats` of its source"
        yield Finding(Level.WARNING, inspected.display(path), what, hint)


def held_out_copies(inspected: Inspected) -> Iterator[Finding]:
    """Find trained copies of held-out images, also mirrored ones."""
    held_out = _held_out(inspected)
    trained = {path: one for path, one in inspected.hashes.items() if path not in held_out}
    for path in sorted(held_out):
        for words, own in (("", inspected.hashes[path]), ("mirrored ", hash_image(path, mirrored=True))):
            same = next((other for other in sorted(trained) if alike(own, trained[other])), None)
            if same is not None:
                what = f"is held out, and looks {words}nearly the same as {inspected.display(same)}, which is trained"
                yield Finding(Level.WARNING, inspected.display(path), what, "training.validation.images: hold out both")
                break


def _held_out(inspected: Inspected) -> set[Path]:
    return {image.original for folder in inspected.layout.held_out for image in folder.images}


def flips(inspected: Inspected) -> Iterator[Finding]:
    """Find flips of asymmetric characters."""
    fronts: dict[str, set[Path]] = defaultdict(set)
    for folder, image in inspected.originals().values():
        view = naming.view(image.name)
        front = view is not None and view.direction == "0" and not inspected.hashes[image.original].error
        if folder.flip and not folder.regularization and front:
            fronts[folder.source].add(image.original)
    for source, paths in fronts.items():
        mean = sum(inspected.hashes[path].asymmetry for path in paths) / len(paths)
        if mean > _ASYMMETRIC:
            what = f"flips are on, and its front views differ by {mean:.1%} from their mirror image (limit {_ASYMMETRIC:.0%})"
            hint = f"set dataset.sources.{source}.flip = false, or keep it if only the pose differs"
            yield Finding(Level.WARNING, f"dataset.sources.{source}", what, hint)


def views(inspected: Inspected) -> Iterator[Finding]:
    """Find views of the subject without an image."""
    regularization = {folder.source for folder in inspected.layout.folders if folder.regularization}
    for coverage in inspected.coverage:
        missing = () if coverage.source in regularization else coverage.missing()
        if missing:
            name = {"f": "upper body", "b": "full body"}[coverage.framing]
            yield Finding(Level.NOTE, f"dataset.sources.{coverage.source}", f"{name}: no image from {', '.join(missing)}")


def unused_regularization(inspected: Inspected) -> Iterator[Finding]:
    """Find regularization images that the trainer never reaches."""
    for resolution, folders in inspected.layout.classes():
        train = sum(folder.repeats * len(folder.images) for folder in folders if not folder.regularization)
        pool = sum(folder.repeats * len(folder.images) for folder in folders if folder.regularization)
        if pool > train:
            what = f"{pool} regularization images with repeats for {train} of the subject: the rest is never used"
            hint = "lower the repeats of the regularization sources, raise the subject's, or use fewer"
            yield Finding(Level.WARNING, f"class {resolution[0]}x{resolution[1]}", what, hint)


RULES: Final[tuple[Callable[[Inspected], Iterator[Finding]], ...]] = (
    files,
    caches,
    captions,
    triggers,
    sizes,
    copies,
    held_out_copies,
    flips,
    views,
    unused_regularization,
)
