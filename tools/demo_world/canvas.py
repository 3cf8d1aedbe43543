"""Draw smooth shapes of one figure in head units."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image, ImageChops, ImageDraw

from tools.demo_world.palette import Part, Rgb, darker

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Point = tuple[float, float]


def curve(points: Sequence[Point], steps: int = 6) -> list[Point]:
    """Return a closed Catmull-Rom curve through ``points``.

    It has ``steps`` points for each of them.
    """
    count = len(points)
    smooth: list[Point] = []
    for index in range(count):
        (ax, ay), (bx, by), (cx, cy), (dx, dy) = (points[(index + k) % count] for k in (-1, 0, 1, 2))
        for step in range(steps):
            t = step / steps
            a, b, c, d = (
                -0.5 * t**3 + t**2 - 0.5 * t,
                1.5 * t**3 - 2.5 * t**2 + 1,
                -1.5 * t**3 + 2 * t**2 + 0.5 * t,
                0.5 * t**3 - 0.5 * t**2,
            )
            smooth.append((a * ax + b * bx + c * cx + d * dx, a * ay + b * by + c * cy + d * dy))
    return smooth


def path(points: Sequence[Point]) -> list[Point]:
    """Return an open smooth curve from the first to the last point."""
    ends = [points[0], *points, points[-1]]
    closed = curve(ends, steps=6)
    return [*closed[6 : 6 * len(points)], points[-1]]


@dataclass(frozen=True, slots=True)
class Canvas:
    """Draws on ``image`` in head units.

    (0, 0) is the middle of the head, 1 its half width, y points downwards.
    """

    image: Image.Image
    origin: Point  # pixels
    unit: float  # pixels in one head unit
    side: int  # 1 faces right, -1 left
    paint: Mapping[Part, Rgb]
    flat: bool = False  # no outlines in another colour, for masks of parts

    def pixels(self, points: Sequence[Point]) -> list[Point]:
        """Convert head units to pixels."""
        return [(self.origin[0] + self.side * x * self.unit, self.origin[1] + y * self.unit) for x, y in points]

    def outline(self, part: Part) -> Rgb:
        """Return the colour of the line around a part."""
        return self.paint[part] if self.flat else darker(self.paint[part], 0.62)

    def fill(self, part: Part, points: Sequence[Point], *, line: float = 0.05) -> None:
        """Fill a polygon and draw its outline, ``line`` head units wide."""
        self._polygon(ImageDraw.Draw(self.image), part, self.pixels(points), line)

    def blob(self, part: Part, points: Sequence[Point], *, line: float = 0.05) -> None:
        """Fill a smooth closed shape."""
        self.fill(part, curve(points), line=line)

    def oval(self, part: Part, centre: Point, half: Point, *, line: float = 0.05) -> None:
        """Fill an ellipse given by its centre and half axes."""
        self.blob(part, oval_points(centre, half), line=line)

    def stroke(self, part: Part, points: Sequence[Point], width: float, *, line: float = 0.05) -> None:
        """Draw a thick line with round ends."""
        way = self.pixels(path(points) if len(points) > 2 else points)
        draw = ImageDraw.Draw(self.image)
        for colour, extra in ((self.outline(part), 2 * line), (self.paint[part], 0.0)):
            thick = max(1.0, (width + extra) * self.unit)
            draw.line(way, fill=colour, width=round(thick), joint="curve")
            for x, y in (way[0], way[-1]):
                draw.ellipse((x - thick / 2, y - thick / 2, x + thick / 2, y + thick / 2), fill=colour)

    def inside(self, part: Part, points: Sequence[Point], frame: Sequence[Point], *, line: float = 0.05) -> None:
        """Fill the part of a smooth shape inside the smooth shape ``frame``."""
        masks = []
        for shape in (points, frame):
            mask = Image.new("L", self.image.size)
            ImageDraw.Draw(mask).polygon(self.pixels(curve(shape)), fill=255)
            masks.append(mask)
        layer = self.image.copy()
        self._polygon(ImageDraw.Draw(layer), part, self.pixels(curve(points)), line)
        self.image.paste(layer, mask=ImageChops.multiply(*masks))

    def _polygon(self, draw: ImageDraw.ImageDraw, part: Part, edge: list[Point], line: float) -> None:
        draw.polygon(edge, fill=self.paint[part])
        if line:
            draw.line([*edge, edge[0], edge[1]], fill=self.outline(part), width=max(1, round(line * self.unit)), joint="curve")


def oval_points(centre: Point, half: Point) -> list[Point]:
    """Return eight points on an ellipse for a smooth curve."""
    d = 0.7071
    ring = ((1.0, 0.0), (d, d), (0.0, 1.0), (-d, d), (-1.0, 0.0), (-d, -d), (0.0, -1.0), (d, -d))
    return [(centre[0] + half[0] * x, centre[1] + half[1] * y) for x, y in ring]
