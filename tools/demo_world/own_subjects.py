"""Draw three characters unlike those of the base model.

They have headgear, no cat ears, colours of their own, and one a cape.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from PIL import Image

from tools.demo_world.attributes import Appearance, Character, Scene, Viewpoint, parse_view
from tools.demo_world.canvas import Canvas, Point, oval_points
from tools.demo_world.clothes import draw_body
from tools.demo_world.draw import GRID, head_positions
from tools.demo_world.face import draw_face
from tools.demo_world.figure import draw_back_hair, draw_nape, pose_of
from tools.demo_world.palette import Part, Rgb, colours

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tools.demo_world.figure import Pose

VIEWS: Final = ("00", "01", "02", "03", "04", "05", "06", "07", "10", "17", "20", "21")
_SIZE: Final = 512
_OVER: Final = 4

_HAT: Final = ((-1.55, -0.3), (0.0, -0.12), (1.55, -0.3), (0.72, -0.62), (0.2, -1.6), (-0.72, -0.62))
_HELMET: Final = (
    (-1.1, 0.02),
    (-1.12, -0.5),
    (-0.68, -1.06),
    (0.0, -1.22),
    (0.68, -1.06),
    (1.12, -0.5),
    (1.1, 0.02),
    (0.0, -0.2),
)
_CAP: Final = (
    (-1.04, -0.34),
    (-1.16, -0.8),
    (-0.66, -1.2),
    (0.0, -1.26),
    (0.66, -1.2),
    (1.16, -0.8),
    (1.04, -0.34),
    (0.0, -0.28),
)


@dataclass(frozen=True, slots=True)
class OwnSubject:
    """One character with its colours.

    ``regions`` names the colours of hair, clothes and headgear that a reader of colours must see. ``framing`` is f (upper
    body) or b (full body). ``views``: the files are named by view, otherwise by number, without captions.
    """

    name: str
    framing: str
    views: bool
    character: Character
    paint: Mapping[Part, Rgb]
    headgear: tuple[Point, ...]
    regions: Mapping[str, str]

    @property
    def caped(self) -> bool:
        """Return whether the clothes are a cape."""
        return Part.CAPE in self.paint


# Colours that the VAE of the base can show. Not so: deep red (brown), deep or narrow purple (blue), green hair (black).
COLOURS: Final[Mapping[str, Rgb]] = {
    "black": (44, 40, 52),
    "brown": (150, 92, 54),
    "silver": (186, 196, 212),
    "white": (252, 252, 255),
    "skin": (255, 226, 204),
    "red": (236, 70, 80),
    "orange": (255, 150, 40),
    "yellow": (248, 214, 96),
    "green": (84, 164, 76),
    "cyan": (0, 176, 170),
    "blue": (72, 132, 224),
    "navy": (52, 72, 148),
    "purple": (158, 92, 206),
    "pink": (246, 132, 178),
}


def _paint(**parts_by_colour: str) -> dict[Part, Rgb]:
    return {Part(part): COLOURS[colour] for colour, parts in parts_by_colour.items() for part in parts.split()}


def _body(length: str, eyes: str, clothes: str) -> Character:
    return Character(Appearance("black", length, eyes, "black", choker=False), clothes)


SUBJECTS: Final[Mapping[str, OwnSubject]] = {
    subject.name: subject
    for subject in (
        OwnSubject(
            "witch",
            "f",
            views=True,
            character=_body("long", "green", "dress"),
            paint=_paint(pink="hair", purple="headgear trim shoes", black="top bottom legs", yellow="accent"),
            headgear=_HAT,
            regions={"hair": "pink", "clothes": "black", "headgear": "purple"},
        ),
        OwnSubject(
            "knight",
            "b",
            views=True,
            character=_body("short", "blue", "plugsuit"),
            paint=_paint(
                yellow="hair", silver="headgear top bottom legs", white="trim", navy="accent", black="shoes", blue="cape"
            ),
            headgear=_HELMET,
            regions={"hair": "yellow", "clothes": "blue", "headgear": "silver"},
        ),
        OwnSubject(
            "sailor",
            "f",
            views=False,
            character=_body("short", "blue", "school uniform"),
            paint=_paint(brown="hair", white="headgear trim legs", blue="top bottom", red="accent", black="shoes"),
            headgear=_CAP,
            regions={"hair": "brown", "clothes": "blue", "headgear": "white"},
        ),
    )
}


def draw_subject(subject: OwnSubject, view: Viewpoint, size: int = GRID) -> Image.Image:
    """Draw a character on white as a square RGB image, ``size`` pixels wide."""
    over = _OVER if size <= 128 else 2
    paint = {**colours(subject.character, "white"), **subject.paint}
    image = Image.new("RGB", (size * over,) * 2, paint[Part.BACKGROUND])
    _figure(_canvas(image, view, paint), subject, view)
    return image.reduce(over)


def subject_parts(subject: OwnSubject, view: Viewpoint, size: int) -> Image.Image:
    """Draw the part at each pixel, mode L: 1 + the part's index in ``Part``."""
    codes = {part: (index + 1,) * 3 for index, part in enumerate(Part)}
    image = Image.new("RGB", (size, size), codes[Part.BACKGROUND])
    canvas = _canvas(image, view, codes)
    _figure(replace(canvas, flat=True), subject, view)
    return image.getchannel(0)


def write_images(subject: OwnSubject, folder: Path) -> None:
    """Write the 12 images of a character."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, view in enumerate(VIEWS, 1):
        name = f"{subject.framing}{view}" if subject.views else f"{subject.name} {number}"
        draw_subject(subject, parse_view(f"{subject.framing}{view}"), _SIZE).save(folder / f"{name}.png")


def _canvas(image: Image.Image, view: Viewpoint, paint: Mapping[Part, Rgb]) -> Canvas:
    head = head_positions(view, 1)[0]
    pixel = image.width / GRID
    zoom = (1.0, 1.05, 0.95)[view.height]
    side = -1 if view.angle in (1, 2, 3) else 1
    return Canvas(image, (head.x * pixel, head.y * pixel), head.unit * zoom * pixel, side, paint)


def _figure(canvas: Canvas, subject: OwnSubject, view: Viewpoint) -> None:
    scene = Scene((subject.character,), view)
    pose = pose_of(scene)
    behind = pose.rotation >= 3
    if not behind:
        draw_back_hair(canvas, subject.character, pose)
        _cape(canvas, subject, pose)
    draw_body(canvas, subject.character, pose.rotation, pose.stretch, waving=False)
    if behind:
        _cape(canvas, subject, pose)
        draw_back_hair(canvas, subject.character, pose)
    head = oval_points((0, 0), (1.0, 0.94))
    canvas.blob(Part.HAIR, head)
    if behind:
        draw_nape(canvas, pose)
    else:
        draw_face(canvas, pose.rotation, pose.tilt, scene, head)
    canvas.blob(Part.HEADGEAR, [(x, y + pose.tilt * 0.5) for x, y in subject.headgear])


def _cape(canvas: Canvas, subject: OwnSubject, pose: Pose) -> None:
    if not subject.caped:
        return
    wide = (1.0, 1.0, 0.7, 1.0, 1.0)[pose.rotation]
    rear = (0.0, -0.15, -0.45, -0.1, 0.0)[pose.rotation]
    end = 0.95 + 1.75 * pose.stretch
    edge = ((-0.6, 1.1), (0.6, 1.1), (1.4, end), (-1.4, end))
    canvas.fill(Part.CAPE, [(rear + x * wide, y) for x, y in edge])
