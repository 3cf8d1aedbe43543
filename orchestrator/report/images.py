"""Pictures for the page: WebP beside it, made once for each content."""

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
"""Longest side of a picture on the page, in pixels; smaller ones are enlarged by a whole factor."""
SAMPLE = 256
"""The same for what was drawn while training: there may be hundreds."""
TILE = 96
_QUALITY = 82


@dataclass(frozen=True, slots=True)
class PageImage:
    """A picture on the page: its address, seen from the page, and its size in pixels."""

    url: str
    width: int
    height: int


@dataclass(slots=True)
class Album:
    """All pictures of a page. ``show`` only notes a picture; ``make`` writes those that are not there."""

    folder: Path
    _todo: dict[str, tuple[Path, Callable[[Path, Path], None]]] = field(default_factory=dict)

    def show(self, path: Path, side: int = SIDE) -> PageImage | None:
        """Return where the page will find this picture, at most ``side`` pixels long; None if it cannot be read."""
        try:
            stat = path.stat()
            with Image.open(path) as image:
                width, height = image.size
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            return None
        if path.suffix == ".webp":  # a grid: as it is, encoding it again would cost more than all other pictures
            name = hashlib.sha256(f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}".encode()).hexdigest()[:20] + ".webp"
            self._todo[name] = (path, _copy)
            return PageImage(f"{self.folder.name}/{name}", width, height)
        factor = side / max(width, height)
        factor = max(1, int(factor)) if factor >= 1 else factor
        size = (max(1, round(width * factor)), max(1, round(height * factor)))
        known = f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}|{size}"
        name = hashlib.sha256(known.encode()).hexdigest()[:20] + ".webp"
        self._todo[name] = (path, lambda source, target: _save(source, target, size))
        return PageImage(f"{self.folder.name}/{name}", *size)

    def sheet(self, paths: Sequence[Path]) -> PageImage | None:
        """Return one picture with all of ``paths`` as tiles, twelve in a row at most."""
        if not paths:
            return None
        known = "|".join(f"{path}{path.stat().st_mtime_ns}" for path in paths)
        name = hashlib.sha256(known.encode()).hexdigest()[:20] + ".webp"
        columns = min(12, len(paths))
        size = (columns * TILE, -(-len(paths) // columns) * TILE)
        self._todo[name] = (paths[0], lambda _, target: _tiles(paths, target, size))
        return PageImage(f"{self.folder.name}/{name}", *size)

    def make(self) -> None:
        """Write what is missing, on two threads: Pillow lets go of the interpreter's lock."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(2) as pool:
            todo = [
                (source, self.folder / name, how)
                for name, (source, how) in self._todo.items()
                if not (self.folder / name).exists()
            ]
            for future in [pool.submit(how, source, target) for source, target, how in todo]:
                future.result()


def _copy(source: Path, target: Path) -> None:
    with files.draft(target) as draft:
        shutil.copyfile(source, draft)


def _save(source: Path, target: Path, size: tuple[int, int]) -> None:
    with Image.open(source) as image:
        picture = image.convert("RGB")
    _write(picture if picture.size == size else picture.resize(size, Image.Resampling.LANCZOS), target)


def _tiles(paths: Sequence[Path], target: Path, size: tuple[int, int]) -> None:
    canvas = Image.new("RGB", size, (255, 255, 255))
    columns = size[0] // TILE
    for number, path in enumerate(paths):
        with Image.open(path) as image:
            picture = image.convert("RGB")
        factor = TILE / max(picture.size)
        picture = picture.resize(
            (max(1, round(picture.width * factor)), max(1, round(picture.height * factor))), Image.Resampling.LANCZOS
        )
        corner = (
            number % columns * TILE + (TILE - picture.width) // 2,
            number // columns * TILE + (TILE - picture.height) // 2,
        )
        canvas.paste(picture, corner)
    _write(canvas, target)


def _write(picture: Image.Image, target: Path) -> None:
    with files.draft(target) as draft:
        picture.save(draft, "WEBP", quality=_QUALITY, method=1)
