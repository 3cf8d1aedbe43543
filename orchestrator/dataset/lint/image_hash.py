"""Hash images to find copies and measure their asymmetry."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Final

from PIL import Image, ImageChops, ImageOps, ImageStat

from orchestrator.dataset import image_headers, image_io, naming

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from orchestrator.system.parse_cache import ParseCache

_SIDE: Final = 64  # pixels of the thumbnail that is measured
_SHIFT: Final = 3  # of those pixels: a character may stand a little beside the middle
_SAME_BITS: Final = 6  # of 256: more than a JPEG of the same image differs, less than another pose
_SAME_COLOR: Final = 4.0  # mean difference of 8x8 colours, 0..255
VERSION: Final = "looks 2"  # raise it when the same image gives another hash
_MANY: Final = 100_000


@dataclass(frozen=True, slots=True)
class ImageHash:
    """Measurements of one image."""

    bits: str = ""
    """256 brightness gradients, as hex."""
    color: str = ""
    """8x8 RGB, as hex."""
    asymmetry: float = 0.0
    """Difference of left and right, 0..1; measured on front views only."""
    error: str = ""
    """Reason why the image cannot be decoded; the other fields are then empty."""


def hash_images(paths: Sequence[Path], cache: ParseCache | None = None) -> dict[Path, ImageHash]:
    """Hash every image on all cores.

    Unchanged images with a hash in ``cache`` are not decoded again.
    """
    cached = _load(cache)
    keys = {path: _key(path) for path in paths}
    result = {path: cached[key] for path, key in keys.items() if key in cached}
    missing = [path for path in paths if path not in result]
    with image_io.without_warnings(), ThreadPoolExecutor(image_io.thread_count()) as pool:
        result |= dict(zip(missing, pool.map(hash_image, missing), strict=True))
    if missing and cache is not None:
        # A cache that has grown large is begun anew, without the images that are gone.
        hashes = (cached if len(cached) < _MANY else {}) | {keys[path]: result[path] for path in paths}
        cache.put({key: astuple(image_hash) for key, image_hash in hashes.items()})
    return result


def hash_image(path: Path, *, mirrored: bool = False) -> ImageHash:
    """Decode and hash one image, or its mirror image."""
    try:
        thumbnail = image_io.thumbnail(path, _SIDE)
    except image_headers.UnreadableError as error:
        return ImageHash(error=str(error))
    if mirrored:
        thumbnail = ImageOps.mirror(thumbnail)
    grey = thumbnail.convert("L").resize((17, 16), Image.Resampling.BOX).tobytes()
    bits = 0
    for row in range(16):
        for left, right in zip(grey[row * 17 : row * 17 + 16], grey[row * 17 + 1 : row * 17 + 17], strict=True):
            bits = bits << 1 | (left > right + 2)  # a difference of 2 is noise in an even background
    color = thumbnail.resize((8, 8), Image.Resampling.BOX).tobytes()
    view = naming.view(path.stem)
    front = view is not None and view.direction == "0"
    return ImageHash(f"{bits:064x}", color.hex(), round(asymmetry(thumbnail, thumbnail), 4) if front else 0.0)


def asymmetry(image: Image.Image, other: Image.Image) -> float:
    """Return the difference of ``image`` and the mirrored ``other``.

    It is 0 for equal images, 1 for black and white.

    The mirror image is shifted by up to 5 % to either side; the best match counts.
    """
    mirrored = ImageOps.mirror(other)
    differences = []
    for shift in range(-_SHIFT, _SHIFT + 1):
        box = (max(0, shift), 0, image.width + min(0, shift), image.height)
        shifted = (max(0, -shift), 0, image.width + min(0, -shift), image.height)
        means = ImageStat.Stat(ImageChops.difference(image.crop(box), mirrored.crop(shifted))).mean
        differences.append(sum(means) / len(means) / 255)
    return min(differences)


def near_copies(hashes: dict[Path, ImageHash]) -> list[tuple[Path, Path]]:
    """Return the pairs of nearly equal images, each pair once."""
    items = [(path, int(one.bits, 16), bytes.fromhex(one.color)) for path, one in hashes.items() if not one.error]
    pairs = []
    for index, (path, bits, color) in enumerate(items):
        for other, other_bits, other_color in items[:index]:
            if (bits ^ other_bits).bit_count() <= _SAME_BITS and _distance(color, other_color) <= _SAME_COLOR:
                pairs.append((other, path))
    return pairs


def alike(first: ImageHash, second: ImageHash) -> bool:
    """Return whether two decoded images are nearly equal."""
    if first.error or second.error:
        return False
    bits = (int(first.bits, 16) ^ int(second.bits, 16)).bit_count()
    return bits <= _SAME_BITS and _distance(bytes.fromhex(first.color), bytes.fromhex(second.color)) <= _SAME_COLOR


def _distance(first: bytes, second: bytes) -> float:
    return sum(abs(left - right) for left, right in zip(first, second, strict=True)) / len(first)


def _key(path: Path) -> str:
    state = path.stat()
    return f"{path}|{state.st_size}|{state.st_mtime_ns}"


def _load(cache: ParseCache | None) -> dict[str, ImageHash]:
    fields = cache.get() if cache is not None else {}
    with contextlib.suppress(TypeError):
        return {key: ImageHash(*values) for key, values in fields.items()}
    return {}
