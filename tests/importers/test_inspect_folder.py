"""Folders of images, and the sources that they suggest."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from orchestrator.errors import RecipeError
from orchestrator.importers import inspect_folder
from orchestrator.importers.inspect_folder import FolderSummary


def draw(folder: Path, **sizes: tuple[int, int]) -> Path:
    """Draw a PNG of each name and size."""
    folder.mkdir(exist_ok=True)
    for stem, size in sizes.items():
        Image.new("RGB", size).save(folder / f"{stem}.png")
    return folder


def summary(*sizes: tuple[int, int], views: str = "") -> FolderSummary:
    return FolderSummary(Path("a"), tuple(map(str, range(len(sizes)))), sizes, {}, dict(zip("xyz", views, strict=False)))


def test_every_unreadable_image_is_named(tmp_path: Path) -> None:
    draw(tmp_path, good=(8, 8))
    (tmp_path / "bad.png").write_bytes(b"x")
    (tmp_path / "worse.jpg").write_bytes(b"")
    with pytest.raises(RecipeError) as error:
        inspect_folder.inspect(tmp_path)
    assert [problem.where for problem in error.value.problems] == [str(tmp_path / "bad.png"), str(tmp_path / "worse.jpg")]
    assert {problem.hint for problem in error.value.problems} == {"replace it, or move it away"}


def test_hidden_images_are_not_counted_as_a_dataset_does_not_read_them(tmp_path: Path) -> None:
    draw(tmp_path, a=(8, 8))
    (tmp_path / "._a.png").write_bytes(b"\0\5\x16\7")
    assert inspect_folder.inspect(tmp_path).stems == ("a",)


def test_a_folder_is_described_by_its_images(tmp_path: Path) -> None:
    folder = draw(tmp_path / "a", f00=(64, 96), b01=(80, 90), other=(72, 100))
    for name in ("f00.txt", "b01.txt", "other.caption", "gone.txt"):
        (folder / name).write_text("mimi", "utf-8")
    (folder / "inner").mkdir()
    read = inspect_folder.inspect(folder)
    assert (read.stems, read.widest, read.framing) == (("b01", "f00", "other"), 80, "b")
    assert read.describe() == (f"{folder}: 3 images, 64..80 x 90..100, 2 named by view, 2 with .txt, 1 with .caption")
    bare = inspect_folder.inspect(draw(tmp_path / "b", x=(8, 8)))
    assert bare.describe() == f"{tmp_path / 'b'}: 1 image, 8..8 x 8..8, 0 named by view, no caption files"


@pytest.mark.parametrize(
    ("folder", "framing"),
    [
        (summary((100, 130)), "b"),  # a whole figure, from 1.3 times as high as wide
        (summary((100, 129)), "f"),
        (summary((100, 200), (100, 100)), "f"),  # most images decide
        (summary((100, 200), (100, 200), (100, 100)), "b"),
        (summary((100, 200), views="f"), "f"),  # names come first
        (summary((100, 100), (100, 100), views="fb"), "b"),
    ],
)
def test_whole_figures_are_told_by_names_or_by_shape(folder: FolderSummary, framing: str) -> None:
    assert folder.framing == framing


def test_the_type_is_told_by_the_number_of_whole_figures() -> None:
    face, body, named = summary((10, 10)), summary((10, 20)), summary((10, 10), views="b")
    kinds = [inspect_folder.suggest_type(folders) for folders in ([face, face], [face, body], [body, named])]
    assert kinds == ["face", "body", "group"]
    assert "by the file names" in inspect_folder.explain_type([face, named])
    assert inspect_folder.explain_type([face, body]) == "by the shape of the images"


def test_a_source_names_its_folder_relative_to_the_project(tmp_path: Path) -> None:
    inside = inspect_folder.inspect(draw(tmp_path / "a", x=(8, 8)))
    tables = [
        inspect_folder.source_table(inside, "mimi, hat", "character", root, [])
        for root in (tmp_path, tmp_path / "a", tmp_path / "elsewhere")
    ]
    assert [table["images"] for table in tables] == ["a", ".", (tmp_path / "a").as_posix()]
    assert tables[0] == {"images": "a", "trigger": "mimi, hat", "class_tokens": "mimi character", "captions": "files"}


@pytest.mark.parametrize(
    ("stems", "texts", "table", "notes"),
    [
        # As many images named by view as others: no view.
        ("f00 x", "", {"captions": "files"}, ["every caption is the trigger word", "would get captions by view"]),
        ("f00 f01 x", "", {}, ["captions from the views", 'is the caption of "x"']),
        ("f00 f01 x", "x.txt", {}, ["captions from the views", '"x" have a .txt file, which comes first']),
        ("f00 f01 x", "f00.txt x.txt", {"captions": "files"}, ["from the .txt files", 'is the caption of "f01"']),
        ("x y", "x.caption y.caption", {"captions": "files", "caption_files": ".caption"}, ["from the .caption files"]),
        (
            "x y z",
            "x.caption y.caption z.txt",
            {"captions": "files", "caption_files": ".caption"},
            ["from the .caption", '"z"'],
        ),
    ],
)
def test_captions_are_those_of_most_images(
    tmp_path: Path, stems: str, texts: str, table: dict[str, str], notes: list[str]
) -> None:
    folder = draw(tmp_path / "a", **dict.fromkeys(stems.split(), (8, 8)))
    for name in texts.split():
        (folder / name).write_text("mimi", "utf-8")
    found: list[str] = []
    made = inspect_folder.source_table(inspect_folder.inspect(folder), "mimi", "character", tmp_path, found)
    assert {key: made[key] for key in ("captions", "caption_files") if key in made} == table
    assert len(found) == len(notes)
    assert all(words in note and note.startswith("mimi: ") for words, note in zip(notes, found, strict=True))


def test_every_caption_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    folder = draw(tmp_path / "a", x=(8, 8), y=(8, 8), z=(8, 8))
    for stem, data in {"x": b"\n", "y": b"\xff", "z": b"mimi"}.items():
        (folder / f"{stem}.txt").write_bytes(data)
    with pytest.raises(RecipeError) as error:
        inspect_folder.source_table(inspect_folder.inspect(folder), "mimi", "character", tmp_path, [])
    assert [Path(problem.where).name for problem in error.value.problems] == ["x.txt", "y.txt"]
