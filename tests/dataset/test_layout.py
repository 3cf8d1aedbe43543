"""Names, captions, and which folders a dataset will have."""

from __future__ import annotations

import json
import tomllib
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from orchestrator.dataset import buckets, naming, sd_scripts_toml
from orchestrator.dataset.layout import make_layout
from orchestrator.dataset.problems import dataset_problems
from orchestrator.dataset.sd_scripts_toml import absolute_config
from orchestrator.dataset.sources import source_files
from orchestrator.recipe import Dataset, loader

if TYPE_CHECKING:
    from pathlib import Path

VOCABULARY = {
    "height": {"0": "", "1": "from above", "2": "from below"},
    "direction": {"0": "from front", "2": "from side", "4": "from behind", "other": "from front"},
    "framing": {"f": "upper body", "b": "full body"},
    "gaze": {"0": "looking at viewer", "other": "looking away"},
    "pose": "standing",
    "background": "white background",
    "expression": {"4": "", "other": "smile"},
}


def made(**table: Any) -> Dataset:
    """Return a dataset table; ``sources`` and what else differs from a plain one."""
    return Dataset.model_validate_json(json.dumps({"name": "one", "vocabulary": VOCABULARY, "min_bucket_reso": 64, **table}))


def picture(path: Path, size: tuple[int, int] = (64, 64), color: str = "#804020", **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path, **options)
    return path


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("krnk girl_f0512", naming.FolderName("krnk girl", "krnk", (), None)),
        (
            "kuroneko girl, short hair, choker_f0768",
            naming.FolderName("kuroneko girl", "kuroneko", ("short hair", "choker"), None),
        ),
        ("krnk girl_flip_f0128", naming.FolderName("krnk girl", "krnk", (), True)),
        ("krnk girl, tall_noflip_f0128", naming.FolderName("krnk girl", "krnk", ("tall",), False)),
        ("krnk", naming.FolderName("krnk", "krnk", (), None)),
    ],
)
def test_folder_names_of_charframework(name: str, expected: naming.FolderName) -> None:
    assert naming.charframework(name) == expected


def test_a_folder_name_that_we_write_reads_back() -> None:
    for tags in ((), ("short hair", "choker")):
        for flip in (None, True, False):
            name = naming.folder("krnk girl", tags, flip, "f0512")
            assert naming.charframework(name) == naming.FolderName("krnk girl", "krnk", tags, flip)
    assert naming.folder('a/b\\c:"d', (), None, "f0512") == "a b c d_f0512"
    assert len(naming.folder("word " * 100, ("tag",) * 50, None, "f0512").encode()) < 255


def test_repeats_and_views() -> None:
    assert naming.repeats("4_krnk") == (4, "krnk")
    assert naming.repeats("2_krnksf_krnk") == (2, "krnksf_krnk")
    assert naming.repeats("krnk") == (None, "krnk")
    assert naming.view("f17_second") == naming.View("f", "1", "7")
    for wrong in ("f30", "f08", "g00", "portrait", "F00", ""):
        assert naming.view(wrong) is None


def test_captions_follow_the_fixed_order(tmp_path: Path) -> None:
    for name in ("f00", "b14_again"):
        picture(tmp_path / "data" / f"{name}.png")
    source = {"images": "data", "trigger": "krnk", "class_tokens": "krnk girl", "tags": ["choker"]}
    plan = make_layout(made(sources={"krnk": source}), tmp_path)
    assert plan.problems == ()
    assert {one.name: one.caption for one in plan.folders[0].images} == {
        "f00.png": "krnk, choker, white background, from front, upper body, standing, looking at viewer, smile",
        "b14_again.png": "krnk, choker, white background, from above, from behind, full body, standing, looking away",
    }
    reordered = {**VOCABULARY, "order": ["framing", "trigger"]}
    plan = make_layout(made(sources={"krnk": source}, vocabulary=reordered), tmp_path)
    assert plan.folders[0].images[1].caption == "upper body, krnk"
    plan = make_layout(
        made(sources={"krnk": {**source, "background": "black background", "texts": {"f00": "by hand"}}}), tmp_path
    )
    assert [one.caption for one in plan.folders[0].images] == [
        "krnk, choker, black background, from above, from behind, full body, standing, looking away",
        "by hand",
    ]


