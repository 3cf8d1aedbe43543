"""Draw one figure in head units: tail, hair, body, ears, head.

The face points along x.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tools.demo_world.canvas import Canvas, Point, oval_points
from tools.demo_world.clothes import draw_body
from tools.demo_world.face import draw_face
from tools.demo_world.palette import Part

if TYPE_CHECKING:
    from tools.demo_world.attributes import Character, Scene

# by rotation: 0 front, 1 half front, 2 side, 3 half behind, 4 behind
_EARS = (
    ((-0.58, 1.0), (0.58, 1.0)),
    ((0.68, 0.75), (-0.36, 1.0)),
    ((0.3, 0.7), (-0.12, 0.95)),
    ((0.36, 1.0), (-0.68, 0.75)),
    ((-0.58, 1.0), (0.58, 1.0)),
)
_TAIL = (
    ((0.3, 2.1), (0.95, 2.3), (1.2, 1.85), (1.05, 1.45)),
    ((-0.2, 2.15), (-0.9, 2.35), (-1.2, 1.9), (-1.05, 1.5)),
    ((-0.2, 2.1), (-0.9, 2.35), (-1.25, 1.95), (-1.15, 1.5)),
    ((-0.15, 2.1), (-0.8, 2.4), (-1.15, 1.95), (-1.05, 1.5)),
    ((0.0, 2.1), (0.75, 2.4), (1.1, 1.95), (0.95, 1.5)),
)


@dataclass(frozen=True, slots=True)
class Pose:
    """The figure relative to the camera.

    ``rotation`` is 0 (front) to 4 (behind), ``tilt`` moves features down (from above).
    """

    rotation: int
    tilt: float
    stretch: float  # of the body, vertically
    waving: bool


def pose_of(scene: Scene) -> Pose:
    """Return the pose of the figures of a scene."""
    view = scene.view
    return Pose(
        rotation=min(view.angle, 8 - view.angle),
        tilt=(0.0, 0.15, -0.15)[view.height],
        stretch=(1.0, 0.8, 1.12)[view.height],
        waving=scene.pose == "waving",
    )


def draw_figure(canvas: Canvas, character: Character, scene: Scene) -> None:
    """Draw one character."""
    pose = pose_of(scene)
    if scene.view.framing == "b":
        foot = 0.95 + 2.28 * pose.stretch
        canvas.oval(Part.SHADOW, (0, foot), (0.85, 0.13), line=0)
    _tail(canvas, pose)
    behind = pose.rotation >= 3
    if not behind:
        draw_back_hair(canvas, character, pose)
    draw_body(canvas, character, pose.rotation, pose.stretch, waving=pose.waving)
    if behind:
        draw_back_hair(canvas, character, pose)
    _ears(canvas, pose)
    head = oval_points((0, 0), (1.0, 0.94))
    canvas.blob(Part.HAIR, head)
    if pose.rotation < 3:
        draw_face(canvas, pose.rotation, pose.tilt, scene, head)
    else:
        draw_nape(canvas, pose)


def _tail(canvas: Canvas, pose: Pose) -> None:
    path = [(x, 0.95 + (y - 0.95) * pose.stretch) for x, y in _TAIL[pose.rotation]]
    canvas.stroke(Part.EARS, path, 0.2)


def _ears(canvas: Canvas, pose: Pose) -> None:
    tall = 1.0 + pose.tilt * 0.8
    for x, width in _EARS[pose.rotation]:
        lean = 0.18 if x > 0 else -0.18
        base = -0.52 + 0.3 * pose.tilt

        def ear(k: float, x: float = x, width: float = width, lean: float = lean, base: float = base) -> list[Point]:
            w = 0.4 * width * k
            return [(x - w, base), (x - w * 0.45 + lean * 0.5, base - 0.5 * tall * k), (x + lean, base - 0.92 * tall * k),
                    (x + w * 0.55 + lean * 0.5, base - 0.45 * tall * k), (x + w, base)]  # fmt: skip

        canvas.blob(Part.EARS, ear(1.0))
        if pose.rotation < 3:
            canvas.blob(Part.INNER_EAR, ear(0.58), line=0)


def draw_back_hair(canvas: Canvas, character: Character, pose: Pose) -> None:
    """Draw the hair that hangs behind a head, short or long."""
    rear = (0.0, -0.12, -0.3, -0.15, 0.0)[pose.rotation]
    if character.appearance.length == "short":
        wide = (1.12, 1.06, 0.9, 1.04, 1.12)[pose.rotation]
        end = 0.8 + 0.25 * pose.tilt
        canvas.blob(
            Part.HAIR,
            [
                (rear - wide, 0.0),
                (rear - wide * 0.98, end - 0.2),
                (rear - wide * 0.6, end),
                (rear, end - 0.05),
                (rear + wide * 0.6, end),
                (rear + wide * 0.98, end - 0.2),
                (rear + wide, 0.0),
                (rear, -0.8),
            ],
        )
        return
    wide = (1.16, 1.08, 0.72, 1.0, 1.1)[pose.rotation]
    rear *= 1.6 if pose.rotation == 2 else 1.0
    end = 0.95 + 1.12 * pose.stretch
    canvas.blob(
        Part.HAIR,
        [
            (rear - wide * 0.95, 0.0),
            (rear - wide * 1.08, 1.1),
            (rear - wide * 1.12, end - 0.15),
            (rear - wide * 0.6, end + 0.05),
            (rear, end - 0.08),
            (rear + wide * 0.6, end + 0.05),
            (rear + wide * 1.12, end - 0.15),
            (rear + wide * 1.08, 1.1),
            (rear + wide * 0.95, 0.0),
            (rear, -0.8),
        ],
    )


def draw_nape(canvas: Canvas, pose: Pose) -> None:
    """Draw three strands of hair on the back of a head."""
    middle = -0.25 if pose.rotation == 3 else 0.0
    dark = Canvas(
        canvas.image,
        canvas.origin,
        canvas.unit,
        canvas.side,
        {**canvas.paint, Part.HAIR: canvas.outline(Part.HAIR)},
        flat=True,
    )
    for x in (-0.45, 0.0, 0.45):
        dark.stroke(Part.HAIR, [(middle + x * 0.7, 0.1), (middle + x, 0.6)], 0.05, line=0)
