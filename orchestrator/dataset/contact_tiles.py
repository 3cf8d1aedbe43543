"""Small pictures of what the trainer sees, many in one file: a picture each in its bucket, cropped as the trainer crops it."""

from __future__ import annotations

from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Final

from PIL import Image

from orchestrator.dataset import image_headers, image_io

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.dataset.buckets import Bucket, Placed, Prediction
    from orchestrator.dataset.layout import Size
    from orchestrator.recipe import Dataset

SIDE: Final = 96
"""Pixels of a tile's square; a bucket that is smaller stays as it is."""
COLUMNS: Final = 20
MOST: Final = 600
"""Tiles of one file: 20 x 30 squares, about half a megabyte."""
_QUALITY: Final = 75

Key = tuple[str, str]  # folder in the built dataset, file name


@dataclass(frozen=True, slots=True)
class Tile:
    """Where a picture is shown in its sheet, and at which size, in pixels."""

    placed: Placed
    sheet: int
    left: int
    top: int
    width: int
    height: int

    def as_json(self) -> dict[str, Any]:
        """Return sheet, left, top, width, height."""
        return {"sheet": self.sheet, "box": [self.left, self.top, self.width, self.height]}


def places(prediction: Prediction, most: int | None = None) -> dict[Key, Tile]:
    """Return where each picture is shown, in the order of the manifest; of more than ``most`` every second, third … one."""
    every = [one for bucket in prediction.buckets for one in ordered(bucket)]
    chosen = every[:: -(-len(every) // most)] if most and every else every
    result = {}
    for index, one in enumerate(chosen):
        sheet, at = divmod(index, MOST)
        width, height = _size(one.fit.bucket)
        result[key(one)] = Tile(one, sheet, at % COLUMNS * SIDE, at // COLUMNS * SIDE, width, height)
    return result


def ordered(bucket: Bucket) -> list[Placed]:
    """Return a bucket's pictures by folder and file name."""
    return sorted(bucket.placed, key=key)


def key(one: Placed) -> Key:
    """Return what names a picture: an original is there once a size."""
    return one.folder.path, one.picture.name


def _size(bucket: Size) -> Size:
    longest = max(bucket)
    return bucket if longest <= SIDE else (max(1, bucket[0] * SIDE // longest), max(1, bucket[1] * SIDE // longest))


def drawn(shown: dict[Key, Tile], dataset: Dataset) -> dict[Key, Image.Image]:
    """Return the tiles, from the originals, each decoded once; one that cannot be decoded has none."""
    work: dict[tuple[Path, str], list[Key]] = defaultdict(list)
    for name, tile in shown.items():
        source = dataset.sources[tile.placed.folder.source]
        work[tile.placed.picture.original, source.background_color or dataset.background_color].append(name)

    def one(wanted: tuple[tuple[Path, str], list[Key]]) -> dict[Key, Image.Image]:
        try:
            image = image_io.load(*wanted[0])
        except image_headers.UnreadableError:
            return {}  # the findings say so
        return {name: small(image, shown[name]) for name in wanted[1]}

    with image_io.quiet(), ThreadPoolExecutor(image_io.threads()) as pool:
        return {name: image for found in pool.map(one, work.items()) for name, image in found.items()}


def small(image: Image.Image, tile: Tile) -> Image.Image:
    """Return ``image``, the tile's picture at any size, as the trainer crops it, at the tile's size."""
    fit = tile.placed.fit
    left, top = ((whole - kept) // 2 for whole, kept in zip(fit.resized, fit.bucket, strict=True))
    across, down = image.width / fit.resized[0], image.height / fit.resized[1]
    right, bottom = min((left + fit.bucket[0]) * across, image.width), min((top + fit.bucket[1]) * down, image.height)
    box = (left * across, top * down, right, bottom)
    return image.resize((tile.width, tile.height), Image.Resampling.BOX, box=box, reducing_gap=2.0)


def sheets(placed: dict[Key, Tile], pictures: dict[Key, Image.Image]) -> list[Image.Image]:
    """Return the sheets with every tile in its place; a tile without a picture stays grey."""
    result = []
    for number in range(1 + max((tile.sheet for tile in placed.values()), default=-1)):
        here = {name: tile for name, tile in placed.items() if tile.sheet == number}
        columns = min(COLUMNS, len(here)) * SIDE
        sheet = Image.new("RGB", (columns, -(-len(here) // COLUMNS) * SIDE), "#dddddd")
        for name, tile in here.items():
            if name in pictures:
                sheet.paste(pictures[name], (tile.left, tile.top))
        result.append(sheet)
    return result


def save(sheet: Image.Image, path: Path | IO[bytes]) -> None:
    """Write a sheet as WebP: the same pixels give the same bytes."""
    sheet.save(path, "WEBP", quality=_QUALITY, method=2)
