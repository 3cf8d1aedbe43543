"""``dataset import``: folders of images become a [dataset] table."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING

import pytest

from dataset_cases import SOURCE, VIEWS, face, made, three_faces
from orchestrator.dataset.buckets import predict_batches
from orchestrator.dataset.build import build
from orchestrator.dataset.layout import make_layout
from orchestrator.errors import RecipeError
from orchestrator.importers import picture_folders

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return three_faces(tmp_path)


def test_folders_of_every_program_are_described(good: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.mktemp("root")
    table = made(sources={"krnk": {**SOURCE, "repeats": 4}}, vocabulary=VIEWS, sizes=[64])
    build(table, good, root / "tree", lambda *_: None)
    plain = make_layout(table, good)
    text = picture_folders.describe(root / "tree" / "4_krnk", root)
    read = tomllib.loads(text)["dataset"]
    assert read == {
        "name": "krnk",
        "sources": {"krnk": {"images": "tree/4_krnk", "reading": "charframework", "captions": "files"}},
    }
    again = make_layout(made(**read), root)
    assert again.problems == ()
    assert predict_batches(again, made(**read)).images_x_repeats == predict_batches(plain, table).images_x_repeats
    captions = [{image.name: image.caption for image in folder.images} for folder in again.folders]
    assert captions == [{image.name: image.caption for image in folder.images} for folder in plain.folders]
    kohya = root / "kohya"
    (kohya / "10_sks girl").mkdir(parents=True)
    (kohya / "rest").mkdir()
    face(1).save(kohya / "10_sks girl" / "a.png")
    face(2).save(kohya / "rest" / "b.png")
    (kohya / "10_sks girl" / "a.caption").write_text("sks girl")
    text = picture_folders.describe(kohya, root, "mine")
    assert tomllib.loads(text)["dataset"] == {
        "name": "mine",
        "sources": {
            "mine": {
                "images": "kohya",
                "reading": "kohya",
                "captions": "files",
                "caption_files": ".caption",
                "trigger": "sks",
                "class_tokens": "sks girl",
            }
        },
    }
    assert (
        tomllib.loads(picture_folders.describe(good / "data", root))["dataset"]["sources"]["data"]["images"]
        == (good / "data").as_posix()
    )
    gui = root / "gui"
    for part, name in (("img", "10_sks girl"), ("img", "5_sks girl smile"), ("img", "loose"), ("reg", "1_girl")):
        (gui / part / name).mkdir(parents=True)
        face(3).save(gui / part / name / "a.png")
    text = picture_folders.describe(gui, root)
    assert "# loose is not read: it has no number of repeats; move it away, or name it 1_loose" in text
    read = tomllib.loads(text)["dataset"]
    assert read["sources"] == {
        "sks": {"images": "gui/img", "reading": "kohya", "captions": "files", "trigger": "sks"},
        "reg": {
            "images": "gui/reg",
            "reading": "kohya",
            "captions": "files",
            "regularization": True,
            "class_tokens": "girl",
        },
    }
    (gui / "img" / "loose" / "a.png").unlink()
    plan = make_layout(made(**read), root)
    assert plan.problems == ()
    folders = [(folder.class_tokens, folder.repeats, folder.regularization) for folder in plan.folders]
    assert folders == [("sks girl", 10, False), ("sks girl smile", 5, False), ("girl", 1, True)]
    loose = root / "loose"
    for name in ("mimi", "momo"):
        (loose / name).mkdir(parents=True)
        face(4).save(loose / name / "f00.png")
    assert tomllib.loads(picture_folders.describe(loose, root))["dataset"]["sources"] == {
        name: {"images": f"loose/{name}", "trigger": name, "class_tokens": name} for name in ("mimi", "momo")
    }
    (root / "nothing").mkdir()
    for wrong in (root / "nothing", root / "nowhere"):
        with pytest.raises(RecipeError):
            picture_folders.describe(wrong, root)


@pytest.mark.parametrize(
    ("files", "table"),
    [
        ("x.png y.png x.txt", {"captions": "fixed"}),  # half of the images is not most
        ("x.png y.png x.txt y.txt", {"captions": "files"}),
        ("x.png y.png z.png x.caption y.caption", {"captions": "files", "caption_files": ".caption"}),
        ("f00.png x.png", {"captions": "fixed"}),
        ("f00.png f01.png x.png", {}),  # by view
    ],
)
def test_captions_of_plain_images_are_those_of_most(tmp_path: Path, files: str, table: dict[str, str]) -> None:
    folder = tmp_path / "my cat"
    folder.mkdir()
    for name in files.split():
        (folder / name).touch()
    read = tomllib.loads(picture_folders.describe(folder, tmp_path))["dataset"]
    assert read["name"] == "my-cat"
    assert read["sources"] == {"my-cat": {"images": "my cat", "trigger": "my", "class_tokens": "my cat"} | table}


def test_sources_of_one_name_are_numbered(tmp_path: Path) -> None:
    for name in ("a b", "a-b", "a_b", "a+b"):
        (tmp_path / "all" / name).mkdir(parents=True)
        (tmp_path / "all" / name / "x.png").touch()
    text = picture_folders.describe(tmp_path / "all", tmp_path)
    assert list(tomllib.loads(text)["dataset"]["sources"]) == ["a-b", "a+b", "a-b-2", "a_b"]
    assert text.startswith("# all, described from all.\n# a b: 1 image; its trigger is a guess\n")


def test_folders_of_kohya_without_repeats_are_named(tmp_path: Path) -> None:
    for name in ("2_cat", "0_dog", "loose", "3_none"):
        (tmp_path / name).mkdir()
    for name in ("2_cat", "0_dog", "loose"):
        (tmp_path / name / "x.png").touch()
    text = picture_folders.describe(tmp_path, tmp_path.parent, "mine")
    assert "# 0_dog is not read: it has 0 repeats; to train on it, name it 1_dog\n" in text
    assert "# loose is not read: it has no number of repeats; move it away, or name it 1_loose\n" in text
    assert "# 2_cat: 1 image\n" in text
    assert "none" not in text
