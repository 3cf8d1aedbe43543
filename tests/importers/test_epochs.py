"""Steps from epochs, by the trainer's arithmetic."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from import_cases import loaded
from orchestrator.importers import epochs, to_recipe
from orchestrator.importers.notes import ImportedSettings

if TYPE_CHECKING:
    from pathlib import Path


def folder(path: Path, count: int, size: tuple[int, int] = (64, 64)) -> str:
    path.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        Image.new("RGB", size).save(path / f"{size[1]}-{index}.png")
    return str(path)


def steps(groups: list[dict[str, Any]], epochs_: float, **options: Any) -> int | None:
    settings = ImportedSettings("x", "sd-scripts TOML", options=options, datasets=groups)
    return epochs.steps(settings, (None, epochs_))


@pytest.mark.parametrize(("accumulation", "expected"), [(1, 4 * 12), (2, 4 * 6), (5, 4 * 3)])
def test_accumulated_batches_are_counted_by_epoch(tmp_path: Path, accumulation: int, expected: int) -> None:
    subset = {"image_dir": folder(tmp_path / "a", 5), "num_repeats": 7}
    assert steps([{"batch_size": 3, "subsets": [subset]}], 4, gradient_accumulation_steps=accumulation) == expected


def test_every_bucket_has_its_own_last_batch(tmp_path: Path) -> None:
    folder(tmp_path / "a", 3, (512, 512))
    folder(tmp_path / "a", 3, (512, 768))
    group = {"batch_size": 2, "resolution": 512, "subsets": [{"image_dir": str(tmp_path / "a")}]}
    assert steps([group], 1) == 3
    assert steps([{**group, "enable_bucket": True}], 1) == 4


def test_datasets_have_batches_of_their_own_size(tmp_path: Path) -> None:
    subsets = [{"image_dir": folder(tmp_path / "a", 5)}]
    groups = [{"batch_size": 1, "subsets": subsets}, {"batch_size": 4, "subsets": subsets}]
    assert steps(groups, 2) == 2 * (5 + 2)


def test_regularization_images_are_repeated_up_to_the_number_of_the_others(tmp_path: Path) -> None:
    subsets = [{"parent": folder(tmp_path / "img" / "6_cat", 4) and str(tmp_path / "img")}]
    subsets += [{"parent": folder(tmp_path / "reg" / "1_cat", 5) and str(tmp_path / "reg"), "is_reg": True}]
    assert steps([{"batch_size": 1, "subsets": subsets}], 3) == 3 * (24 + 24)


def test_images_that_cannot_be_counted_give_no_steps(tmp_path: Path) -> None:
    subset = {"image_dir": str(tmp_path / "none")}
    assert steps([{"subsets": [subset]}], 3) is None


def test_the_interface_rounds_once(tmp_path: Path) -> None:
    group = {"batch_size": 4, "subsets": [{"parent": folder(tmp_path / "img" / "3_cat", 3) and str(tmp_path / "img")}]}
    settings = ImportedSettings("x", "kohya_ss", datasets=[group], extra={"interface_epochs": 5})
    assert epochs.steps(settings, (None, None)) == 12  # ceil(9 / 4 * 5); the trainer: 5 * ceil(9 / 4)
    (note,) = settings.notes
    assert "sd-scripts counts 15" in note.why


def test_hidden_images_are_counted_by_the_interface_alone(tmp_path: Path) -> None:
    images = tmp_path / "img" / "1_cat"
    folder(images, 2)
    shutil.copy(images / "64-0.png", images / "._64-0.png")
    assert steps([{"subsets": [{"image_dir": str(images)}]}], 10) == 20
    settings = ImportedSettings(
        "x", "kohya_ss", datasets=[{"subsets": [{"parent": str(tmp_path / "img")}]}], extra={"interface_epochs": 10}
    )
    assert epochs.steps(settings, (None, None)) == 30


@pytest.mark.parametrize("option", ["max_train_epochs", "epoch"])
def test_epochs_of_images_that_cannot_be_counted_stay_epochs(tmp_path: Path, option: str) -> None:
    """The trainer counts them where the images are."""
    group = {"batch_size": 2, "subsets": [{"image_dir": str(tmp_path / "none"), "num_repeats": 3}]}
    settings = ImportedSettings("x", "sd-scripts TOML", {"lr_warmup_steps": 0.1, "save_every_n_epochs": 2}, [group])
    if option == "epoch":
        settings.extra["interface_epochs"] = 7
    else:
        settings.options[option] = 7
    imported = to_recipe.recipe(settings)
    assert imported.table["training"]["epochs"] == 7
    assert "steps" not in imported.table["training"]
    assert imported.table["training"]["options"]["save_every_n_epochs"] == 2
    assert loaded(imported, tmp_path).training.epochs == 7
    settings.leaves = {"lr_warmup_steps": 0.1}
    (note,) = (note for note in settings.notes if note.name == "lr_warmup_steps")
    assert note.disposition == "lost"


@pytest.mark.parametrize(
    ("options", "extra", "note"),
    [
        ({"max_train_epochs": 3}, {}, "kept     max_train_epochs -> training.epochs"),
        ({}, {"interface_epochs": 3}, "changed  epoch -> training.epochs   (kohya_ss passes steps; its images cannot be"),
        ({"max_train_steps": 9}, {}, "kept     max_train_steps -> training.steps"),
        ({"max_train_steps": 9, "max_train_epochs": 3}, {}, "lost     max_train_steps   (max_train_epochs overrides it)"),
    ],
)
def test_what_states_the_length_has_a_note(options: dict[str, Any], extra: dict[str, Any], note: str) -> None:
    group = {"subsets": [{"image_dir": "/nowhere"}]}
    settings = ImportedSettings("x", "sd-scripts TOML", {}, [group], extra)
    length = (options.get("max_train_steps"), options.get("max_train_epochs"))
    assert epochs.steps(settings, length) == (9 if len(options) == 1 and "max_train_steps" in options else None)
    assert epochs.uncounted(settings, length) == (None if options == {"max_train_steps": 9} else 3)
    assert any(str(each).startswith(note) for each in settings.notes)


def test_counted_epochs_say_how(tmp_path: Path) -> None:
    group = {"batch_size": 2, "subsets": [{"image_dir": folder(tmp_path / "a", 5)}]}  # 3 batches
    for accumulation, count, words in ((1, 12, "are 12 steps"), (2, 8, "are 8 steps with 2 batches a step")):
        settings = ImportedSettings("x", "x", {"gradient_accumulation_steps": accumulation}, [group])
        assert epochs.steps(settings, (None, 4)) == count
        (note,) = settings.notes
        assert str(note).startswith("changed  max_train_epochs -> training.steps   (4 epochs of the images in these folders")
        assert note.why.endswith(words)


def test_only_images_of_the_trainer_in_numbered_folders_are_counted(tmp_path: Path) -> None:
    for name, count in (("2_cat", 3), ("0_off", 4), ("loose", 5)):
        folder(tmp_path / name, count)
    (tmp_path / "2_cat" / "notes.txt").touch()
    (tmp_path / "7_file").touch()
    assert steps([{"subsets": [{"parent": str(tmp_path)}]}], 1) == 6
    assert steps([{"subsets": [{"image_dir": str(tmp_path / "2_cat")}]}], 1) == 3
    assert steps([{"subsets": [{"image_dir": str(tmp_path / "2_cat"), "num_repeats": "4"}]}], 1) == 12


def test_a_number_of_images_in_the_file_is_believed(tmp_path: Path) -> None:
    """The metadata of a LoRA holds it, without the images."""
    assert steps([{"batch_size": 4, "subsets": [{"image_dir": "/nowhere", "img_count": 5, "num_repeats": 2}]}], 1) == 3
    assert steps([{"subsets": [{"image_dir": "/nowhere", "img_count": 0}]}], 1) is None
    both = [{"image_dir": "/nowhere"}, {"image_dir": folder(tmp_path / "a", 2)}]
    assert steps([{"subsets": both}], 1) is None, "one folder that cannot be counted leaves no number"
    assert steps([], 1) is None


@pytest.mark.parametrize(("share", "expected"), [(True, 12), (False, 7)])
def test_regularization_images_count_once_for_a_warm_up_of_lora_easy(tmp_path: Path, share: bool, expected: int) -> None:
    subsets = [
        {"image_dir": folder(tmp_path / "a", 2), "num_repeats": 3},
        {"image_dir": folder(tmp_path / "b", 1), "is_reg": True},
    ]
    settings = ImportedSettings("x", "x", datasets=[{"subsets": subsets}])
    assert epochs.updates(settings, share=share) == expected


def test_the_interface_doubles_for_regularization_and_skips_bitmaps(tmp_path: Path) -> None:
    folder(tmp_path / "img" / "2_cat", 3)
    Image.new("RGB", (8, 8)).save(tmp_path / "img" / "2_cat" / "x.bmp")
    folder(tmp_path / "reg" / "1_cat", 1)
    subsets = [{"parent": str(tmp_path / "img")}, {"parent": str(tmp_path / "reg"), "is_reg": True}]
    settings = ImportedSettings(
        "x", "kohya_ss", datasets=[{"batch_size": 4, "subsets": subsets}], extra={"interface_epochs": 5}
    )
    assert epochs.steps(settings, (None, None)) == 15  # ceil(6 / 4 * 5 * 2)
    (note,) = settings.notes
    assert "ceil(6 / 4 / 1 * 5 * 2) = 15 steps; sd-scripts counts 20" in note.why  # (8 + 8) / 4 batches, 5 times


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ({}, 2),  # 768x256 and 256x768 of the area 512x512
        ({"min_bucket_reso": 512, "max_bucket_reso": 512}, 1),
        ({"enable_bucket": False}, 1),
    ],
)
def test_rules_of_buckets_count(tmp_path: Path, rules: dict[str, Any], expected: int) -> None:
    folder(tmp_path / "a", 1, (256, 768))
    Image.new("RGB", (768, 256)).save(tmp_path / "a" / "wide.png")
    group = {"batch_size": 2, "resolution": 512, "enable_bucket": True, "subsets": [{"image_dir": str(tmp_path / "a")}]}
    assert steps([group | rules], 1) == expected


def test_unreadable_images_share_a_bucket(tmp_path: Path) -> None:
    folder(tmp_path / "a", 1)
    for name in ("x.png", "y.jpg"):
        (tmp_path / "a" / name).write_bytes(b"x")
    assert steps([{"batch_size": 2, "enable_bucket": True, "subsets": [{"image_dir": str(tmp_path / "a")}]}], 1) == 2
