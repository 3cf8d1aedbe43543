"""Scene -> picture. Drawn large and reduced, so that a big picture scaled down is the small one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image

from tools.demo_world.canvas import Pen
from tools.demo_world.figure import draw_figure
from tools.demo_world.palette import Part, colours

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tools.demo_world.attributes import Scene, View
    from tools.demo_world.canvas import Point

GRID = 64  # all places below are in 1/64 of the picture


@dataclass(frozen=True, slots=True)
class Spot:
    """Where a head is, and its half width, in 1/64 of the picture."""

    x: float
    y: float
    unit: float


def spots(view: View, count: int) -> tuple[Spot, ...]:
    """Return where the heads of one or two characters are in a view."""
    match view.framing, count:
        case "f", 1:
            return (Spot(32, 30, 16.5),)
        case "b", 1:
            return (Spot(32, 21, 12.6),)
        case "f", _:
            return (Spot(17, 32, 12.8), Spot(47, 32, 12.8))
        case _:
            return (Spot(17.5, 23, 11.2), Spot(46.5, 23, 11.2))


def draw(scene: Scene, size: int = GRID) -> Image.Image:
    """Draw a scene as a square RGB picture with ``size`` pixels a side."""
    over = 4 if size <= 128 else 2
    paint = [colours(character, scene.background) for character in scene.characters]
    image = Image.new("RGB", (size * over,) * 2, paint[0][Part.BACKGROUND])
    for pen, character in zip(_pens(scene, image), scene.characters, strict=True):
        draw_figure(pen, character, scene)
    return image.reduce(over)


def part_map(scene: Scene, size: int = 256) -> Image.Image:
    """Draw which part each pixel shows, mode L: 1 + the part's place in ``Part``, plus 100 for the second character."""
    codes = {part: index + 1 for index, part in enumerate(Part)}
    image = Image.new("RGB", (size, size), (codes[Part.BACKGROUND],) * 3)
    for pen, character, offset in zip(_pens(scene, image), scene.characters, (0, 100)[: len(scene.characters)], strict=True):
        codes_of_one = {part: (code + offset,) * 3 for part, code in codes.items()}
        draw_figure(Pen(image, pen.origin, pen.unit, pen.side, codes_of_one, flat=True), character, scene)
    return image.getchannel(0)


def _pens(scene: Scene, image: Image.Image) -> list[Pen]:
    view, place = scene.view, scene.placement
    pixel = image.width / GRID
    zoom = (1.0, 1.05, 0.95)[view.height] * place.scale  # the head is nearer from above, farther from below
    paint = [colours(character, scene.background) for character in scene.characters]
    origins: Sequence[Point] = [((s.x + place.x) * pixel, (s.y + place.y) * pixel) for s in spots(view, len(paint))]
    unit = spots(view, len(paint))[0].unit * zoom * pixel
    side = -1 if view.angle in (1, 2, 3) else 1  # the camera went counter-clockwise, so the face points left
    return [Pen(image, origin, unit, side, one) for origin, one in zip(origins, paint, strict=True)]
