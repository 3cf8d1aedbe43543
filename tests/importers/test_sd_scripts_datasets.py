"""Folders of kohya's trainers as sources."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from import_cases import GUI, dispositions, loaded
from orchestrator.importers import reader, to_recipe

if TYPE_CHECKING:
    from pathlib import Path


def test_folders_of_kohya_give_trigger_and_class_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("img/10_mycat cat", "reg/1_cat"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "0.png").write_bytes(b"x")
    (tmp_path / "a.json").write_text(json.dumps({**GUI, "train_data_dir": "img", "reg_data_dir": "reg"}), "utf-8")
    imported = to_recipe.recipe(reader.read("a.json")[0])
    sources = loaded(imported, tmp_path).dataset.sources
    assert (sources["mycat"].images, sources["mycat"].trigger, sources["mycat"].class_tokens) == ("img", "mycat", "mycat cat")
    assert (sources["reg"].trigger, sources["reg"].class_tokens, sources["reg"].regularization) == ("", "cat", True)
    assert "trigger" not in dispositions(imported)


def test_missing_folders_of_kohya_use_the_name_of_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(GUI), "utf-8")
    imported = to_recipe.recipe(reader.read(str(tmp_path / "a.json"))[0])
    source = loaded(imported, tmp_path).dataset.sources["img"]
    assert (source.trigger, source.class_tokens) == ("cat", "")  # of "cat lora"; not the folder's "img"
    assert dispositions(imported)["trigger"] == "changed"


def test_a_folder_in_several_datasets_is_one_source_with_sizes(tmp_path: Path) -> None:
    text = "".join(
        f"[[datasets]]\nresolution = {side}\nbatch_size = {batch}\n[[datasets.subsets]]\nimage_dir = 'cats'\n"
        for side, batch in ((512, 6), (832, 2), (640, 4))
    )
    (tmp_path / "data.toml").write_text(text, "utf-8")
    dataset = loaded(to_recipe.recipe(reader.read(str(tmp_path / "data.toml"))[0]), tmp_path).dataset
    (source,) = dataset.sources.values()
    assert (source.sizes, source.repeats, dataset.resolution_classes) == ((512, 640), 1, (512, 640, 832))
    assert [dataset.batch_size[f"{side}x{side}"] for side in (512, 640, 832)] == [6, 4, 2]


def test_repeats_are_not_read_from_a_name_that_the_trainer_does_not_read(tmp_path: Path) -> None:
    (tmp_path / "data.toml").write_text("[[datasets]]\n[[datasets.subsets]]\nimage_dir = '9_cat'\n", "utf-8")
    dataset = loaded(to_recipe.recipe(reader.read(str(tmp_path / "data.toml"))[0]), tmp_path).dataset
    assert dataset.sources["cat"].repeats == 1


@pytest.mark.parametrize(
    ("files", "expected"),
    [((), ("fixed", ".txt")), (("0.txt",), ("files", ".txt")), (("0.caption",), ("files", ".caption"))],
)
def test_images_without_caption_files_have_fixed_captions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: tuple[str, ...], expected: tuple[str, str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cats").mkdir()
    for name in ("0.png", *files):
        (tmp_path / "cats" / name).write_bytes(b"x")
    (tmp_path / "data.toml").write_text("[[datasets]]\n[[datasets.subsets]]\nimage_dir = 'cats'\n", "utf-8")
    (source,) = loaded(to_recipe.recipe(reader.read("data.toml")[0]), tmp_path).dataset.sources.values()
    assert (source.captions, source.caption_files) == expected
