"""Write the images of the page: WebP files beside it, each content once."""

from __future__ import annotations

import hashlib
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from PIL import Image

from orchestrator.system import files

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

SIDE = 512
"""Longest side of an image on the page, in pixels.

Smaller images are enlarged by a whole factor.
"""
SAMPLE = 256
"""Longest side of an image drawn during training: there may be hundreds."""
TILE = 96
_QUALITY = 82


@dataclass(frozen=True, slots=True)
class PageImage:
    """An image on the page: URL relative to the page, and size in pixels."""

    url: str
    width: int
    height: int


@dataclass(slots=True)
class Album:
    """The images of a page.

    ``show`` notes an image, ``make`` writes the missing ones.
    """

    folder: Path
    _todo: dict[str, tuple[Path, Callable[[Path, Path], None]]] = field(default_factory=dict)

    def show(self, path: Path, side: int = SIDE) -> PageImage | None:
        """Return an image on the page, None if it cannot be read.

        Args:
            path: the image.
            side: its longest side on the page, in pixels.
        """
        try:
            stat = path.stat()
            with Image.open(path) as image:
                width, height = image.size
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            return None
        if path.suffix == ".webp":  # a grid: to encode it again would cost more than all other images
            name = hashlib.sha256(f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}".encode()).hexdigest()[:20] + ".webp"
            self._todo[name] = (path, _copy)
            return PageImage(f"{self.folder.name}/{name}", width, height)
        factor = side / max(width, height)
        factor = max(1, int(factor)) if factor >= 1 else factor
        size = (max(1, round(width * factor)), max(1, round(height * factor)))
        identity = f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}|{size}"
        name = hashlib.sha256(identity.encode()).hexdigest()[:20] + ".webp"
        self._todo[name] = (path, lambda source, target: _save(source, target, size))
        return PageImage(f"{self.folder.name}/{name}", *size)

    def sheet(self, paths: Sequence[Path]) -> PageImage | None:
        """Return one image with ``paths`` as tiles, at most twelve in a row."""
        if not paths:
            return None
        identity = "|".join(f"{path}{path.stat().st_mtime_ns}" for path in paths)
        name = hashlib.sha256(identity.encode()).hexdigest()[:20] + ".webp"
        columns = min(12, len(paths))
        size = (columns * TILE, -(-len(paths) // columns) * TILE)
        self._todo[name] = (paths[0], lambda _, target: _tiles(paths, target, size))
        return PageImage(f"{self.folder.name}/{name}", *size)

    def make(self) -> None:
        """Write the missing images, on two threads.

        Pillow releases the interpreter's lock.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(2) as pool:
            todo = [
                (source, self.folder / name, write)
                for name, (source, write) in self._todo.items()
                if not (self.folder / name).exists()
            ]
            for future in [pool.submit(write, source, target) for source, target, write in todo]:
                future.result()


def _copy(source: Path, target: Path) -> None:
    with files.draft(target) as draft:
        shutil.copyfile(source, draft)


def _save(source: Path, target: Path, size: tuple[int, int]) -> None:
    with Image.open(source) as image:
        rgb = image.convert("RGB")
    _write(rgb if rgb.size == size else rgb.resize(size, Image.Resampling.LANCZOS), target)


def _tiles(paths: Sequence[Path], target: Path, size: tuple[int, int]) -> None:
    canvas = Image.new("RGB", size, (255, 255, 255))
    columns = size[0] // TILE
    for number, path in enumerate(paths):
        with Image.open(path) as image:
            rgb = image.convert("RGB")
        factor = TILE / max(rgb.size)
        tile = rgb.resize((max(1, round(rgb.width * factor)), max(1, round(rgb.height * factor))), Image.Resampling.LANCZOS)
        left, top = number % columns * TILE, number // columns * TILE
        canvas.paste(tile, (left + (TILE - tile.width) // 2, top + (TILE - tile.height) // 2))
    _write(canvas, target)


def _write(image: Image.Image, target: Path) -> None:
    with files.draft(target) as draft:
        image.save(draft, "WEBP", quality=_QUALITY, method=1)
