"""Metadata of LoRA files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import fakes
from import_cases import dispositions, loaded
from orchestrator.errors import RecipeError
from orchestrator.importers import lora_metadata, reader, to_recipe
from orchestrator.importers.notes import Disposition
from orchestrator.models import blocks
from orchestrator.weights.io import writer

RECORDINGS = Path(__file__).resolve().parents[1] / "data" / "recordings"


@pytest.mark.parametrize("name", ["lora3x3", "locon", "loha"])
def test_metadata_of_the_real_trainer(tmp_path: Path, name: str) -> None:
    imported = to_recipe.recipe(reader.read(str(RECORDINGS / f"{name}.safetensors"))[0])
    recipe = loaded(imported, tmp_path)
    assert (recipe.network.dim, recipe.network.conv_dim) == (1, 1)
    lost = {note.name for note in imported.of(Disposition.LOST)}
    assert lost <= {"block weights", "ss_network_args.preset"}
    assert recipe.network.family == {"lora3x3": "lora"}.get(name, name)
    assert (recipe.training.seed, recipe.training.text_encoder_lr, recipe.training.save_precision) == (31337, 4.4e-5, "fp16")
    source = recipe.dataset.sources["krnk"]
    assert (source.trigger, source.class_tokens, source.repeats, source.flip) == ("krnk", "krnk girl", 4, True)


def lora(path: Path, metadata: dict[str, str]) -> Path:
    data = fakes.lora()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] = metadata
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])
    return path


def test_metadata_of_a_resized_file_from_2023(tmp_path: Path) -> None:
    metadata = {
        "ss_network_module": "networks.lora", "ss_network_dim": "Dynamic", "ss_network_alpha": "Dynamic",
        "ss_network_args": '{"conv_dim": "128", "conv_alpha": "64"}', "ss_training_comment": "Dynamic resize with sv_ratio: 16.0 from 128; None",  # noqa: E501
        "ss_optimizer": "bitsandbytes.optim.adamw.AdamW8bit(weight_decay=0.1,betas=(0.9, 0.99))", "ss_max_train_steps": "1000",
        "ss_learning_rate": "0.0001", "ss_sd_model_name": "base.safetensors", "ss_new_sd_model_hash": "a" * 64,
        "ss_resolution": "(512, 512)", "ss_batch_size_per_device": "2", "ss_enable_bucket": "True", "ss_color_aug": "False",
        "ss_dataset_dirs": '{"4_krnk": {"n_repeats": 4, "img_count": 15}}', "ss_output_name": "krnk", "ss_gradient_checkpointing": "True",  # noqa: E501
        "ss_full_fp16": "None", "ss_min_snr_gamma": "5.0", "ss_seed": "7", "ss_lr_scheduler": "constant", "ss_mixed_precision": "fp16",  # noqa: E501
    }  # fmt: skip
    imported = to_recipe.recipe(reader.read(str(lora(tmp_path / "krnk.safetensors", metadata)))[0])
    recipe = loaded(imported, tmp_path)
    assert recipe.resize is not None
    assert (recipe.resize.sv_ratio, recipe.resize.new_rank, recipe.network.dim, recipe.network.alpha) == (16.0, 128, 128, 64)
    assert (recipe.training.optimizer, recipe.training.optimizer_args) == (
        "AdamW8bit",
        {"weight_decay": 0.1, "betas": (0.9, 0.99)},
    )
    assert recipe.base.sha256 == "a" * 64
    assert recipe.training.options == {"min_snr_gamma": 5.0}
    assert recipe.dataset.sources["krnk"].repeats == 4
    assert dispositions(imported)["ss_network_alpha"] == "changed"


def test_provenance_of_this_program_becomes_merge_and_resize(tmp_path: Path) -> None:
    from orchestrator.models import blocks  # noqa: PLC0415

    face = dict.fromkeys(blocks.names("sd1"), 1.0) | {"BASE": 0.0, "MID": 0.5}
    done: list[dict[str, Any]] = [
        {"operation": "merge", "block_weights": face, "preset": "X", "unmapped": 1.0, "zeroed": "prune"},
        {"operation": "resize", "method": "sv_ratio", "param": 16.0, "new_rank": 8, "rank_rule": "2023", "zeroed": "keep"},
    ]
    metadata = {
        "ss_network_module": "networks.lora", "ss_network_dim": "Dynamic", "ss_network_alpha": "Dynamic",
        "ss_network_args": '{"conv_dim": "8", "conv_alpha": "1"}', "ss_debiased_estimation": "True",
        "ss_training_comment": "Dynamic resize with sv_ratio: 16.0 from 8; None", "orchestrator_provenance": json.dumps(done),
    }  # fmt: skip
    imported = to_recipe.recipe(reader.read(str(lora(tmp_path / "own.safetensors", metadata)))[0])
    recipe = loaded(imported, tmp_path)
    assert recipe.resize is not None
    assert (recipe.resize.rank_rule, recipe.resize.sv_ratio, recipe.merge.zeroed) == ("2023", 16.0, "prune")
    assert recipe.block_weights == tuple(face.values())
    assert recipe.training.options == {"debiased_estimation_loss": True}
    assert dispositions(imported)["block weights"] == "kept"


def test_block_weights_of_one_text_encoder_are_kept(tmp_path: Path) -> None:
    weights = {**dict.fromkeys(blocks.names("sd1"), 0.5), "MID1": 0.25}
    done = [{"operation": "merge", "block_weights": weights, "preset": None, "unmapped": 0.0, "zeroed": "keep"}]
    metadata = {"ss_network_module": "networks.lora", "ss_network_dim": "4", "ss_network_alpha": "4"}
    metadata |= {"orchestrator_provenance": json.dumps(done)}
    recipe = loaded(to_recipe.recipe(reader.read(str(lora(tmp_path / "x.safetensors", metadata)))[0]), tmp_path)
    assert (recipe.weights().by_name(), recipe.weights().outside) == (weights, 0)


@pytest.mark.parametrize("done", ['[{"operation": "merge", "block_weights": {"BASE": "x"}, "rank_rule": 3}]', "{", "[3]"])
def test_malformed_provenance_is_ignored(tmp_path: Path, done: str) -> None:
    metadata = {"ss_network_module": "networks.lora", "ss_network_dim": "8", "orchestrator_provenance": done}
    imported = to_recipe.recipe(reader.read(str(lora(tmp_path / "x.safetensors", metadata)))[0])
    assert loaded(imported, tmp_path).block_weights is None
    assert dispositions(imported)["block weights"] == "lost"


def test_a_stated_rank_that_no_layer_has_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    writer.edit_metadata(RECORDINGS / "lora3x3.safetensors", path, {"ss_network_dim": "999"})
    imported = to_recipe.recipe(reader.read(str(path))[0])
    assert imported.table["network"]["dim"] == 1
    assert dispositions(imported)["ss_network_dim"] == "changed"


def test_a_file_without_metadata_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"has no ss_\* metadata"):
        reader.read(str(lora(tmp_path / "x.safetensors", {"title": "x"})))


def test_every_value_of_the_datasets_is_accounted_for(tmp_path: Path) -> None:
    subset = {"image_dir": "3_cat", "num_repeats": 3, "img_count": 9, "caption_prefix": "photo", "keep_tokens": 2}
    datasets = [
        {"resolution": [640, 640], "batch_size_per_device": 2, "odd": 1, "subsets": [subset], "tag_frequency": {"a": 1}}
    ]
    metadata = {
        "ss_network_module": "networks.lora", "ss_network_dim": "None", "ss_network_alpha": "None", "ss_learning_rate": "1e-4",
        "ss_datasets": json.dumps(datasets), "ss_max_train_steps": "5", "ss_new_field": "x",
    }  # fmt: skip
    (settings,) = reader.read(str(lora(tmp_path / "a.safetensors", metadata)))
    imported = to_recipe.recipe(settings)
    outcomes = dispositions(imported)
    assert settings.leaves.keys() <= outcomes.keys()
    assert len(imported.notes) == len(outcomes)
    above = "ss_datasets[0].subsets[0]"
    assert {outcomes[f"{above}.caption_prefix"], outcomes["ss_datasets[0].odd"], outcomes["ss_new_field"]} == {"lost"}
    assert {outcomes[f"{above}.keep_tokens"], outcomes[f"{above}.image_dir"], outcomes["ss_datasets[0].resolution"]} <= {
        "kept",
        "changed",
    }
    assert outcomes["ss_network_dim"] == "changed"  # None there: the rank of the tensors
    assert imported.table["network"]["alpha"] == 1  # the trainer's default


def test_a_file_of_sd2_with_v_prediction_is_read(tmp_path: Path) -> None:
    metadata = {"ss_network_module": "networks.lora", "ss_network_dim": "4", "ss_base_model_version": "sd_v2_v"}
    imported = to_recipe.recipe(reader.read(str(lora(tmp_path / "a.safetensors", metadata)))[0])
    assert imported.table["base"]["architecture"] == "sd2"
    assert imported.table["training"]["options"] == {"v_parameterization": True}


@pytest.mark.parametrize("version", ["krea2", "sd3m", "z-image"])
def test_files_of_models_that_no_recipe_trains_are_refused(tmp_path: Path, version: str) -> None:
    metadata = {"ss_network_module": "networks.lora", "ss_network_dim": "4", "ss_base_model_version": version}
    with pytest.raises(RecipeError, match="these are settings for"):
        reader.read(str(lora(tmp_path / "a.safetensors", metadata)))


@pytest.mark.parametrize(
    ("version", "modelspec", "module", "architecture"),
    [
        ("flux1", "flux-1-dev/lora", "networks.lora_flux", "flux"),
        ("flux1", "flux-1-schnell/lora", "networks.lora_flux", "flux-schnell"),
        ("chroma", "chroma/lora", "networks.lora_flux", "chroma"),
        ("anima", "anima-preview/lora", "networks.lora_anima", "anima"),
        ("sdxl_base_v1-0", "stable-diffusion-xl-v1-base/lora", "networks.lora", "sdxl"),
    ],
)
def test_the_architecture_of_a_file_is_that_of_its_metadata(
    tmp_path: Path, version: str, modelspec: str, module: str, architecture: str
) -> None:
    metadata = {
        "ss_network_module": module,
        "ss_network_dim": "4",
        "ss_base_model_version": version,
        "ss_learning_rate": "1e-4",
    }
    metadata |= {"modelspec.architecture": modelspec, "ss_timestep_sampling": "shift", "ss_text_encoder_lr": "[]"}
    imported = to_recipe.recipe(reader.read(str(lora(tmp_path / "a.safetensors", metadata)))[0])
    assert imported.table["base"]["architecture"] == architecture
    assert imported.table["network"]["family"] == "lora"


@pytest.mark.parametrize(("stated", "expected"), [("999", (4, "changed")), ("4", (4, "kept")), ("None", (4, "changed"))])
def test_the_rank_is_that_of_the_tensors(tmp_path: Path, stated: str, expected: tuple[int, str]) -> None:
    path = tmp_path / "a.safetensors"
    tensors = {
        f"lora_unet_x{number}.lora_down.weight": np.zeros((rank, 8), np.float32) for number, rank in enumerate((4, 4, 2))
    }
    metadata = {
        "ss_network_module": "networks.lora",
        "ss_network_dim": stated,
        "ss_network_alpha": "1.0",
        "ss_sd_model_name": "m",
    }
    save_file(tensors, path, metadata)
    imported = to_recipe.recipe(reader.read(str(path))[0])
    disposition = dispositions(imported)
    assert (imported.table["network"]["dim"], disposition["ss_network_dim"]) == expected


def test_ranks_by_block_are_not_those_of_the_tensors(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    args = json.dumps({"block_dims": ",".join(["2"] * 25)})
    metadata = {"ss_network_module": "networks.lora", "ss_network_dim": "8", "ss_network_args": args, "ss_sd_model_name": "m"}
    save_file({"lora_unet_x.lora_down.weight": np.zeros((2, 8), np.float32)}, path, metadata)
    assert to_recipe.recipe(reader.read(str(path))[0]).table["network"]["dim"] == 8


PLAIN = {"ss_network_module": "networks.lora", "ss_network_dim": "4", "ss_network_alpha": "2"}


def imported(folder: Path, **fields: str) -> tuple[to_recipe.ImportedRecipe, dict[str, str]]:
    """Import a file, with disposition, key and reason of each note by its name."""
    metadata = PLAIN | {f"ss_{name}": value for name, value in fields.items()}
    result = to_recipe.recipe(reader.read(str(lora(folder / "a.safetensors", metadata)))[0])
    return result, {note.name: f"{note.disposition}: {note.where}: {note.why}" for note in result.notes}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("None", None),
        ("", None),
        ("True", True),
        ("False", False),
        ("7", 7),
        ("7.0", 7.0),
        ("1e3", 1000),
        ("1e-4", 1e-4),
        ("1e300", 1e300),
        ("[1, 2]", [1, 2]),
        ("(512, 512)", "(512, 512)"),
        ("krnk", "krnk"),
    ],
)
def test_a_value_of_the_metadata(text: str, value: Any) -> None:
    read = lora_metadata._value(text)
    assert (read, type(read)) == (value, type(value))


def test_a_file_without_datasets_has_one_of_512(tmp_path: Path) -> None:
    for datasets in ("[]", "None"):
        table = imported(tmp_path, datasets=datasets)[0].table["dataset"]
        assert (table["resolution_classes"], table["batch_size"]) == ([512], {"default": 1})
        assert table["sources"] == {"pictures": {"images": "data/pictures", "captions": "files", "trigger": "a"}}


@pytest.mark.parametrize(
    ("name", "text", "note"),
    [
        ("max_grad_norm", "1.0", "kept: : it is sd-scripts' default"),
        ("max_grad_norm", "0.5", "kept: training.max_grad_norm: "),
        ("session_id", "123", "kept: : a record of the run, or in another field, too"),
        ("lowram", "False", "kept: : a record of the run, or in another field, too"),
        ("new_field", "False", "kept: : off or empty there: nothing to take over"),
        ("new_field", "7", "lost: : is not an option of this program"),
        ("prior_loss_weight", "1.0", "kept: : it is sd-scripts' default"),
        ("prior_loss_weight", "0.5", "kept: training.options.prior_loss_weight: "),
    ],
)
def test_a_field_of_the_metadata_has_a_note(tmp_path: Path, name: str, text: str, note: str) -> None:
    assert imported(tmp_path, **{name: text})[1][f"ss_{name}"].startswith(note)


def test_files_of_the_base_model_are_named_and_digested(tmp_path: Path) -> None:
    fields = {"sd_model_name": "base.safetensors", "vae_name": "vae.pt", "new_sd_model_hash": "a" * 64}
    result, notes = imported(tmp_path, **fields, new_vae_hash="b" * 63)
    base = result.table["base"]
    assert base == {"architecture": "sd1", "checkpoint": "base.safetensors", "vae": "vae.pt", "sha256": "a" * 64}
    assert notes["ss_new_sd_model_hash"] == "kept: base.sha256: "
    assert imported(tmp_path, **fields, new_vae_hash="0x" + "b" * 64)[0].table["base"] == base | {"vae_sha256": "b" * 64}


@pytest.mark.parametrize(
    ("version", "fields", "architecture", "velocity"),
    [
        ("", {}, "sd1", False),
        ("None", {}, "sd1", False),
        ("sd_v1", {}, "sd1", False),
        ("sd_v1_v", {}, "sd1", True),
        ("sd_v2", {}, "sd2", False),
        ("sd_v2_v", {}, "sd2", True),
        ("", {"v2": "True"}, "sd2", False),
        ("sdxl_base_v1-0", {}, "sdxl", False),
    ],
)
def test_the_version_of_the_base_model(
    tmp_path: Path, version: str, fields: dict[str, str], architecture: str, *, velocity: bool
) -> None:
    table = imported(tmp_path, base_model_version=version, **fields)[0].table
    assert table["base"]["architecture"] == architecture
    assert table["training"].get("options", {}).get("v_parameterization", False) == velocity


@pytest.mark.parametrize(
    ("text", "optimizer", "args"),
    [
        ("None", "AdamW", None),
        ("torch.optim.adamw.AdamW", "AdamW", None),
        ("a.b.AdamW8bit(weight_decay=0.1,betas=(0.9, 0.99))", "AdamW8bit", {"weight_decay": 0.1, "betas": [0.9, 0.99]}),
        (
            "a.b.Prodigy(d_coef=2,decouple=True,betas=[0.9, 0.99])",
            "Prodigy",
            {"d_coef": 2, "decouple": True, "betas": [0.9, 0.99]},
        ),
    ],
)
def test_the_optimizer_and_its_arguments(tmp_path: Path, text: str, optimizer: str, args: dict[str, Any] | None) -> None:
    training = imported(tmp_path, optimizer=text, learning_rate="0.001")[0].table["training"]
    assert (training["optimizer"], training.get("optimizer_args")) == (optimizer, args)


def test_the_precision_is_that_of_the_tensors(tmp_path: Path) -> None:
    result, notes = imported(tmp_path)
    assert result.table["training"]["save_precision"] == "fp16"
    assert notes["image folders"].startswith("changed: dataset.sources: the metadata holds their names only")


def test_a_resize_without_an_alpha_takes_the_rank(tmp_path: Path) -> None:
    comment = "Dynamic resize with sv_fro: 0.9 from 32; None"
    result, notes = imported(tmp_path, network_dim="Dynamic", network_alpha="Dynamic", training_comment=comment)
    assert (result.table["network"]["dim"], result.table["network"]["alpha"]) == (32, 32)
    assert result.table["resize"] == {"sv_fro": 0.9, "new_rank": 32, "rank_rule": "sd-scripts-0.10"}
    assert notes["ss_network_alpha"].startswith("changed: network.alpha: resizing replaced it")


def test_two_merges_and_work_by_hand_are_lost(tmp_path: Path) -> None:
    weights = dict.fromkeys(blocks.names("sd1"), 1.0)
    merge = {"operation": "merge", "block_weights": weights, "zeroed": "keep", "unmapped": 0.5, "compat": "supermerger-2023"}
    for done, disposition, why in (
        ([merge, merge], "lost", "the file was merged 2 times; a recipe merges once"),
        ([merge], "kept", ""),
        ([{"operation": "scale", "factor": 2}], "lost", "the metadata does not hold them; `verify` measures them"),
    ):
        metadata = PLAIN | {"orchestrator_provenance": json.dumps(done)}
        result = to_recipe.recipe(reader.read(str(lora(tmp_path / "a.safetensors", metadata)))[0])
        note = next(note for note in result.notes if note.name == "block weights")
        assert (note.disposition, note.why.startswith(why)) == (disposition, True)
        assert ("block_weights" in result.table) == (disposition == "kept")
        if disposition == "kept":
            assert result.table["merge"] == {"unmapped": 0.5, "compat": "supermerger-2023"}
        by_hand = [note for note in result.notes if note.name == "scale"]
        assert [str(note) for note in by_hand] == (
            ["lost     scale   (it was done to the file by hand; a recipe cannot do it)"] if "scale" in str(done) else []
        )


def test_folders_of_an_older_file_are_subsets(tmp_path: Path) -> None:
    dirs = {"4_krnk": {"n_repeats": 4, "img_count": 15}, "2_momo": {"n_repeats": 2, "img_count": 10}}
    shared = {"resolution": "(512, 768)", "batch_size_per_device": "5", "enable_bucket": "False", "flip_aug": "True"}
    shared |= {"dataset_dirs": json.dumps(dirs), "max_train_steps": "None", "max_train_epochs": "3"}
    dataset = imported(tmp_path, **shared)[0].table
    table = dataset["dataset"]
    assert (table["resolution_classes"], table["batch_size"], table["flip_aug"]) == ([512, 768], {"default": 5}, True)
    assert {name: (source["images"], source["repeats"]) for name, source in table["sources"].items()} == {
        "krnk": ("data/4_krnk", 4),
        "momo": ("data/2_momo", 2),
    }
    assert dataset["training"]["steps"] == 3 * (4 * 15 + 2 * 10) // 5  # 3 epochs of 16 batches
    one = imported(tmp_path, resolution="640", dataset_dirs=json.dumps({"x": {}}))[0].table["dataset"]
    assert (one["resolution_classes"], one["batch_size"], one["sources"]["x"]["repeats"]) == ([640], {"default": 1}, 1)
