"""Draw scenes.

Images are drawn large and reduced, so a large image scaled down equals the small one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image

from tools.demo_world.canvas import Canvas
from tools.demo_world.figure import draw_figure
from tools.demo_world.palette import Part, colours

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tools.demo_world.attributes import Scene, Viewpoint
    from tools.demo_world.canvas import Point

GRID = 64  # positions below are in 1/64 of the image


@dataclass(frozen=True, slots=True)
class HeadPosition:
    """Centre and half width of a head, in 1/64 of the image."""

    x: float
    y: float
    unit: float


def head_positions(view: Viewpoint, count: int) -> tuple[HeadPosition, ...]:
    """Return the positions of one or two heads in a view."""
    match view.framing, count:
        case "f", 1:
            return (HeadPosition(32, 30, 16.5),)
        case "b", 1:
            return (HeadPosition(32, 21, 12.6),)
        case "f", _:
            return (HeadPosition(17, 32, 12.8), HeadPosition(47, 32, 12.8))
        case _:
            return (HeadPosition(17.5, 23, 11.2), HeadPosition(46.5, 23, 11.2))


def draw(scene: Scene, size: int = GRID) -> Image.Image:
    """Draw a scene as a square RGB image with ``size`` pixels per side."""
    over = 4 if size <= 128 else 2
    paint = [colours(character, scene.background) for character in scene.characters]
    image = Image.new("RGB", (size * over,) * 2, paint[0][Part.BACKGROUND])
    for canvas, character in zip(_canvases(scene, image), scene.characters, strict=True):
        draw_figure(canvas, character, scene)
    return image.reduce(over)


def part_map(scene: Scene, size: int = 256) -> Image.Image:
    """Draw the part at each pixel, mode L.

    A pixel is 1 + the part's index in ``Part``, plus 100 for the second character.
    """
    codes = {part: index + 1 for index, part in enumerate(Part)}
    image = Image.new("RGB", (size, size), (codes[Part.BACKGROUND],) * 3)
    for canvas, character, offset in zip(
        _canvases(scene, image), scene.characters, (0, 100)[: len(scene.characters)], strict=True
    ):
        figure_codes = {part: (code + offset,) * 3 for part, code in codes.items()}
        draw_figure(Canvas(image, canvas.origin, canvas.unit, canvas.side, figure_codes, flat=True), character, scene)
    return image.getchannel(0)


def _canvases(scene: Scene, image: Image.Image) -> list[Canvas]:
    view, jitter = scene.view, scene.jitter
    pixel = image.width / GRID
    zoom = (1.0, 1.05, 0.95)[view.height] * jitter.scale  # the head is nearer from above, farther from below
    paint = [colours(character, scene.background) for character in scene.characters]
    origins: Sequence[Point] = [((s.x + jitter.x) * pixel, (s.y + jitter.y) * pixel) for s in head_positions(view, len(paint))]
    unit = head_positions(view, len(paint))[0].unit * zoom * pixel
    side = -1 if view.angle in (1, 2, 3) else 1  # the camera moves counter-clockwise, so the face points left
    return [
        Canvas(image, origin, unit, side, colours_of_figure) for origin, colours_of_figure in zip(origins, paint, strict=True)
    ]
