"""Scans of source folders, and the parameters of a dataset's key."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dataset_cases import described, draw
from orchestrator.dataset.sources import key_params, source_files

if TYPE_CHECKING:
    from pathlib import Path


def test_sources_name_every_file_that_matters(tmp_path: Path) -> None:
    picture = draw(tmp_path / "texts" / "a.png")
    picture.with_suffix(".txt").write_text("a\n")
    draw(tmp_path / "deep" / "x" / "b.png")
    table = {
        "t": {"images": "texts", "captions": "files"},
        "g": {"images": "deep/**/*.png", "captions": "tagger"},
    }
    roles = dict(source_files(described(sources=table, tagger_model="models/m.onnx"), tmp_path))
    assert sorted(roles) == ["g/x/b.png", "t/a.png", "t/a.txt", "tagger/model", "tagger/tags"]
    assert roles["tagger/tags"] == tmp_path / "models" / "selected_tags.csv"
    assert roles["t/a.png"] == picture


def test_a_folder_of_charframework_is_another_one_when_its_repeats_change() -> None:
    """Its name contains them: 4_krnk.

    The folder of other images is not part of the key.
    """
    reading = {"reading": "charframework"}
    four, eight, elsewhere = (
        key_params(described(sources={"k": {"images": images, **reading}})) for images in ("a/4_krnk", "a/8_krnk", "b/4_krnk")
    )
    assert four == elsewhere != eight
    assert key_params(described(sources={"k": {"images": "a"}})) == key_params(described(sources={"k": {"images": "b"}}))