def test_sizes_never_enlarge_and_never_train_one_size_twice(tmp_path: Path) -> None:
    picture(tmp_path / "data" / "f00.png", (256, 128))
    picture(tmp_path / "data" / "f01.png", (128, 200))
    sources = {"krnk": {"images": "data", "class_tokens": "krnk girl", "trigger": "krnk"}}
    odd = make_layout(made(sources=sources, sizes=[75], originals=False), tmp_path)
    heights = [one.size[1] for folder in odd.folders for one in folder.images]
    assert heights == [38, 117], "37.5 and 117.2: to the nearest pixel"
    plan = make_layout(made(sources=sources, sizes=[64, 128, 192, 512], resolution_classes=[128, 256]), tmp_path)
    shown = {folder.path: {one.name: one.size for one in folder.images} for folder in plan.folders}
    assert shown == {
        "1_krnk/krnk girl_f0064": {"f00.png": (64, 32), "f01.png": (64, 100)},
        "1_krnk/krnk girl_f0128": {"f00.png": (128, 64)},
        "1_krnk/krnk girl_f0192": {"f00.png": (192, 96)},
        "1_krnk/krnk girl_original_128x256": {"f01.png": (128, 200)},
        "1_krnk/krnk girl_original_256x128": {"f00.png": (256, 128)},
    }
    assert [folder.resolution for folder in plan.folders] == [(128, 128), (128, 128), (128, 256), (256, 128), (256, 128)]
    small = made(sources=sources, sizes=[200], originals=False)
    assert [problem.where for problem in make_layout(small, tmp_path).problems] == ["data/f01.png"]
    exact = make_layout(made(sources=sources, sizes=[128], originals=False), tmp_path)
    assert [one.size for folder in exact.folders for one in folder.images] == [(128, 64), (128, 200)]


def test_folders_of_charframework_and_kohya_are_read_as_they_are(tmp_path: Path) -> None:
    for size, flip in ((128, ""), (256, "_noflip")):
        picture(tmp_path / "4_krnk" / f"krnk girl, choker{flip}_f{size:04d}" / "f00.png", (size, size))
    source = {"images": "4_krnk", "reading": "charframework"}
    plan = make_layout(made(sources={"k": source}, flip_aug=True, sizes=[64]), tmp_path)
    assert plan.problems == ()
    assert [(one.path, one.repeats, one.flip, one.class_tokens) for one in plan.folders] == [
        ("4_k/krnk girl, choker_f0128", 4, True, "krnk girl"),
        ("4_k/krnk girl, choker_noflip_f0256", 4, False, "krnk girl"),
    ]
    assert plan.folders[0].images[0].caption == (
        "krnk, choker, white background, from front, upper body, standing, looking at viewer, smile"
    )
    picture(tmp_path / "kohya" / "3_sks cat" / "any.jpg").with_suffix(".caption").write_text("sks, a cat\n")
    picture(tmp_path / "kohya" / "3_sks cat" / "other.jpg")
    picture(tmp_path / "kohya" / "cats" / "lost.png")
    source = {"images": "kohya", "reading": "kohya", "captions": "files", "caption_files": ".caption"}
    plan = make_layout(made(sources={"k": source}), tmp_path)
    assert [(one.path, one.repeats, one.class_tokens) for one in plan.folders] == [("3_k/3_sks cat", 3, "sks cat")]
    assert [one.caption for one in plan.folders[0].images] == ["sks, a cat", None]
    assert [str(problem.where) for problem in plan.problems] == ["kohya/cats"]


