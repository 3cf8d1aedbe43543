"""Every value of an input has one note, and the note is true of the recipe."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from import_cases import GUI, LINE, dispositions, loaded
from orchestrator.importers import leaves, reader, to_recipe
from orchestrator.importers.notes import Disposition, ImportedSettings, Note

if TYPE_CHECKING:
    from pathlib import Path

CONFIGURATION = """
[general]
keep_tokens = 1
odd_key = 3
[[datasets]]
resolution = 640
batch_size = 3
  [[datasets.subsets]]
  image_dir = "a"
  num_repeats = 2
  caption_prefix = "photo, "
  mask_color = "red"
  custom_attributes = {kind = "x"}
  [[datasets.subsets]]
  image_dir = "b"
  keep_tokens = 2
  caption_prefix = "photo, "
"""
TOML = """
dataset_config = "images.toml"
pretrained_model_name_or_path = "base.safetensors"
network_args = ["conv_dim=4", "conv_alpha=1", "nonsense=3"]
optimizer_args = ["weight_decay=0.02", "amsgrad=None"]
learning_rate = 1e-4
max_train_steps = 30
train_batch_size = 8
no_such_option = true
wandb_api_key = "secret"
"""


def accounted(source: Path) -> to_recipe.ImportedRecipe:
    """Import a file, and check that each leaf has exactly one note."""
    (settings,) = reader.read(str(source))
    result = to_recipe.recipe(settings)
    counts = Counter(note.name for note in result.notes)
    assert settings.leaves
    assert {path: counts[path] for path in settings.leaves} == dict.fromkeys(settings.leaves, 1)
    return result


def test_every_leaf_of_a_configuration_and_its_datasets(tmp_path: Path) -> None:
    (tmp_path / "images.toml").write_text(CONFIGURATION, "utf-8")
    (tmp_path / "a.toml").write_text(TOML, "utf-8")
    result = accounted(tmp_path / "a.toml")
    recipe = loaded(result, tmp_path)
    outcomes = dispositions(result)
    lost = {name for name, outcome in outcomes.items() if outcome == "lost"}
    above = "images.toml: datasets[0].subsets[0]"
    assert lost == {
        "images.toml: general.odd_key", f"{above}.mask_color", f"{above}.custom_attributes.kind", "no_such_option",
        "wandb_api_key", "network_args.nonsense", "optimizer_args.amsgrad",
    }  # fmt: skip
    assert recipe.training.options["caption_prefix"] == "photo, "
    assert outcomes[f"{above}.caption_prefix"] == "kept"
    assert {outcomes["images.toml: general.keep_tokens"], outcomes["images.toml: datasets[0].subsets[1].keep_tokens"]} == {
        "kept",
        "changed",  # one number for all folders
    }
    assert outcomes["train_batch_size"] == "changed"  # the datasets override it
    assert "secret" not in result.text()
    assert "secret" not in json.dumps(result.as_json())


def test_every_leaf_of_the_interface(tmp_path: Path) -> None:
    more: dict[str, Any] = {
        "optimizer_args": '"weight_decay=0.2" "betas=0.9,0.9"', "flux1_t5": 3, "lumina_ae": "x", "unknown": [1, 2], "nested": {"a": {"b": 1}},  # noqa: E501
        "loraplus_lr_ratio": 2, "xformers": "none", "lowvram": True, "sample_prompts": "x", "stop_text_encoder_training": 1,
    }  # fmt: skip
    (tmp_path / "a.json").write_text(json.dumps({**GUI, **more}), "utf-8")
    result = accounted(tmp_path / "a.json")
    loaded(result, tmp_path)
    outcomes = dispositions(result)
    assert (outcomes["nested.a.b"], outcomes["unknown"], outcomes["optimizer_args.betas"]) == ("lost", "lost", "kept")
    assert outcomes["additional_parameters.--weighted_captions"] == "kept"


def test_a_training_without_folders_keeps_the_settings_of_its_captions(tmp_path: Path) -> None:
    settings = {key: value for key, value in GUI.items() if key != "train_data_dir"}
    settings |= {"shuffle_caption": True, "caption_extension": ".tags", "caption_dropout_rate": 0.2, "flip_aug": True}
    (tmp_path / "a.json").write_text(json.dumps(settings), "utf-8")
    result = accounted(tmp_path / "a.json")
    dataset = loaded(result, tmp_path).dataset
    (source,) = dataset.sources.values()
    assert (dataset.shuffle_caption, dataset.caption_dropout_rate, dataset.flip_aug) == (True, 0.2, True)
    assert (source.caption_files, source.flip, source.captions) == (".tags", True, "files")


def test_every_word_of_a_line_is_accounted_for() -> None:
    (settings,) = reader.read(LINE)
    result = to_recipe.recipe(settings)
    outcomes = dispositions(result)
    assert set(settings.leaves) == {"LOGIC", "DIM", "LR", "STEPS", "SOURCE", "OUTPUT", "MODEL", "VAE", "CLIP_SKIP"}
    assert {name for name in settings.leaves if outcomes[name] == "kept"} == set(settings.leaves) - {"LR"}
    assert {name: outcomes[name] for name in ("LR", "DIM")} == {"LR": "changed", "DIM": "kept"}


@pytest.mark.parametrize(
    ("note", "value", "expected"),
    [
        (None, 3, Disposition.LOST),
        (None, "", Disposition.KEPT),
        (Note(Disposition.KEPT, "dim", "network.dim"), "8.0", Disposition.KEPT),
        (Note(Disposition.KEPT, "dim", "network.dim"), 9, Disposition.CHANGED),
        (Note(Disposition.KEPT, "dim", "network.rank"), 8, Disposition.LOST),
    ],
)
def test_a_note_that_the_recipe_does_not_bear_out_is_corrected(note: Note | None, value: Any, expected: Disposition) -> None:
    settings = ImportedSettings("x", "a program", notes=[note] if note else [], leaves={"dim": value})
    (result,) = leaves.account(settings, {"network": {"dim": 8}})
    assert result.disposition is expected
    assert (result.values == (9, 8)) == (expected is Disposition.CHANGED)
