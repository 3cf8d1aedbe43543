"""Reading of attributes from drawings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tools.demo_world.__main__ import main
from tools.demo_world.attribute_reader import read
from tools.demo_world.attributes import KRNK, TYANK, Character, Scene, Viewpoint, random_scene
from tools.demo_world.draw import draw

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_reader_finds_the_attributes_of_drawings() -> None:
    right: dict[str, list[bool]] = {}
    for seed in range(500_000, 500_040):
        scene = random_scene(seed)
        reading = read(draw(scene), scene.view)
        right.setdefault("count", []).append(len(reading.characters) == len(scene.characters))
        for character, shown in zip(scene.characters, reading.characters, strict=False):
            appearance = character.appearance
            expected = {
                "hair": appearance.hair,
                "length": appearance.length,
                "ears": appearance.ears,
                "choker": appearance.choker,
                "clothes": character.clothes,
            }
            if scene.expression != "closed eyes":
                expected["eyes"] = appearance.eyes
            for name, value in expected.items():
                if getattr(shown, name) is not None:
                    right.setdefault(name, []).append(getattr(shown, name) == value)
    assert {name: sum(answers) / len(answers) >= 0.95 for name, answers in right.items()} == dict.fromkeys(right, True)
    assert set(right) == {"count", "hair", "length", "eyes", "ears", "choker", "clothes"}
    assert all(len(answers) >= 20 for answers in right.values())


def test_reader_distinguishes_the_demo_characters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = Scene((Character(KRNK, "school uniform"), Character(TYANK, "plugsuit")), Viewpoint("b", 0, 0))
    draw(both, 256).save(tmp_path / "b00.png")
    assert main(["probe", str(tmp_path / "b00.png")]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "view b00, 2 character(s)",
        "  hair: black, length: short, eyes: yellow, ears: black, choker: True, clothes: school uniform",
        "  hair: brown, length: long, eyes: green, ears: brown, choker: False, clothes: plugsuit",
    ]
