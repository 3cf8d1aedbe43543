"""What a decoded picture looks like, in a few bytes: enough to find copies and to compare left with right."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Final

from PIL import Image, ImageChops, ImageOps, ImageStat

from orchestrator.dataset import image_headers, image_io, naming
from orchestrator.system import parse_cache

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_SIDE: Final = 64  # pixels of the small picture that all is measured on
_SHIFT: Final = 3  # of those pixels: a character may stand a little beside the middle
_SAME_BITS: Final = 6  # of 256: more than a JPEG of the same picture differs, less than another pose
_SAME_COLOR: Final = 4.0  # mean difference of 8x8 colours, 0..255
_PROGRAM: Final = "looks 2"  # raise it when the same picture looks different
_MANY: Final = 100_000


@dataclass(frozen=True, slots=True)
class Look:
    """What was measured."""

    bits: str = ""
    """256 brightness gradients, as hex."""
    color: str = ""
    """8x8 RGB, as hex."""
    asymmetry: float = 0.0
    """Left from right, 0..1; measured on front views only."""
    error: str = ""
    """Why it cannot be decoded; then nothing was measured."""


def looks(paths: Sequence[Path], memory: Path | None = None) -> dict[Path, Look]:
    """Look at every picture, on all cores; what the file ``memory`` remembers of an unchanged one is not decoded again."""
    known = _remembered(memory)
    keys = {path: _key(path) for path in paths}
    result = {path: known[key] for path, key in keys.items() if key in known}
    missing = [path for path in paths if path not in result]
    with image_io.quiet(), ThreadPoolExecutor(image_io.threads()) as pool:
        result |= dict(zip(missing, pool.map(look, missing), strict=True))
    if missing:
        kept = known if len(known) < _MANY else {}  # what is gone or has changed is left behind now and then
        said = {key: astuple(one) for key, one in (kept | {keys[path]: result[path] for path in paths}).items()}
        parse_cache.keep(memory, _PROGRAM, {}, said)
    return result


def look(path: Path) -> Look:
    """Decode one picture and measure it."""
    try:
        small = image_io.small(path, _SIDE)
    except image_headers.UnreadableError as error:
        return Look(error=str(error))
    grey = small.convert("L").resize((17, 16), Image.Resampling.BOX).tobytes()
    bits = 0
    for row in range(16):
        for left, right in zip(grey[row * 17 : row * 17 + 16], grey[row * 17 + 1 : row * 17 + 17], strict=True):
            bits = bits << 1 | (left > right + 2)  # 2: noise in an even background is no gradient
    color = small.resize((8, 8), Image.Resampling.BOX).tobytes()
    view = naming.view(path.stem)
    front = view is not None and view.direction == "0"
    return Look(f"{bits:064x}", color.hex(), round(asymmetry(small, small), 4) if front else 0.0)


def asymmetry(image: Image.Image, other: Image.Image) -> float:
    """Return how much ``image`` differs from the mirrored ``other``: 0 not at all, 1 as black from white.

    The mirrored picture is shifted by up to 5 % to either side, and the best match counts.
    """
    mirrored = ImageOps.mirror(other)
    differences = []
    for shift in range(-_SHIFT, _SHIFT + 1):
        box = (max(0, shift), 0, image.width + min(0, shift), image.height)
        moved = (max(0, -shift), 0, image.width + min(0, -shift), image.height)
        means = ImageStat.Stat(ImageChops.difference(image.crop(box), mirrored.crop(moved))).mean
        differences.append(sum(means) / len(means) / 255)
    return min(differences)


def pairs(seen: dict[Path, Look]) -> list[tuple[Path, Path]]:
    """Return the pictures that are nearly the same, each pair once."""
    items = [(path, int(one.bits, 16), bytes.fromhex(one.color)) for path, one in seen.items() if not one.error]
    found = []
    for index, (path, bits, color) in enumerate(items):
        for other, other_bits, other_color in items[:index]:
            if (bits ^ other_bits).bit_count() <= _SAME_BITS and _distance(color, other_color) <= _SAME_COLOR:
                found.append((other, path))
    return found


def _distance(one: bytes, other: bytes) -> float:
    return sum(abs(left - right) for left, right in zip(one, other, strict=True)) / len(one)


def _key(path: Path) -> str:
    state = path.stat()
    return f"{path}|{state.st_size}|{state.st_mtime_ns}"


def _remembered(memory: Path | None) -> dict[str, Look]:
    said = parse_cache.recall(memory, _PROGRAM, parse_cache.Marks()) or {}
    with contextlib.suppress(TypeError):
        return {key: Look(*values) for key, values in said.items()}
    return {}
