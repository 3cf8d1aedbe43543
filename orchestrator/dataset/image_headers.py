"""Image headers: size, orientation and what kind of file it is, without decoding a pixel."""

from __future__ import annotations

import time
import warnings
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any, Final

from PIL import Image, UnidentifiedImageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

ENDINGS: Final = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})
"""What originals may be; they become PNG. sd-scripts itself lists png, jpg, jpeg, webp and bmp, each in one case only."""
FORMATS: Final = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
"""What a picture may be inside, whatever its ending: other readers of Pillow start programs (EPS) or are seldom tested."""
_ORIENTATION: Final = 0x0112  # EXIF tag
_TURNED: Final = (5, 6, 7, 8)  # orientations that swap width and height


@dataclass(frozen=True, slots=True)
class Header:
    """What the first bytes of a picture say; ``width`` and ``height`` in pixels, upright."""

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
        """Whether the file can be trained on as it is: 8-bit RGB PNG, upright, opaque, sRGB."""
        special = self.profile or self.transparent or self.animated or self.deep or self.orientation != 1
        return self.format == "PNG" and self.mode == "RGB" and not special


class UnreadableError(ValueError):
    """A file that is no picture, or a broken one; the text says how."""


_seen: dict[tuple[str, int, int, int], Header] = {}
_asked: dict[tuple[str, int, int, int], Header] = {}
_SETTLED_NS: Final = 2_000_000_000  # a file changed a moment ago may change again within the same tick of its clock


def recall(kept: Mapping[str, Sequence[Any]]) -> None:
    """Take up what ``learned`` returned to an earlier process."""
    for path, (size, mtime, inode, *said) in kept.items():
        _seen.setdefault((path, size, mtime, inode), Header(*said))


def learned() -> dict[str, list[Any]]:
    """Return the headers that this process was asked for, as JSON; those of files that have just changed are left out."""
    settled = time.time_ns() - _SETTLED_NS
    return {key[0]: [*key[1:], *astuple(_asked[key])] for key in sorted(_asked) if key[2] < settled}


def read(path: Path) -> Header:
    """Read the header of ``path``; remembered by path, size, mtime and inode.

    Raises:
        UnreadableError: no picture, a broken header, or too many pixels.
    """
    try:
        state = path.stat()
    except OSError as error:
        raise UnreadableError(f"cannot be read: {error.strerror}") from error
    key = (str(path), state.st_size, state.st_mtime_ns, state.st_ino)
    if key not in _seen:
        _seen[key] = _read(path)
    _asked[key] = _seen[key]
    return _asked[key]


def _read(path: Path) -> Header:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            warnings.filterwarnings("ignore", category=UserWarning)  # damaged EXIF; the picture is what counts
            with Image.open(path, formats=FORMATS) as image:
                return header(image, path)
    except UnidentifiedImageError as error:
        raise UnreadableError("is no picture" if path.stat().st_size else "is empty: 0 bytes") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnreadableError(f"has more than {(Image.MAX_IMAGE_PIXELS or 0) // 10**6} million pixels") from error
    except (OSError, SyntaxError, ValueError, KeyError, EOFError) as error:  # what Pillow's plugins raise for broken files
        raise UnreadableError(f"is broken: {error}") from error


def header(image: Image.Image, path: Path) -> Header:
    """Return the header of an image that was opened and not loaded."""
    orientation = _orientation(image)
    width, height = image.size
    if orientation in _TURNED:
        width, height = height, width
    if not (width > 0 and height > 0):
        raise UnreadableError("has no pixels")
    return Header(
        width=width,
        height=height,
        format=image.format or "",
        mode=image.mode,
        orientation=orientation,
        profile=bool(image.info.get("icc_profile")),
        transparent=image.mode in {"RGBA", "LA", "PA", "La", "RGBa"} or "transparency" in image.info,
        animated=image.format != "MPO" and bool(getattr(image, "is_animated", False)),  # MPO: a photo and its preview
        deep=image.mode.startswith(("I", "F")) or _png_depth(image, path) > 8,
    )


def _orientation(image: Image.Image) -> int:
    # Pillow decodes a whole PNG to look for EXIF behind the pixels; what stands in front of them is enough.
    if image.format == "PNG" and "exif" not in image.info:
        return 1
    value = image.getexif().get(_ORIENTATION, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _png_depth(image: Image.Image, path: Path) -> int:
    """Return the bits of a channel as IHDR states them: Pillow shows 16-bit RGB as RGB."""
    if image.format != "PNG":
        return 8
    with path.open("rb") as file:
        return (file.read(25) + bytes(25))[24]
