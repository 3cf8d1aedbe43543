"""The body and its clothes, in head units. The neck begins at y = 0.95."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tools.demo_world.palette import Part

if TYPE_CHECKING:
    from collections.abc import Callable

    from tools.demo_world.attributes import Character
    from tools.demo_world.canvas import Canvas, Point

    Transform = Callable[..., list[Point]]

_NECK = 0.95
_SKIRTS = ("school uniform", "dress")


def draw_body(canvas: Canvas, character: Character, rotation: int, stretch: float, *, waving: bool) -> None:
    """Draw legs, torso, arms, neck and choker.

    Args:
        canvas: of the figure.
        character: its clothes and choker.
        rotation: 0 (front) to 4 (behind).
        stretch: vertical, of everything below the neck.
        waving: raise one hand.
    """

    def at(*points: Point) -> list[Point]:
        return [(x, _NECK + (y - _NECK) * stretch) for x, y in points]

    wide = (1.0, 0.9, 0.68, 0.9, 1.0)[rotation]
    clothes = character.clothes
    for side in (-1, 1):
        x = side * 0.28 * wide
        canvas.stroke(Part.LEGS, at((x, 2.1), (x, 2.98)), 0.3)
        toe = 0.12 if rotation in (1, 2) else 0.0
        canvas.stroke(Part.SHOES, at((x - 0.03, 3.08), (x + toe + 0.03, 3.08)), 0.32)
    _arms(canvas, at, rotation, wide, waving=waving)
    canvas.fill(Part.SKIN, at((-0.24, 0.7), (0.24, 0.7), (0.24, 1.25), (-0.24, 1.25)), line=0)
    torso = at(
        (-0.62 * wide, 1.22),
        (0.0, 1.1),
        (0.62 * wide, 1.22),
        (0.56 * wide, 1.7),
        (0.58 * wide, 2.2),
        (0.0, 2.3),
        (-0.58 * wide, 2.2),
        (-0.56 * wide, 1.7),
    )
    canvas.blob(Part.TOP, torso)
    if clothes in _SKIRTS:
        canvas.fill(Part.BOTTOM, at((-0.5 * wide, 1.9), (0.5 * wide, 1.9), (0.86 * wide, 2.52), (-0.86 * wide, 2.52)))
    elif clothes != "plugsuit":
        canvas.fill(Part.BOTTOM, at((-0.58 * wide, 2.05), (0.58 * wide, 2.05), (0.56 * wide, 2.42), (-0.56 * wide, 2.42)))
    _details(canvas, at, clothes, rotation, wide)
    if character.appearance.choker:
        canvas.fill(Part.CHOKER, at((-0.34, 0.93), (0.34, 0.93), (0.34, 1.17), (-0.34, 1.17)))
        if rotation < 3:
            x = (0.0, 0.12, 0.22)[rotation]
            canvas.oval(Part.BELL, at((x, 1.24))[0], (0.12, 0.12))


def _arms(canvas: Canvas, at: Transform, rotation: int, wide: float, *, waving: bool) -> None:
    sides = (1,) if rotation == 2 else (-1, 1)
    for side in sides:
        shoulder = (side * 0.56 * wide, 1.36) if rotation != 2 else (0.0, 1.4)
        raised = waving and side == 1
        elbow = (shoulder[0] + side * 0.5, 1.2) if raised else (shoulder[0] + side * 0.2, 1.72)
        hand = (shoulder[0] + side * 0.72, 0.82) if raised else (shoulder[0] + side * 0.26, 2.02)
        canvas.stroke(Part.SKIN, at(elbow, hand), 0.22)
        canvas.stroke(Part.TOP, at(shoulder, elbow), 0.3)


def _details(canvas: Canvas, at: Transform, clothes: str, rotation: int, wide: float) -> None:
    behind = rotation >= 3
    shift = (0.0, 0.12, 0.14, 0.0, 0.0)[rotation]
    match clothes:
        case "white shirt":
            if not behind:
                canvas.fill(
                    Part.TRIM,
                    at(
                        (shift - 0.3, 1.14),
                        (shift, 1.4),
                        (shift + 0.3, 1.14),
                        (shift + 0.34, 1.32),
                        (shift, 1.56),
                        (shift - 0.34, 1.32),
                    ),
                )
                canvas.stroke(Part.ACCENT, at((shift, 1.6), (shift, 1.95)), 0.05, line=0)
        case "school uniform" if behind:  # the flap of the sailor collar
            canvas.fill(Part.TRIM, at((-0.5 * wide, 1.14), (0.5 * wide, 1.14), (0.5 * wide, 1.62), (-0.5 * wide, 1.62)))
        case "school uniform":
            canvas.fill(
                Part.TRIM,
                at(
                    (shift - 0.52 * wide, 1.16),
                    (shift - 0.2, 1.1),
                    (shift, 1.5),
                    (shift + 0.2, 1.1),
                    (0.52 * wide, 1.16),
                    (0.44 * wide, 1.46),
                    (shift, 1.72),
                    (shift - 0.46 * wide, 1.46),
                ),
            )
            canvas.fill(
                Part.ACCENT,
                at(
                    (shift, 1.52),
                    (shift + 0.26, 1.46),
                    (shift + 0.2, 1.86),
                    (shift, 1.66),
                    (shift - 0.2, 1.86),
                    (shift - 0.26, 1.46),
                ),
            )
        case "plugsuit":
            for side in (-1, 1):
                canvas.oval(Part.TRIM, at((side * 0.5 * wide, 1.3))[0], (0.22, 0.17))
            canvas.stroke(Part.TRIM, at((-0.3 * wide, 2.2), (0.3 * wide, 2.2)), 0.14)
            if not behind:
                canvas.oval(Part.ACCENT, at((shift, 1.6))[0], (0.22, 0.2))
        case "hoodie":
            if behind:
                canvas.blob(
                    Part.TRIM,
                    at((-0.42 * wide, 1.12), (0.42 * wide, 1.12), (0.34 * wide, 1.55), (0.0, 1.7), (-0.34 * wide, 1.55)),
                )
            else:
                canvas.fill(
                    Part.TRIM,
                    at(
                        (shift - 0.34 * wide, 1.75),
                        (shift + 0.34 * wide, 1.75),
                        (shift + 0.42 * wide, 2.02),
                        (shift - 0.42 * wide, 2.02),
                    ),
                )
                for side in (-1, 1):
                    canvas.stroke(Part.ACCENT, at((shift + side * 0.12, 1.25), (shift + side * 0.14, 1.6)), 0.07, line=0)
        case "dress":
            canvas.fill(Part.ACCENT, at((-0.56 * wide, 1.8), (0.56 * wide, 1.8), (0.58 * wide, 1.98), (-0.58 * wide, 1.98)))
            canvas.stroke(Part.TRIM, at((-0.84 * wide, 2.5), (0.84 * wide, 2.5)), 0.1, line=0)
        case _:  # sweater: stripes
            for y in (1.5, 1.85):
                canvas.stroke(Part.TRIM, at((-0.5 * wide, y), (0.5 * wide, y)), 0.13, line=0)
