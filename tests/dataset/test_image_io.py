"""Pixels: orientation, transparency, depth, colour profiles, scaling and saving."""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from dataset_cases import noise
from orchestrator.dataset import image_headers, image_io

if TYPE_CHECKING:
    from pathlib import Path

WHITE = "#ffffff"


def loaded(
    image: Image.Image, tmp_path: Path, form: str = "PNG", background: str = WHITE, **options: Any
) -> np.ndarray[Any, Any]:
    path = tmp_path / f"image.{form.lower()}"
    image.save(path, form, **options)
    return np.asarray(image_io.load(path, background))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    upright = noise(6, 4)
    back = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}[orientation]  # the transposition that undoes the tag
    stored = Image.fromarray(upright)
    stored = stored if back is None else stored.transpose(Image.Transpose(back))
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert np.array_equal(loaded(stored, tmp_path, exif=exif), upright)
    header = image_headers.read(tmp_path / "image.png")
    assert (header.width, header.height) == (6, 4)


def test_alpha_shows_the_background(tmp_path: Path) -> None:
    image = Image.new("RGBA", (4, 4), (200, 100, 0, 0))
    image.putpixel((1, 1), (200, 100, 0, 255))
    image.putpixel((2, 2), (0, 0, 0, 128))
    for background, empty, half in ((WHITE, 255, 127), ("#000000", 0, 0)):
        pixels = loaded(image, tmp_path, background=background)
        assert pixels[0, 0].tolist() == [empty] * 3
        assert pixels[1, 1].tolist() == [200, 100, 0]
        assert abs(int(pixels[2, 2, 0]) - half) <= 1


def test_palettes_grey_and_sixteen_bits(tmp_path: Path) -> None:
    colors = Image.new("P", (2, 1))
    colors.putpalette([255, 0, 0, 0, 0, 255])
    colors.putpixel((1, 0), 1)
    assert loaded(colors, tmp_path).tolist() == [[[255, 0, 0], [0, 0, 255]]]
    assert loaded(colors, tmp_path, transparency=1, background="#00ff00").tolist() == [[[255, 0, 0], [0, 255, 0]]]
    deep = Image.fromarray(np.array([[0, 257, 32896, 65535]], np.uint16))
    assert loaded(deep, tmp_path)[0, :, 0].tolist() == [0, 1, 128, 255]
    assert image_headers.read(tmp_path / "image.png").deep
    assert loaded(Image.new("L", (1, 1), 77), tmp_path).tolist() == [[[77, 77, 77]]]
    assert loaded(Image.new("1", (1, 1), 1), tmp_path).tolist() == [[[255, 255, 255]]]
    with pytest.raises(image_headers.UnreadableError, match="floating-point"):
        loaded(Image.new("F", (1, 1)), tmp_path, "TIFF")


def test_sixteen_bit_colour_is_not_copied(tmp_path: Path) -> None:
    """Pillow and the trainer open it as RGB, but other readers do not."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    row = b"\0" + struct.pack(">3H", 65535, 32896, 0)
    data = (
        chunk(b"IHDR", struct.pack(">2I5B", 1, 1, 16, 2, 0, 0, 0)) + chunk(b"IDAT", zlib.compress(row)) + chunk(b"IEND", b"")
    )
    path = tmp_path / "deep.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    header = image_headers.read(path)
    assert header.deep
    assert not header.plain
    assert np.asarray(image_io.load(path, WHITE)).tolist() == [[[255, 128, 0]]]


def test_icc_profiles_become_srgb(tmp_path: Path) -> None:
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert loaded(Image.new("RGB", (1, 1), (10, 200, 90)), tmp_path, icc_profile=lab).tolist() == [[[10, 200, 90]]]
    swapped = _with_red_and_green_swapped(lab)
    assert loaded(Image.new("RGB", (1, 1), (250, 0, 0)), tmp_path, icc_profile=swapped)[0, 0].tolist() == [0, 250, 0]
    alpha = Image.new("RGBA", (1, 1), (250, 0, 0, 255))
    assert loaded(alpha, tmp_path, icc_profile=swapped)[0, 0].tolist() == [0, 250, 0]
    assert loaded(Image.new("RGB", (1, 1), (10, 200, 90)), tmp_path, icc_profile=b"broken").tolist() == [[[10, 200, 90]]]
    assert not image_headers.read(tmp_path / "image.png").plain


def _with_red_and_green_swapped(profile: bytes) -> bytes:
    """Return a profile with the tags of red and green swapped."""
    count = int.from_bytes(profile[128:132], "big")
    table = bytearray(profile)
    names = {b"rXYZ": b"gXYZ", b"gXYZ": b"rXYZ"}
    for index in range(count):
        at = 132 + 12 * index
        table[at : at + 4] = names.get(bytes(table[at : at + 4]), bytes(table[at : at + 4]))
    return bytes(table)


def test_cmyk_and_animations(tmp_path: Path) -> None:
    assert loaded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), tmp_path, "JPEG")[0, 0, 0] > 200
    first, second = Image.new("RGB", (4, 4), "red"), Image.new("RGB", (4, 4), "blue")
    pixels = loaded(first, tmp_path, "WEBP", save_all=True, append_images=[second], lossless=True)
    assert pixels[0, 0].tolist() == [255, 0, 0]
    assert image_headers.read(tmp_path / "image.webp").animated


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 9), (7, 1), (33, 20), (96, 64)])
def test_saved_pixels_are_unchanged(tmp_path: Path, width: int, height: int) -> None:
    image_io.save(Image.fromarray(noise(width, height)), tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        image.verify()
    with Image.open(tmp_path / "a.png") as image:
        assert (image.mode, image.info) == ("RGB", {})
        assert np.array_equal(np.asarray(image), noise(width, height))
    assert image_headers.read(tmp_path / "a.png").plain


@pytest.mark.parametrize("way", ["lanczos", "area"])
def test_downscaling_averages_and_does_not_pick(way: str) -> None:
    """Dropped pixels would make stripes of a fine pattern.

    Averaging makes it even.
    """
    stripes = np.zeros((120, 120, 3), np.uint8)
    stripes[:, ::2] = 255
    small = np.asarray(image_io.resized(Image.fromarray(stripes), (40, 40), way)).astype(int)
    assert abs(small[:, 2:-2].mean() - 127.5) < 4
    assert small[:, 2:-2].std() < 45
