"""The front of a head: skin, eyes, mouth and fringe, in head units."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tools.demo_world.canvas import Canvas, Point, oval_points
from tools.demo_world.palette import Part

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tools.demo_world.attributes import Scene

# by rotation: middle and half width of the skin; eyes (x, half width); x of the mouth
_SKIN = ((0.0, 0.84), (0.24, 0.72), (0.44, 0.58))
_EYES = (((-0.42, 0.22), (0.42, 0.22)), ((-0.08, 0.22), (0.66, 0.17)), ((0.56, 0.18),))
_MOUTH = (0.0, 0.32, 0.7)
_FRINGE = ((-1.0, 0.42), (-0.8, -0.02), (-0.55, -0.2), (-0.36, 0.0), (-0.16, -0.22), (0.04, -0.02),
           (0.26, -0.24), (0.46, -0.02), (0.68, -0.2), (0.86, 0.0), (1.0, 0.42))  # fmt: skip


def draw_face(canvas: Canvas, rotation: int, tilt: float, scene: Scene, head: Sequence[Point]) -> None:
    """Draw the face on a head of hair.

    ``rotation`` is 0 (front), 1 (half front) or 2 (side).
    """
    middle, half = _SKIN[rotation]
    canvas.inside(Part.SKIN, oval_points((middle, 0.22 + tilt * 0.5), (half, 0.78)), head)
    for x, wide in _EYES[rotation]:
        _eye(canvas, (x, 0.3 + tilt), wide, scene)
        canvas.oval(Part.BLUSH, (x + (0.1 if x > middle else -0.1), 0.66 + tilt * 0.8), (wide * 0.75, 0.075), line=0)
    _mouth(canvas, (_MOUTH[rotation], 0.7 + tilt * 0.8), scene.expression)
    _fringe(canvas, middle, half, tilt, rotation)


def _eye(canvas: Canvas, at: Point, wide: float, scene: Scene) -> None:
    x, y = at
    if scene.expression == "closed eyes":
        canvas.stroke(
            Part.LINE,
            [(x - wide, y + 0.06), (x - wide * 0.5, y - 0.06), (x + wide * 0.5, y - 0.06), (x + wide, y + 0.06)],
            0.1,
            line=0,
        )
        return
    away = 0.0 if scene.view.angle == 0 else 0.04
    canvas.oval(Part.EYES, at, (wide, 0.3), line=0.04)
    canvas.oval(Part.PUPIL, (x + away, y + 0.02), (wide * 0.34, 0.17), line=0)
    canvas.oval(Part.GLINT, (x - wide * 0.3 + away, y - 0.13), (wide * 0.34, 0.085), line=0)
    canvas.stroke(
        Part.LINE,
        [(x - wide * 1.05, y - 0.2), (x - wide * 0.5, y - 0.31), (x + wide * 0.5, y - 0.31), (x + wide * 1.05, y - 0.2)],
        0.09,
        line=0,
    )


def _mouth(canvas: Canvas, at: Point, expression: str) -> None:
    x, y = at
    match expression:
        case "open mouth":
            canvas.oval(Part.MOUTH, (x, y + 0.02), (0.13, 0.13), line=0.03)
        case "serious":
            canvas.stroke(Part.LINE, [(x - 0.12, y), (x + 0.12, y)], 0.06, line=0)
        case _:  # a cat's smile
            for side in (-1, 1):
                canvas.stroke(
                    Part.LINE,
                    [(x, y - 0.03), (x + side * 0.07, y + 0.05), (x + side * 0.16, y + 0.03), (x + side * 0.2, y - 0.03)],
                    0.055,
                    line=0,
                )


def _fringe(canvas: Canvas, middle: float, half: float, tilt: float, rotation: int) -> None:
    lower = [(middle + x * (half + 0.1), y + tilt * 0.9) for x, y in _FRINGE]
    if rotation == 2:
        lower = [(min(x, 0.96), y) for x, y in lower]
    top = oval_points((0, 0), (1.02, 0.97))
    arc = [top[0], top[7], top[6], top[5], top[4]]
    left = max(-1.0, lower[0][0])
    canvas.blob(Part.HAIR, [*((max(x, left), y) for x, y in lower), *arc])
    # the locks beside the cheeks
    for side in (-1, 1) if rotation == 0 else (-1,):
        x = middle + side * (half + 0.02)
        canvas.blob(
            Part.HAIR,
            [
                (x - 0.14, -0.1),
                (x - 0.15, 0.5 + tilt),
                (x - side * 0.02, 0.92 + tilt * 0.6),
                (x + 0.13, 0.45 + tilt),
                (x + 0.13, -0.1),
            ],
        )
