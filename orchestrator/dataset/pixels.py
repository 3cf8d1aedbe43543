"""Pixels: any original to upright, opaque, 8-bit sRGB, and smaller without artefacts."""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING, Final

from PIL import Image, ImageCms, UnidentifiedImageError

from orchestrator.dataset import headers

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.dataset.folders import Size

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
_COMPRESSION: Final = 1  # the folders live as long as a training; 1 is five times as fast as 6 and a fifth larger


def load(path: Path, background: str) -> Image.Image:
    """Return the picture as 8-bit RGB in sRGB, upright, on ``background`` (``#rrggbb``) where it is transparent.

    Raises:
        headers.UnreadableError: broken or truncated.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the header has been judged; threads share these filters
            image = Image.open(path)
            with image:
                what = headers.header(image, path)
                image.load()
                return _plain(image, what, background)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        if isinstance(error, headers.UnreadableError):
            raise
        raise headers.UnreadableError(f"cannot be decoded: {error}") from error


def resized(image: Image.Image, size: Size, downscale: str) -> Image.Image:
    """Return ``image`` at ``size`` (width, height), which is never larger."""
    return image if image.size == size else image.resize(size, _FILTERS[downscale])


def save(image: Image.Image, path: Path) -> None:
    """Write a PNG without any metadata: the same pixels give the same bytes."""
    image.info.clear()
    image.save(path, "PNG", compress_level=_COMPRESSION)


def _plain(image: Image.Image, what: headers.Header, background: str) -> Image.Image:
    profile = image.info.get("icc_profile")
    if image.mode.startswith(("I", "F")):
        image = _eight_bits(image)
    if what.transparent:
        image = image.convert("RGBA")
    elif image.mode not in {"RGB", "L", "CMYK"}:
        image = image.convert("RGB")
    if profile:
        image = _srgb(image, profile)
    if what.transparent:
        image = Image.alpha_composite(Image.new("RGBA", image.size, background), image.convert("RGBA"))
    image = image.convert("RGB")
    return image.transpose(_UPRIGHT[what.orientation]) if what.orientation in _UPRIGHT else image


def _eight_bits(image: Image.Image) -> Image.Image:
    """Return 16-bit grey as 8-bit grey; 65535 becomes 255."""
    if image.mode == "F":
        raise headers.UnreadableError("has floating-point pixels, whose white is not known; save it with 8 or 16 bits")
    return image.convert("I").point(lambda value: value * (1 / 257) + 0.5).convert("L")


def _srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Return ``image`` converted from its ICC profile; as it is when the profile does not fit the pixels."""
    mode = "RGBA" if image.mode == "RGBA" else "RGB"
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode=mode)
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image
    return image if converted is None else converted
