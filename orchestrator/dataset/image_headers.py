"""Read image headers: size, orientation and format."""

from __future__ import annotations

import time
import warnings
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any, Final

from PIL import Image, UnidentifiedImageError

from orchestrator.system import parse_cache

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

ENDINGS: Final = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})
"""Endings of originals, which become PNG. sd-scripts itself reads png, jpg, jpeg, webp and bmp, each in one case only."""
FORMATS: Final = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
"""Formats of originals, whatever their ending. Pillow's other readers start programs (EPS) or are rarely tested."""
_ORIENTATION: Final = 0x0112  # EXIF tag
_TURNED: Final = (5, 6, 7, 8)  # orientations that swap width and height


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """Header of an image. ``width`` and ``height`` in pixels, upright."""

    width: int
    height: int
    format: str
    mode: str
    orientation: int
    profile: bool
    transparent: bool
    animated: bool
    deep: bool
    """More than 8 bits a channel."""

    @property
    def plain(self) -> bool:
        """Return whether the file can be trained on unchanged.

        That is an 8-bit RGB PNG, upright, opaque, sRGB.
        """
        special = self.profile or self.transparent or self.animated or self.deep or self.orientation != 1
        return self.format == "PNG" and self.mode == "RGB" and not special


class UnreadableError(ValueError):
    """A file that is not an image, or a broken image."""


_headers: dict[tuple[str, int, int, int], ImageHeader] = {}
_used: dict[tuple[str, int, int, int], ImageHeader] = {}


def load_cache(headers: Mapping[str, Sequence[Any]]) -> None:
    """Load the headers that ``dump_cache`` returned to an earlier process."""
    for path, (size, mtime, inode, *fields) in headers.items():
        _headers.setdefault((path, size, mtime, inode), ImageHeader(*fields))


def dump_cache() -> dict[str, list[Any]]:
    """Return the headers that this process has used, as JSON.

    Files that have just changed are left out.
    """
    settled = time.time_ns() - parse_cache.SETTLED_NS
    return {key[0]: [*key[1:], *astuple(_used[key])] for key in sorted(_used) if key[2] < settled}


def read(path: Path) -> ImageHeader:
    """Read the header of ``path``, once for each path, size, mtime and inode.

    Raises:
        UnreadableError: the file is not an image, its header is broken, or it has too many pixels.
    """
    try:
        state = path.stat()
    except OSError as error:
        raise UnreadableError(f"cannot be read: {error.strerror}") from error
    key = (str(path), state.st_size, state.st_mtime_ns, state.st_ino)
    if key not in _headers:
        _headers[key] = _read(path)
    _used[key] = _headers[key]
    return _headers[key]


def _read(path: Path) -> ImageHeader:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            warnings.filterwarnings("ignore", category=UserWarning)  # damaged EXIF: only the image counts
            with Image.open(path, formats=FORMATS) as image:
                return header(image, path)
    except UnidentifiedImageError as error:
        raise UnreadableError("is not an image" if path.stat().st_size else "is empty: 0 bytes") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnreadableError(f"has more than {(Image.MAX_IMAGE_PIXELS or 0) // 10**6} million pixels") from error
    except (OSError, SyntaxError, ValueError, KeyError, EOFError) as error:  # what Pillow's plugins raise for broken files
        raise UnreadableError(f"is broken: {error}") from error


def header(image: Image.Image, path: Path) -> ImageHeader:
    """Return the header of an image that is open and not loaded."""
    orientation = _orientation(image)
    width, height = image.size
    if orientation in _TURNED:
        width, height = height, width
    if not (width > 0 and height > 0):
        raise UnreadableError("has no pixels")
    return ImageHeader(
        width=width,
        height=height,
        format=image.format or "",
        mode=image.mode,
        orientation=orientation,
        profile=bool(image.info.get("icc_profile")),
        transparent=image.mode in {"RGBA", "LA", "PA", "La", "RGBa"} or "transparency" in image.info,
        animated=image.format != "MPO" and bool(getattr(image, "is_animated", False)),  # MPO is a photo and its preview
        deep=image.mode.startswith(("I", "F")) or _png_depth(image, path) > 8,
    )


def _orientation(image: Image.Image) -> int:
    # Pillow decodes a whole PNG to find EXIF behind the pixels; EXIF in front of them is enough.
    if image.format == "PNG" and "exif" not in image.info:
        return 1
    value = image.getexif().get(_ORIENTATION, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _png_depth(image: Image.Image, path: Path) -> int:
    """Return the bits of a channel from IHDR: Pillow shows 16-bit RGB as RGB."""
    if image.format != "PNG":
        return 8
    with path.open("rb") as file:
        return (file.read(25) + bytes(25))[24]