def test_every_problem_at_once_with_file_names(tmp_path: Path) -> None:
    data = tmp_path / "data"
    picture(data / "f00.png")
    picture(data / "F00.jpg")
    picture(data / "portrait.png")
    (data / "f01.png").write_bytes(b"not a picture")
    (data / "f02.png").write_bytes((data / "f00.png").read_bytes()[:20])
    (data / "f03.png").symlink_to(data / "moved away.png")
    picture(tmp_path / "texts" / "a.png")
    picture(tmp_path / "texts" / "b.png").with_suffix(".txt").write_bytes(b"\xff\xfe")
    picture(tmp_path / "texts" / "c.png").with_suffix(".txt").write_text("\nsecond line only\n")
    table = {
        "krnk": {"images": "data", "trigger": "krnk"},
        "again": {"images": "data/*.png", "captions": "fixed"},
        "texts": {"images": "texts", "captions": "files"},
        "none": {"images": "nowhere"},
        "empty": {"images": "nothing/*.png"},
    }
    said = {problem.where: problem.what for problem in make_layout(made(sources=table), tmp_path).problems}
    assert "has the same name as data/F00.jpg" in said["data/f00.png"]
    assert "states no view" in said["data/portrait.png"]
    assert "not an image" in said["data/f01.png"]
    assert "broken" in said["data/f02.png"] or "not an image" in said["data/f02.png"]
    assert "cannot be read" in said["data/f03.png"]
    assert "dataset.sources.krnk contains, too" in said["dataset.sources.again.images"]
    assert "no such file" in said["texts/a.txt"]
    assert "not UTF-8" in said["texts/b.txt"]
    assert "empty first line" in said["texts/c.txt"]
    assert said["dataset.sources.none.images"] == "no folder nowhere"
    assert "no images" in said["dataset.sources.empty.images"]


def test_sources_name_every_file_that_matters(tmp_path: Path) -> None:
    one = picture(tmp_path / "texts" / "a.png")
    one.with_suffix(".txt").write_text("a\n")
    picture(tmp_path / "deep" / "x" / "b.png")
    table = {
        "t": {"images": "texts", "captions": "files"},
        "g": {"images": "deep/**/*.png", "captions": "tagger"},
    }
    roles = dict(source_files(made(sources=table, tagger_model="models/m.onnx"), tmp_path))
    assert sorted(roles) == ["g/x/b.png", "t/a.png", "t/a.txt", "tagger/model", "tagger/tags"]
    assert roles["tagger/tags"] == tmp_path / "models" / "selected_tags.csv"
    assert roles["t/a.png"] == one


def test_the_toml_is_what_sd_scripts_takes(tmp_path: Path) -> None:
    for name, size in (("f00", 64), ("f01", 300)):
        picture(tmp_path / "data" / f"{name}.png", (size, size))
        picture(tmp_path / "reg" / f"{name}.png", (size, size))
    sources = {
        "krnk": {"images": "data", "trigger": "krnk", "class_tokens": "krnk girl", "repeats": 3, "flip": False},
        "reg": {"images": "reg", "class_tokens": "girl", "regularization": True},
    }
    table = made(
        sources=sources, resolution_classes=[128, 320], batch_size={"default": 1, "128x128": 5}, caption_dropout_rate=0.1
    )
    plan = make_layout(table, tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "dataset.toml").write_text(sd_scripts_toml.text(plan, table))
    read = tomllib.loads(absolute_config(tmp_path / "out"))
    assert list(read) == ["general", "datasets"]
    assert read["general"]["caption_dropout_rate"] == 0.1
    assert "caption_tag_dropout_rate" not in read["general"]
    assert [(one["resolution"], one["batch_size"]) for one in read["datasets"]] == [([128, 128], 5), ([320, 320], 1)]
    subject, regularization = read["datasets"][0]["subsets"]
    assert subject["image_dir"] == f"{tmp_path.as_posix()}/out/3_krnk/krnk girl_noflip_original_128x128"
    assert {key: subject[key] for key in ("class_tokens", "num_repeats", "flip_aug")} == {
        "class_tokens": "krnk girl",
        "num_repeats": 3,
        "flip_aug": False,
    }
    assert "is_reg" not in subject
    assert regularization["is_reg"] is True


def test_the_table_for_12_gb() -> None:
    table = made(batch_table="12GB", batch_size={"default": 7})
    sizes = {size: buckets.batch_size(table, size) for size in ((512, 512), (512, 768), (768, 768), (1024, 512), (1024, 1024))}
    assert sizes == {(512, 512): 4, (512, 768): 3, (768, 768): 2, (1024, 512): 2, (1024, 1024): 1}
    assert buckets.batch_size(made(batch_size={"default": 7}), (512, 512)) == 7


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
