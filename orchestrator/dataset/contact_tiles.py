"""Draw tiles of training images, cropped to their buckets."""

from __future__ import annotations

from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Final

from PIL import Image

from orchestrator.dataset import image_headers, image_io

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.dataset.buckets import Bucket, BucketedImage, Prediction
    from orchestrator.dataset.training_folder import Size
    from orchestrator.recipe import Dataset

SIDE: Final = 96
"""Pixels of a tile's square; smaller buckets are not enlarged."""
COLUMNS: Final = 20
MOST: Final = 600
"""Tiles of one sheet: 20 x 30 squares, about half a megabyte."""
_QUALITY: Final = 75

Key = tuple[str, str]  # folder in the built dataset, file name


@dataclass(frozen=True, slots=True)
class Tile:
    """Position and size in pixels of an image on its sheet."""

    image: BucketedImage
    sheet: int
    left: int
    top: int
    width: int
    height: int

    def as_json(self) -> dict[str, Any]:
        """Return sheet, left, top, width, height."""
        return {"sheet": self.sheet, "box": [self.left, self.top, self.width, self.height]}


def arrange(prediction: Prediction, most: int | None = None) -> dict[Key, Tile]:
    """Return the tile of each image, in the order of the manifest.

    Of more than ``most`` images only every second, third … one has a tile.
    """
    images = [image for bucket in prediction.buckets for image in ordered(bucket)]
    chosen = images[:: -(-len(images) // most)] if most and images else images
    result = {}
    for index, image in enumerate(chosen):
        sheet, position = divmod(index, MOST)
        width, height = _size(image.fit.bucket)
        result[key(image)] = Tile(image, sheet, position % COLUMNS * SIDE, position // COLUMNS * SIDE, width, height)
    return result


def ordered(bucket: Bucket) -> list[BucketedImage]:
    """Return the images of a bucket by folder and file name."""
    return sorted(bucket.images, key=key)


def key(image: BucketedImage) -> Key:
    """Return the folder and name of an image."""
    return image.folder.path, image.image.name


def _size(bucket: Size) -> Size:
    longest = max(bucket)
    return bucket if longest <= SIDE else (max(1, bucket[0] * SIDE // longest), max(1, bucket[1] * SIDE // longest))


def draw_tiles(tiles: dict[Key, Tile], dataset: Dataset) -> dict[Key, Image.Image]:
    """Return the pixels of the tiles.

    Each original is decoded once. Broken ones have no tile.
    """
    work: dict[tuple[Path, str], list[Key]] = defaultdict(list)
    for name, tile in tiles.items():
        source = dataset.sources[tile.image.folder.source]
        work[tile.image.image.original, source.background_color or dataset.background_color].append(name)

    def draw(item: tuple[tuple[Path, str], list[Key]]) -> dict[Key, Image.Image]:
        original, names = item
        try:
            pixels = image_io.load(*original)
        except image_headers.UnreadableError:
            return {}  # a finding reports it
        return {name: crop(pixels, tiles[name]) for name in names}

    with image_io.without_warnings(), ThreadPoolExecutor(image_io.thread_count()) as pool:
        return {name: pixels for drawn in pool.map(draw, work.items()) for name, pixels in drawn.items()}


def crop(pixels: Image.Image, tile: Tile) -> Image.Image:
    """Return the pixels of a tile, cropped as by the trainer.

    ``pixels`` is the image of the tile at any size.
    """
    fit = tile.image.fit
    left, top = ((whole - kept) // 2 for whole, kept in zip(fit.resized, fit.bucket, strict=True))
    across, down = pixels.width / fit.resized[0], pixels.height / fit.resized[1]
    right, bottom = min((left + fit.bucket[0]) * across, pixels.width), min((top + fit.bucket[1]) * down, pixels.height)
    box = (left * across, top * down, right, bottom)
    return pixels.resize((tile.width, tile.height), Image.Resampling.BOX, box=box, reducing_gap=2.0)


def paste_sheets(tiles: dict[Key, Tile], drawn: dict[Key, Image.Image]) -> list[Image.Image]:
    """Return the sheets with every tile at its position.

    A tile without pixels stays grey.
    """
    result = []
    for number in range(1 + max((tile.sheet for tile in tiles.values()), default=-1)):
        here = {name: tile for name, tile in tiles.items() if tile.sheet == number}
        columns = min(COLUMNS, len(here)) * SIDE
        sheet = Image.new("RGB", (columns, -(-len(here) // COLUMNS) * SIDE), "#dddddd")
        for name, tile in here.items():
            if name in drawn:
                sheet.paste(drawn[name], (tile.left, tile.top))
        result.append(sheet)
    return result


def save(sheet: Image.Image, path: Path | IO[bytes]) -> None:
    """Write a sheet as WebP. The same pixels give the same bytes."""
    sheet.save(path, "WEBP", quality=_QUALITY, method=2)
