"""Decode, scale and save images as opaque 8-bit sRGB."""

from __future__ import annotations

import io
import os
import struct
import warnings
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from PIL import Image, ImageChops, ImageCms, UnidentifiedImageError

from orchestrator.dataset import image_headers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from orchestrator.dataset.training_folder import Size

_FILTERS: Final = {"lanczos": Image.Resampling.LANCZOS, "area": Image.Resampling.BOX}
_UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_UP: Final = b"\x02"  # filter type in front of a row
_COMPRESSION: Final = 1  # with runs only (Z_RLE) as small as level 4 on drawings, in a quarter of the time of level 6


def load(path: Path, background: str) -> Image.Image:
    """Return the image as 8-bit RGB in sRGB, upright.

    Its transparent parts show ``background`` (``#rrggbb``).

    Raises:
        image_headers.UnreadableError: broken or truncated.
    """
    with _open(path) as image:
        header = image_headers.header(image, path)
        image.load()
        return _plain(image, header, background)


def thumbnail(path: Path, side: int) -> Image.Image:
    """Return the image as RGB at ``side`` x ``side`` pixels.

    For measuring: its shape and ICC profile are ignored.

    Raises:
        image_headers.UnreadableError: broken or truncated.
    """
    with _open(path) as image:
        header = image_headers.header(image, path)
        if image.format == "JPEG":
            image.draft("RGB", (side * 4, side * 4))  # decodes an eighth, a quarter or a half of the pixels
        image.load()
        factor = max(1, min(image.width, image.height) // (side * 2))
        reduced = image.reduce(factor) if factor > 1 and image.mode in {"RGB", "L", "RGBA"} else image
        reduced.info.pop("icc_profile", None)
        return _plain(reduced, header, "#ffffff").resize((side, side), Image.Resampling.BOX)


def thread_count() -> int:
    """Return the number of useful threads.

    Pillow releases the interpreter's lock to decode, scale and encode.
    """
    return max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


@contextmanager
def without_warnings() -> Iterator[None]:
    """Silence Pillow's warnings, as the headers are checked already.

    Enclose a thread pool: filters belong to the process.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _open(path: Path) -> Iterator[Image.Image]:
    """Open an image and translate Pillow's errors."""
    try:
        with Image.open(path, formats=image_headers.FORMATS) as image:
            yield image
    except image_headers.UnreadableError:
        raise
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise image_headers.UnreadableError(f"cannot be decoded: {error}") from error


def resized(image: Image.Image, size: Size, downscale: str) -> Image.Image:
    """Return ``image`` at ``size`` (width, height), which is not larger."""
    # 3.0: averages whole pixels first if at least three become one; Pillow calls the result hardly distinguishable
    return image if image.size == size else image.resize(size, _FILTERS[downscale], reducing_gap=3.0)


def save(image: Image.Image, path: Path) -> None:
    """Write an RGB image as PNG without metadata.

    The same pixels give the same bytes.

    By hand (PNG specification, 3rd edition), because Pillow tries five filters for every row. The difference from the row
    above is as small on drawings, in three fifths of the time.
    """
    above = Image.new("RGB", image.size)
    above.paste(image, (0, 1))
    difference, width = ImageChops.subtract_modulo(image, above).tobytes(), 3 * image.width
    rows = b"".join(_UP + difference[start : start + width] for start in range(0, len(difference), width))
    packer = zlib.compressobj(_COMPRESSION, strategy=zlib.Z_RLE, memLevel=9)
    data = packer.compress(rows) + packer.flush()
    header = struct.pack(">2I5B", *image.size, 8, 2, 0, 0, 0)  # 8 bits a channel, RGB, not interlaced
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b""))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))


def _plain(image: Image.Image, header: image_headers.ImageHeader, background: str) -> Image.Image:
    profile = image.info.get("icc_profile")
    if image.mode.startswith(("I", "F")):
        image = _eight_bits(image)
    if header.transparent:
        image = image.convert("RGBA")
    elif image.mode not in {"RGB", "L", "CMYK"}:
        image = image.convert("RGB")
    if profile:
        image = _srgb(image, profile)
    if header.transparent:
        image = Image.alpha_composite(Image.new("RGBA", image.size, background), image.convert("RGBA"))
    image = image.convert("RGB")
    return image.transpose(_UPRIGHT[header.orientation]) if header.orientation in _UPRIGHT else image


def _eight_bits(image: Image.Image) -> Image.Image:
    """Return 16-bit grey as 8-bit grey: 65535 becomes 255."""
    if image.mode == "F":
        raise image_headers.UnreadableError("has floating-point pixels of unknown range; save it with 8 or 16 bits")
    return image.convert("I").point(lambda value: value * (1 / 257) + 0.5).convert("L")


def _srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Return ``image`` converted from its ICC profile to sRGB."""
    mode = "RGBA" if image.mode == "RGBA" else "RGB"
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode=mode)
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image
    return image if converted is None else converted
