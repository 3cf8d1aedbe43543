"""Characters of one's own.

Their drawings, and the reader of their colours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from PIL import Image

from orchestrator.importers import inspect_folder
from orchestrator.run.partial_run import PartialRun
from tools.demo_world import colour_reader, own_proof
from tools.demo_world.attributes import Appearance, Character, Scene, parse_view
from tools.demo_world.draw import draw
from tools.demo_world.own_subjects import SUBJECTS, VIEWS, draw_subject, write_images

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.plan.plan import Plan


@pytest.mark.parametrize("name", SUBJECTS)
def test_the_reader_reads_every_drawing_right(name: str) -> None:
    subject = SUBJECTS[name]
    for view in VIEWS:
        viewpoint = parse_view(f"{subject.framing}{view}")
        drawn = draw_subject(subject, viewpoint)
        moved = Image.new("RGB", drawn.size, "white")
        moved.paste(drawn, (2, -1))
        for image in (drawn, moved, draw_subject(subject, viewpoint, 128)):
            right = colour_reader.right(image, name, viewpoint)
            assert {"hair", "headgear"} <= right.keys()
            assert all(right.values()), view


@pytest.mark.parametrize("name", SUBJECTS)
def test_the_reader_knows_somebody_else(name: str) -> None:
    subject, view = SUBJECTS[name], parse_view(f"{SUBJECTS[name].framing}00")
    cat = Character(Appearance("black", "short", "yellow", "black", choker=True), "hoodie")
    assert not any(colour_reader.right(draw(Scene((cat,), view)), name, view).values()), "a cat in a hoodie"
    others = [other for other in SUBJECTS.values() if other is not subject]
    for other in others:
        shown = draw_subject(other, view)
        assert not all(colour_reader.right(shown, name, view).values())


def test_a_subject_without_its_hat_lacks_its_headgear() -> None:
    view = parse_view("f00")
    bare = Character(Appearance("pink", "long", "green", "pink", choker=False), "dress")
    assert colour_reader.read_colours(draw(Scene((bare,), view)), "witch", view) == {
        "hair": "pink",
        "clothes": "purple",
        "headgear": "pink",
    }


def test_twelve_images_with_and_without_views(tmp_path: Path) -> None:
    for subject in SUBJECTS.values():
        write_images(subject, tmp_path / subject.name)
    witch, knight, sailor = (inspect_folder.inspect(tmp_path / name) for name in ("witch", "knight", "sailor"))
    assert [len(summary.stems) for summary in (witch, knight, sailor)] == [12, 12, 12]
    assert [len(summary.views) for summary in (witch, knight, sailor)] == [12, 12, 0]
    assert (inspect_folder.suggest_type([witch]), inspect_folder.suggest_type([knight])) == ("face", "body")


def test_a_character_is_trained_as_the_tutorial_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plans: list[Plan] = []
    monkeypatch.setattr(PartialRun, "run", lambda _, plan: plans.append(plan))
    file = own_proof.trained(SUBJECTS["sailor"], tmp_path)
    assert own_proof.trained(SUBJECTS["sailor"], tmp_path) == file, "the same project serves again"
    assert [step.kind.value for step in plans[0].steps] == ["dataset", "train", "merge", "resize"]
    assert (file.name, file.parents[2]) == ("sailor-lora3x3.safetensors", tmp_path / "runs")
    recipe = plans[0].recipes["sailor-lora3x3"]
    assert (recipe.engine, set(recipe.dataset.sources)) == ("embedded", {"sailor", "others"})
    assert plans[0].steps[0].key == plans[1].steps[0].key


def test_a_row_names_its_promise() -> None:
    rates = {"hair": 1.0, "clothes": 0.5, "headgear": 0.75, "all three": 0.5}
    assert own_proof.line(own_proof.OwnRow("witch: trigger", 32, rates, kept=False)) == (
        "| witch: trigger | 32 | 100% | 50% | 75% | 50% | **missed**: at least 70% |"
    )
    assert own_proof.header().splitlines()[0].count("|") == own_proof.line(own_proof.OwnRow("x", 1, {})).count("|")
