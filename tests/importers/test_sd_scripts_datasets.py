"""Folders of kohya's trainers as sources."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from PIL import Image

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


def imported(folder: Path, text: str) -> to_recipe.ImportedRecipe:
    (folder / "data.toml").write_text(text, "utf-8")
    return to_recipe.recipe(reader.read(str(folder / "data.toml"))[0])


def test_each_batch_size_has_a_key_and_a_note_of_its_own(tmp_path: Path) -> None:
    """The first is the default, for classes that the file does not name."""
    result = imported(
        tmp_path,
        "".join(
            f"[[datasets]]\nresolution = {side}\nbatch_size = {batch}\n[[datasets.subsets]]\nimage_dir = 'cats'\n"
            for side, batch in ((512, 6), (832, 2))
        ),
    )
    assert result.table["dataset"]["batch_size"] == {"default": 6, "512x512": 6, "832x832": 2}
    notes = {note.name: (note.disposition, note.where) for note in result.notes}
    assert notes["datasets[0].batch_size"] == ("kept", "dataset.batch_size.default")
    assert notes["datasets[1].batch_size"] == ("kept", "dataset.batch_size.832x832")
    same = imported(tmp_path, "[[datasets]]\nbatch_size = 3\n[[datasets]]\nresolution = 832\nbatch_size = 3\n")
    assert same.table["dataset"]["batch_size"] == {"default": 3}
    assert {note.where for note in same.notes if note.name.endswith("batch_size")} == {"dataset.batch_size.default"}


def test_a_value_in_which_folders_differ_is_the_most_common_one(tmp_path: Path) -> None:
    subsets = [
        "keep_tokens = 2\nshuffle_caption = true\nrandom_crop = true\ncaption_dropout_rate = 0.5\nflip_aug = true\n",
        "keep_tokens = 1\nshuffle_caption = true\nrandom_crop = true\nflip_aug = true\n",
        "keep_tokens = 1\nshuffle_caption = true\nflip_aug = true\n",
    ]
    text = "[[datasets]]\n" + "".join(
        f"[[datasets.subsets]]\nimage_dir = '{name}'\n{subset}" for name, subset in zip("abc", subsets, strict=True)
    )
    result = imported(tmp_path, text)
    dataset = loaded(result, tmp_path).dataset
    assert (dataset.keep_tokens, dataset.shuffle_caption, dataset.random_crop) == (1, True, True)
    assert (dataset.caption_dropout_rate, dataset.flip_aug) == (0, True)
    reasons = {note.name: (str(note.disposition), note.why) for note in result.notes}
    assert reasons["datasets[0].subsets[0].keep_tokens"] == ("changed", "folders differ; 1 for all")
    assert reasons["datasets[0].subsets[1].keep_tokens"] == ("kept", "")
    assert reasons["datasets[0].subsets[0].shuffle_caption"] == ("kept", "")
    assert reasons["random_crop of folders that do not set it"][0] == "changed"
    assert "shuffle_caption of folders that do not set it" not in reasons


def test_mirroring_that_some_folders_leave_out_is_theirs_alone(tmp_path: Path) -> None:
    text = "[[datasets]]\n[[datasets.subsets]]\nimage_dir = 'a'\nflip_aug = true\n[[datasets.subsets]]\nimage_dir = 'b'\n"
    dataset = loaded(imported(tmp_path, text), tmp_path).dataset
    assert (dataset.flip_aug, dataset.sources["a"].flip, dataset.sources["b"].flip) == (False, True, None)


@pytest.mark.parametrize(
    ("settings", "classes", "outcome"),
    [
        ("resolution = 640", [640], "kept"),
        ("resolution = [512, 768]", [512, 768], "changed"),
        ("resolution = [512, 768]\nenable_bucket = true", [628], "changed"),  # the square root of 512 * 768 is 627.1
        ("resolution = [640, 640]\nenable_bucket = true", [640], "kept"),
        ("resolution = 'wide'", [512], "lost"),
        ("batch_size = 0", [512], None),
    ],
)
def test_a_resolution_is_an_area_with_buckets_only(
    tmp_path: Path, settings: str, classes: list[int], outcome: str | None
) -> None:
    result = imported(tmp_path, f"[[datasets]]\n{settings}\n[[datasets.subsets]]\nimage_dir = 'a'\n")
    assert result.table["dataset"]["resolution_classes"] == classes
    assert result.table["dataset"]["batch_size"] == {"default": 1}
    assert dispositions(result).get("datasets[0].resolution") == outcome


def test_a_dataset_without_a_folder_keeps_its_repeats(tmp_path: Path) -> None:
    result = imported(tmp_path, "[[datasets]]\n[[datasets.subsets]]\nnum_repeats = 3\n")
    (source,) = loaded(result, tmp_path).dataset.sources.values()
    assert (source.images, source.trigger, source.repeats) == ("data/pictures", "data", 3)
    assert dispositions(result)["datasets[0].subsets[0].num_repeats"] == "kept"
    assert dispositions(result)["the images"] == "lost"


@pytest.mark.parametrize(
    ("repeats", "expected"), [("", 1), ("num_repeats = 4", 4), ("num_repeats = 0", 1), ("num_repeats = -2", 1)]
)
def test_a_folder_is_repeated_once_or_more(tmp_path: Path, repeats: str, expected: int) -> None:
    result = imported(tmp_path, f"[[datasets]]\n[[datasets.subsets]]\nimage_dir = 'a'\n{repeats}\n")
    assert loaded(result, tmp_path).dataset.sources["a"].repeats == expected


def test_names_of_sources_are_distinct_and_fit_a_key(tmp_path: Path) -> None:
    folders = ("x/5_my cat!", "y/my cat", "z/\u732b", "w/\u72ac")
    text = "[[datasets]]\n" + "".join(f"[[datasets.subsets]]\nimage_dir = '{folder}'\n" for folder in folders)
    sources = loaded(imported(tmp_path, text), tmp_path).dataset.sources
    assert list(sources) == ["my", "my-2", "source", "source-2"]
    assert [source.images for source in sources.values()] == list(folders)


def test_caption_endings_are_kept_where_they_are_endings(tmp_path: Path) -> None:
    text = "[[datasets]]\n[[datasets.subsets]]\nimage_dir = 'a'\ncaption_extension = '{}'\n"
    leaf = "datasets[0].subsets[0].caption_extension"
    for ending, expected in ((".tags", ("files", ".tags", "kept")), (".txt", ("files", ".txt", "kept"))):
        result = imported(tmp_path, text.format(ending))
        (source,) = loaded(result, tmp_path).dataset.sources.values()
        assert (source.captions, source.caption_files, dispositions(result)[leaf]) == expected
    result = imported(tmp_path, text.format("../x"))
    assert loaded(result, tmp_path).dataset.sources["a"].captions == "fixed"
    assert "not a valid ending" in next(note.why for note in result.notes if "caption_extension" in note.name)


def written(folder: Path, text: str) -> to_recipe.ImportedRecipe:
    (folder / "data.toml").write_text(text, "utf-8")
    (folder / "train.toml").write_text(
        'pretrained_model_name_or_path = "m.safetensors"\nnetwork_module = "networks.lora"\nnetwork_dim = 4\n'
        'dataset_config = "data.toml"\nmax_train_steps = 9\nlearning_rate = 1e-4\n',
        "utf-8",
    )
    return to_recipe.recipe(reader.read(str(folder / "train.toml"))[0])


def test_folders_of_one_resolution_each(tmp_path: Path) -> None:
    for name in ("small", "large"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (1024, 1024)).save(tmp_path / name / "1.png")
    parts = [
        f'[[datasets]]\nresolution = {side}\nenable_bucket = true\n[[datasets.subsets]]\nimage_dir = "{tmp_path / name}"\n'
        for name, side in (("small", 512), ("large", 1024))
    ]
    result = written(tmp_path, "".join(parts))
    assert loaded(result, tmp_path).dataset.resolution_classes == (512, 1024)
    outcomes = dispositions(result)
    assert (outcomes["data.toml: datasets[0].resolution"], outcomes["data.toml: datasets[1].resolution"]) == (
        "changed",
        "kept",
    )


def test_values_that_only_some_datasets_set(tmp_path: Path) -> None:
    bare = '[[datasets]]\n[[datasets.subsets]]\nimage_dir = "a"\n'
    own = '[[datasets]]\nenable_bucket = true\nbatch_size = 3\n[[datasets.subsets]]\nimage_dir = "b"\n'
    more = own.replace('"b"', '"c"')
    result = written(tmp_path, bare + own + more)
    dataset = loaded(result, tmp_path).dataset
    assert (dataset.enable_bucket, dataset.batch_size) == (True, {"default": 3})
    outcomes = dispositions(result)
    assert (outcomes["enable_bucket of folders that do not set it"], outcomes["batch_size of 512x512"]) == (
        "changed",
        "changed",
    )


def test_a_general_value_that_every_dataset_overrides(tmp_path: Path) -> None:
    result = written(
        tmp_path, '[general]\nbatch_size = 4\n[[datasets]]\nbatch_size = 2\n[[datasets.subsets]]\nimage_dir = "a"\n'
    )
    note = next(note for note in result.notes if note.name == "data.toml: general.batch_size")
    assert (str(note.disposition), note.why) == ("lost", "every dataset has its own")
