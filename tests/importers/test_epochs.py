"""Steps from epochs, by the trainer's arithmetic."""

from __future__ import annotations

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
