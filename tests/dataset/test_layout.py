"""Folders, sizes and captions of a dataset."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dataset_cases import VOCABULARY, described, draw
from orchestrator.dataset.layout import make_layout
from orchestrator.dataset.problems import dataset_problems
from orchestrator.recipe import loader

if TYPE_CHECKING:
    from pathlib import Path


def test_captions_follow_the_fixed_order(tmp_path: Path) -> None:
    for name in ("f00", "b14_again"):
        draw(tmp_path / "data" / f"{name}.png")
    source = {"images": "data", "trigger": "krnk", "class_tokens": "krnk girl", "tags": ["choker"]}
    plan = make_layout(described(sources={"krnk": source}), tmp_path)
    assert plan.problems == ()
    assert {image.name: image.caption for image in plan.folders[0].images} == {
        "f00.png": "krnk, choker, white background, from front, upper body, standing, looking at viewer, smile",
        "b14_again.png": "krnk, choker, white background, from above, from behind, full body, standing, looking away",
    }
    reordered = {**VOCABULARY, "order": ["framing", "trigger"]}
    plan = make_layout(described(sources={"krnk": source}, vocabulary=reordered), tmp_path)
    assert plan.folders[0].images[1].caption == "upper body, krnk"
    plan = make_layout(
        described(sources={"krnk": {**source, "background": "black background", "texts": {"f00": "by hand"}}}), tmp_path
    )
    assert [image.caption for image in plan.folders[0].images] == [
        "krnk, choker, black background, from above, from behind, full body, standing, looking away",
        "by hand",
    ]


def test_sizes_never_enlarge_and_never_train_one_size_twice(tmp_path: Path) -> None:
    draw(tmp_path / "data" / "f00.png", (256, 128))
    draw(tmp_path / "data" / "f01.png", (128, 200))
    sources = {"krnk": {"images": "data", "class_tokens": "krnk girl", "trigger": "krnk"}}
    odd = make_layout(described(sources=sources, sizes=[75], originals=False), tmp_path)
    heights = [image.size[1] for folder in odd.folders for image in folder.images]
    assert heights == [38, 117], "37.5 and 117.2: to the nearest pixel"
    plan = make_layout(described(sources=sources, sizes=[64, 128, 192, 512], resolution_classes=[128, 256]), tmp_path)
    shown = {folder.path: {image.name: image.size for image in folder.images} for folder in plan.folders}
    assert shown == {
        "1_krnk/krnk girl_f0064": {"f00.png": (64, 32), "f01.png": (64, 100)},
        "1_krnk/krnk girl_f0128": {"f00.png": (128, 64)},
        "1_krnk/krnk girl_f0192": {"f00.png": (192, 96)},
        "1_krnk/krnk girl_original_128x256": {"f01.png": (128, 200)},
        "1_krnk/krnk girl_original_256x128": {"f00.png": (256, 128)},
    }
    assert [folder.resolution for folder in plan.folders] == [(128, 128), (128, 128), (128, 256), (256, 128), (256, 128)]
    small = described(sources=sources, sizes=[200], originals=False)
    assert [problem.where for problem in make_layout(small, tmp_path).problems] == ["data/f01.png"]
    exact = make_layout(described(sources=sources, sizes=[128], originals=False), tmp_path)
    assert [image.size for folder in exact.folders for image in folder.images] == [(128, 64), (128, 200)]


def test_folders_of_charframework_and_kohya_are_read_unchanged(tmp_path: Path) -> None:
    for size, flip in ((128, ""), (256, "_noflip")):
        draw(tmp_path / "4_krnk" / f"krnk girl, choker{flip}_f{size:04d}" / "f00.png", (size, size))
    source = {"images": "4_krnk", "reading": "charframework"}
    plan = make_layout(described(sources={"k": source}, flip_aug=True, sizes=[64]), tmp_path)
    assert plan.problems == ()
    assert [(folder.path, folder.repeats, folder.flip, folder.class_tokens) for folder in plan.folders] == [
        ("4_k/krnk girl, choker_f0128", 4, True, "krnk girl"),
        ("4_k/krnk girl, choker_noflip_f0256", 4, False, "krnk girl"),
    ]
    assert plan.folders[0].images[0].caption == (
        "krnk, choker, white background, from front, upper body, standing, looking at viewer, smile"
    )
    draw(tmp_path / "kohya" / "3_sks cat" / "any.jpg").with_suffix(".caption").write_text("sks, a cat\n")
    draw(tmp_path / "kohya" / "3_sks cat" / "other.jpg")
    draw(tmp_path / "kohya" / "cats" / "lost.png")
    source = {"images": "kohya", "reading": "kohya", "captions": "files", "caption_files": ".caption"}
    plan = make_layout(described(sources={"k": source}), tmp_path)
    assert [(folder.path, folder.repeats, folder.class_tokens) for folder in plan.folders] == [("3_k/3_sks cat", 3, "sks cat")]
    assert [image.caption for image in plan.folders[0].images] == ["sks, a cat", None]
    assert [str(problem.where) for problem in plan.problems] == ["kohya/cats"]


def test_a_caption_file_precedes_texts_and_view_and_words_come_last(tmp_path: Path) -> None:
    for name in ("f00", "f01", "f02", "later"):
        draw(tmp_path / "data" / f"{name}.png")
    for name in ("f00", "f01"):
        (tmp_path / "data" / f"{name}.txt").write_text(f"{name} from its file", "utf-8")
    source = {"images": "data", "trigger": "krnk", "tags": ["hat"], "texts": {"f01": "by hand", "f02": "by hand"}}

    def found(**more: object) -> dict[str, tuple[str | None, str]]:
        (folder,) = make_layout(described(sources={"krnk": {**source, **more}}), tmp_path).folders
        return {image.original.stem: (image.caption, str(image.caption_source)) for image in folder.images}

    words = ("krnk, hat", "trigger and tags")
    assert found() == {
        "f00": ("f00 from its file", "caption file"),
        "f01": ("f01 from its file", "caption file"),
        "f02": ("by hand", "texts in the recipe"),
        "later": words,
    }
    (tmp_path / "data" / "f00.txt").unlink()
    assert found()["f00"][1] == "view in the file name"
    assert found(captions="files")["f00"] == words
    assert found(captions="tagger")["f00"] == (None, "tagger")
    assert found(captions="fixed")["f01"] == ("by hand", "texts in the recipe")


def test_every_problem_at_once_with_file_names(tmp_path: Path) -> None:
    data = tmp_path / "data"
    draw(data / "f00.png")
    draw(data / "F00.jpg")
    draw(data / "portrait.png")
    (data / "f01.png").write_bytes(b"not an image")
    (data / "f02.png").write_bytes((data / "f00.png").read_bytes()[:20])
    (data / "f03.png").symlink_to(data / "moved away.png")
    draw(tmp_path / "texts" / "a.png")
    draw(tmp_path / "texts" / "b.png").with_suffix(".txt").write_bytes(b"\xff\xfe")
    draw(tmp_path / "texts" / "c.png").with_suffix(".txt").write_text("\nsecond line only\n")
    table = {
        "krnk": {"images": "data", "trigger": "krnk"},
        "again": {"images": "data/*.png", "captions": "fixed"},
        "texts": {"images": "texts", "captions": "files"},
        "none": {"images": "nowhere"},
        "empty": {"images": "nothing/*.png"},
    }
    problems = {problem.where: problem.what for problem in make_layout(described(sources=table), tmp_path).problems}
    assert "has the same name as data/F00.jpg" in problems["data/f00.png"]
    assert "data/portrait.png" not in problems  # its caption is the trigger word
    assert "not an image" in problems["data/f01.png"]
    assert "broken" in problems["data/f02.png"] or "not an image" in problems["data/f02.png"]
    assert "cannot be read" in problems["data/f03.png"]
    assert "dataset.sources.krnk contains, too" in problems["dataset.sources.again.images"]
    assert "no .txt beside it, no view in its name, and its source has no trigger" in problems["texts/a.png"]
    assert "not UTF-8" in problems["texts/b.txt"]
    assert "empty first line" in problems["texts/c.txt"]
    assert problems["dataset.sources.none.images"] == "no folder nowhere"
    assert "no images" in problems["dataset.sources.empty.images"]


def test_the_release_has_the_folders_of_its_author(project: Path) -> None:
    recipe = loader.recipe(project / "recipes", "krnksf_tyankps-lora3x3").recipe
    plan = make_layout(recipe.dataset, project)
    assert dataset_problems(plan, recipe.dataset, project) == []
    assert {folder.source: len(folder.images) for folder in plan.folders} == {
        "krnk": 15,
        "krnksf": 12,
        "tyank": 12,
        "tyankps": 12,
    }
    assert "1_krnk/krnk character_f0512" in {folder.path for folder in plan.folders}
    assert "1_krnksf/krnksf character_b0128" in {folder.path for folder in plan.folders}


def test_others_are_captioned_as_the_subject_is(tmp_path: Path) -> None:
    draw(tmp_path / "others" / "f00_1.png")
    others = {"images": "others", "trigger": "character", "regularization": True, "captions": "alike"}
    for folder, names in {"views": ("f00", "f04", "more"), "plain": ("one", "two", "f00")}.items():
        for name in names:
            draw(tmp_path / folder / f"{name}.png")
    (tmp_path / "written").mkdir()
    for name in ("f00", "f04"):
        draw(tmp_path / "written" / f"{name}.png")
        (tmp_path / "written" / f"{name}.txt").write_text("mimi, smiling", "utf-8")
    shown = {}
    for folder in ("views", "plain", "written"):
        own = {"images": folder, "trigger": "mimi"}
        layout = make_layout(described(sources={"mimi": own, "others": others}), tmp_path)
        shown[folder] = {image.caption for each in layout.folders if each.regularization for image in each.images}
    viewed = "character, white background, from front, upper body, standing, looking at viewer, smile"
    assert shown == {"views": {viewed}, "plain": {"character"}, "written": {"character"}}
