"""Settings of other programs become recipes that load and that sd-scripts' own parser accepts; and back again."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

import fakes
from orchestrator import cli, engines
from orchestrator.errors import RecipeError
from orchestrator.importers import reader, sd_scripts_toml, to_recipe
from orchestrator.importers.notes import Disposition
from orchestrator.recipe import loader
from orchestrator.run import export_sd_scripts
from orchestrator.run.workspace import Selection, Workspace

RECORDINGS = Path(__file__).resolve().parents[1] / "data" / "recordings"
GUI: dict[str, Any] = {
    "LoRA_type": "LyCORIS/LoHa", "additional_parameters": "--min_timestep=100 --weighted_captions", "bucket_no_upscale": True,
    "bucket_reso_steps": 64.0, "cache_latents": True, "cache_latents_to_disk": True, "caption_extension": ".txt", "clip_skip": "2",  # noqa: E501
    "color_aug": False, "conv_alpha": 4, "conv_dim": 8, "enable_bucket": True, "epoch": 2, "factor": -1, "keep_tokens": "1",
    "learning_rate": "0.0001", "lr_scheduler": "constant", "lr_warmup": "10", "max_data_loader_n_workers": "0", "max_grad_norm": 0,  # noqa: E501
    "max_resolution": "512,768", "max_token_length": "75", "max_train_steps": "1000", "min_snr_gamma": 5, "mixed_precision": "bf16",  # noqa: E501
    "network_alpha": 16, "network_dim": 32, "noise_offset": 0, "optimizer": "AdamW8bit", "optimizer_args": "weight_decay=0.1",
    "output_name": "cat lora", "pretrained_model_name_or_path": "C:\\models\\base.safetensors", "save_every_n_epochs": 1,
    "save_precision": "fp16", "seed": "", "text_encoder_lr": "5e-5", "train_batch_size": 3, "train_data_dir": "D:\\train\\img",
    "unet_lr": 0.0001, "use_cp": True, "xformers": "xformers", "stop_text_encoder_training": 3,
}  # fmt: skip
EASY = """
[[subsets]]
num_repeats = 2
keep_tokens = 1
caption_extension = ".txt"
shuffle_caption = true
flip_aug = false
image_dir = "C:/pics/2_mimi"
[general_args.args]
pretrained_model_name_or_path = "base.safetensors"
mixed_precision = "bf16"
seed = 23
clip_skip = 2
xformers = true
max_train_steps = 500
max_token_length = 225
[general_args.dataset_args]
resolution = 512
batch_size = 2
[network_args.args]
network_dim = 32
network_alpha = 16.0
[network_args.args.network_args]
conv_dim = 16
conv_alpha = 8.0
[optimizer_args.args]
optimizer_type = "AdamW8bit"
lr_scheduler = "cosine"
learning_rate = 0.0001
warmup_ratio = 0.1
[saving_args.args]
output_dir = "x"
save_precision = "fp16"
[bucket_args.dataset_args]
enable_bucket = true
min_bucket_reso = 256
[optimizer_args.args.optimizer_args]
weight_decay = 0.1
betas = "0.9,0.99"
"""
LINE = "call LoRA Lora3x3A50p-AdamW8 128 100 1000 4_krnk krnk Defmix-v2.0.safetensors kl-f8-anime2.ckpt 2"


def loaded(imported: to_recipe.ImportedRecipe, folder: Path) -> Any:
    """Write what was imported, load it, and ask the engine about it."""
    from orchestrator.recipe import toml  # noqa: PLC0415

    path = folder / "recipes" / f"{imported.name}.toml"
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(toml.lines(imported.table)), "utf-8")
    recipe = loader.recipe(path.parent, imported.name).recipe
    assert engines.get("sd-scripts").check(recipe) == []
    return recipe


def dispositions(imported: to_recipe.ImportedRecipe) -> dict[str, str]:
    return {note.name: str(note.disposition) for note in imported.notes}


def test_kohya_ss(tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    path.write_text(json.dumps(GUI), "utf-8")
    imported = to_recipe.recipe(reader.read(str(path))[0])
    recipe = loaded(imported, tmp_path)
    assert imported.name == "cat-lora"
    assert (recipe.network.family, recipe.network.dim, recipe.network.conv_dim, recipe.network.tucker) == ("loha", 32, 8, True)
    assert (recipe.base.checkpoint, recipe.base.clip_skip) == ("base.safetensors", 2)
    training = recipe.training
    assert (training.steps, training.optimizer, training.optimizer_args) == (1000, "AdamW8bit", {"weight_decay": 0.1})
    assert (training.lr_scheduler, training.lr_warmup_steps) == ("constant_with_warmup", 100)
    assert (training.learning_rate, training.text_encoder_lr) == (1e-4, 5e-5)
    assert training.max_grad_norm == 1.0  # the GUI drops zeros, so this is what was trained
    assert training.options == {"min_snr_gamma": 5, "min_timestep": 100, "weighted_captions": True}
    assert recipe.dataset.resolution_classes == (512, 768)
    assert recipe.dataset.batch_size == {"default": 3}
    source = recipe.dataset.sources["img"]
    assert (source.images, source.reading) == ("D:/train/img", "kohya")
    said = dispositions(imported)
    assert said["stop_text_encoder_training"] == "lost"
    assert said["save_every_n_epochs"] == "lost"
    assert said["seed"] == "changed"
    assert said["max_grad_norm"] == "changed"


def test_lora_easy(tmp_path: Path) -> None:
    path = tmp_path / "easy.toml"
    path.write_text(EASY, "utf-8")
    recipe = loaded(to_recipe.recipe(reader.read(str(path))[0]), tmp_path)
    assert (recipe.network.family, recipe.network.conv_dim, recipe.network.conv_alpha) == ("lora", 16, 8)
    assert recipe.training.lr_warmup_steps == 50
    assert recipe.training.optimizer_args == {"weight_decay": 0.1, "betas": (0.9, 0.99)}
    assert recipe.training.options == {"max_token_length": 225}
    source = recipe.dataset.sources["mimi"]
    assert (source.repeats, source.flip, source.class_tokens) == (2, False, "mimi")
    assert (recipe.dataset.shuffle_caption, recipe.dataset.keep_tokens, recipe.dataset.batch_size) == (True, 1, {"default": 2})


@pytest.mark.parametrize(
    "logic",
    [
        "Lora3x3A1-AdamW8",
        "Lora1x1A50p-AdamW8",
        "LoconA50p-AdamW8",
        "LohaA50p-AdamW8",
        "Lora3x3A50p-AdaFacotor",
        "LohaA1-AdaFactor",
    ],
)
def test_charframework_lines(tmp_path: Path, logic: str) -> None:
    recipe = loaded(to_recipe.recipe(reader.read(LINE.replace("Lora3x3A50p-AdamW8", logic))[0]), tmp_path)
    assert recipe.training.steps == 1000
    assert recipe.network.dim == 128
    assert recipe.network.alpha == (1 if "A1-" in logic else 64)
    assert (recipe.network.conv_dim is None) == ("1x1" in logic)
    assert (recipe.training.learning_rate is None) == ("AdaFa" in logic)
    assert recipe.dataset.sources["krnk"].reading == "charframework"
    assert recipe.base.vae == "kl-f8-anime2.ckpt"


def test_charframework_trains_what_the_release_trains(project: Path) -> None:
    ours = loader.recipe(project / "recipes", "krnk-loha").recipe
    theirs = to_recipe.recipe(reader.read(LINE.replace("Lora3x3A50p-AdamW8 128", "LohaA50p-AdamW8 32"))[0]).table
    network = ours.network.model_dump(mode="json", exclude_unset=True)
    assert theirs["network"] == network
    for key in ("steps", "learning_rate", "text_encoder_lr", "optimizer", "lr_scheduler", "seed", "mixed_precision"):
        assert theirs["training"][key] == getattr(ours.training, key)


def test_a_batch_file_gives_a_recipe_a_line(tmp_path: Path) -> None:
    path = tmp_path / "Learn.bat"
    path.write_bytes(
        f"@echo off\r\nrem call LoRA nonsense\r\n{LINE}\r\n{LINE.replace('Lora3x3', 'Locon')} 顔.safetensors\r\n".encode(
            "cp932"
        )
    )
    found = [to_recipe.recipe(one) for one in reader.read(str(path))]
    assert [one.name for one in found] == ["krnk-lora3x3", "krnk-locon"]
    assert found[1].table["network"]["weights"] == "顔.safetensors"


def test_a_bad_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "Learn.bat"
    path.write_text("@echo off\ncall LoRA Lora3x3A50-AdamW8 128 100 1000 4_krnk krnk base.safetensors 2\n", "utf-8")
    with pytest.raises(RecipeError) as error:
        reader.read(str(path))
    assert "line 2" in str(error.value)
    assert "did you mean Lora3x3A50p-AdamW8?" in str(error.value)


@pytest.mark.parametrize("name", ["lora3x3", "locon", "loha"])
def test_metadata_of_the_real_trainer(tmp_path: Path, name: str) -> None:
    recipe = loaded(to_recipe.recipe(reader.read(str(RECORDINGS / f"{name}.safetensors"))[0]), tmp_path)
    assert (recipe.network.dim, recipe.network.conv_dim) == (1, 1)
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
    assert dispositions(imported)["network_alpha"] == "changed"


def test_a_file_that_this_program_made_says_how(tmp_path: Path) -> None:
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


@pytest.mark.parametrize("done", ['[{"operation": "merge", "block_weights": {"BASE": "x"}, "rank_rule": 3}]', "{", "[3]"])
def test_a_provenance_of_nonsense_is_none(tmp_path: Path, done: str) -> None:
    metadata = {"ss_network_module": "networks.lora", "ss_network_dim": "8", "orchestrator_provenance": done}
    imported = to_recipe.recipe(reader.read(str(lora(tmp_path / "x.safetensors", metadata)))[0])
    assert loaded(imported, tmp_path).block_weights is None
    assert dispositions(imported)["block weights"] == "lost"


def test_a_file_without_metadata_says_so(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"has no ss_\* metadata"):
        reader.read(str(lora(tmp_path / "x.safetensors", {"title": "x"})))


def test_epochs_become_steps_where_pictures_can_be_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "img" / "5_mimi").mkdir(parents=True)
    for index in range(6):
        (tmp_path / "img" / "5_mimi" / f"{index}.png").write_bytes(b"x")
    table = {**GUI, "train_data_dir": "img", "max_train_steps": "", "epoch": 3, "train_batch_size": 4}
    (tmp_path / "a.json").write_text(json.dumps(table), "utf-8")
    imported = to_recipe.recipe(reader.read("a.json")[0])
    assert imported.table["training"]["steps"] == 3 * 8  # ceil(30 / 4) batches an epoch
    assert dispositions(imported)["max_train_epochs"] == "changed"


def test_every_setting_of_kohya_ss_is_in_the_list(tmp_path: Path) -> None:
    more = {
        "sample_prompts": "a cat", "sample_every_n_epochs": 1, "vae_batch_size": 4, "save_state": True, "output_dir": "out",
        "use_wandb": True, "num_processes": 1, "model_list": "custom", "unit": 1, "loss_type": "l2",
    }  # fmt: skip
    (tmp_path / "a.json").write_text(json.dumps({**GUI, **more, "pretrained_model_name_or_path": "a/hub-name"}), "utf-8")
    imported = to_recipe.recipe(reader.read(str(tmp_path / "a.json"))[0])
    assert loaded(imported, tmp_path).training.options["vae_batch_size"] == 4
    said = dispositions(imported)
    assert (said["sample_prompts"], said["sample_every_n_epochs"], said["save_state"]) == ("lost", "lost", "lost")
    assert (said["vae_batch_size"], said["loss_type"], said["log_with"]) == ("kept", "kept", "kept")
    assert (said["output_dir"], said["output_name"]) == ("changed", "changed")
    assert said["model_list, num_processes, unit, factor"] == "lost"
    assert [note.disposition for note in imported.notes if note.where == "base.checkpoint"] == [Disposition.CHANGED]


def test_folders_of_kohya_say_the_words_of_their_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_folders_of_kohya_that_are_not_here_keep_their_words(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(GUI), "utf-8")
    imported = to_recipe.recipe(reader.read(str(tmp_path / "a.json"))[0])
    source = loaded(imported, tmp_path).dataset.sources["img"]
    assert (source.trigger, source.class_tokens) == ("cat", "")  # of "cat lora"; not the folder's "img"
    assert dispositions(imported)["trigger"] == "changed"


def test_every_recipe_survives_the_way_to_sd_scripts_and_back(project: Path, tmp_path: Path) -> None:
    space = Workspace(project)
    for each in space.load(Selection(("all",))):
        recipe, folder = each.recipe, tmp_path / each.recipe.name
        folder.mkdir()
        for name, text in export_sd_scripts.sd_scripts(recipe, space.inputs, folder).items():
            (folder / name).write_text(text, "utf-8")
        read = reader.read(str(folder / "train.toml"))[0]
        back = to_recipe.recipe(read, recipe.name)
        assert back.table["network"] == recipe.network.model_dump(mode="json", exclude_unset=True)
        ours = recipe.training.model_dump(mode="json", exclude_none=True)
        for key, value in back.table["training"].items():
            if key not in ("save_every_n_steps", "options"):  # a state is saved where the LoRA is
                assert ours[key] == value, (recipe.name, key)
        assert back.of(Disposition.LOST) == []
        assert set(back.table["dataset"]["resolution_classes"]) <= {512, 768, 1024}


def test_exported_options_are_those_of_the_pinned_parser(project: Path, tmp_path: Path) -> None:
    import tomllib  # noqa: PLC0415

    from orchestrator.engines.sdscripts import parser_options  # noqa: PLC0415

    space = Workspace(project)
    recipe = space.load(Selection(("krnk-locon",)))[0].recipe
    files = export_sd_scripts.sd_scripts(recipe, space.inputs, tmp_path)
    table = tomllib.loads(files["train.toml"])
    known = parser_options.of("train_network.py")
    given = {
        key: tuple(value) if isinstance(value, list) else value for key, value in table.items() if key != "text_encoder_lr"
    }
    assert list(parser_options.problems(known, given, "", {})) == []
    assert table["network_alpha"] == 64.0
    assert isinstance(table["max_train_steps"], int)
    config = tomllib.loads(files["dataset.toml"])
    assert all(Path(subset["image_dir"]).is_absolute() for one in config["datasets"] for subset in one["subsets"])


def test_the_verb_writes_reports_and_never_overwrites(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "settings.json").write_text(json.dumps(GUI), "utf-8")
    monkeypatch.setattr(sys, "argv", ["orchestrator", "import", "settings.json", "--name", "mimi"])
    assert cli.main() == 0
    said = capsys.readouterr().out
    assert "lost     save_every_n_epochs" in said
    assert "kept     network_dim -> network.dim" in said
    assert (tmp_path / "recipes" / "mimi.toml").is_file()
    assert cli.main() == 2
    assert "exists already" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["orchestrator", "import", "settings.json", "--name", "mimi2", "--json"])
    assert cli.main() == 0
    document = json.loads(capsys.readouterr().out)
    assert document["recipes"][0]["name"] == "mimi2"


@pytest.mark.parametrize(
    "text", ["", "{", "[1, 2]", '"x"', '{"LoRA_type": 3, "network_args": 4, "max_resolution": [], "seed": {}}']
)
def test_strange_files_never_crash(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text, "utf-8")
    try:
        imported = to_recipe.recipe(reader.read(str(path))[0])
    except RecipeError as error:
        assert error.problems  # noqa: PT017 - either is right: a recipe, or what is wrong
    else:
        assert imported.table["network"]["family"] == "lora"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x.json", '{"a": 1}'),
        ("x.json", "{}"),
        ("x.toml", "a = 1\n"),
        ("x.toml", 'extends = ["_base/face"]\n[network]\ndim = 1\n'),
    ],
)
def test_a_file_without_a_known_setting_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_text(text, "utf-8")
    monkeypatch.setattr(sys, "argv", ["orchestrator", "import", name])
    assert cli.main() == 2
    said = capsys.readouterr().err
    assert f"{name}\n    holds no setting of " in said
    assert "python -m orchestrator import --help" in said
    assert not (tmp_path / "recipes").exists()


def test_general_settings_go_down_into_subsets(tmp_path: Path) -> None:
    path = tmp_path / "dataset.toml"
    path.write_text(
        "[general]\nflip_aug = true\nnum_repeats = 4\n[[datasets]]\nresolution = [512, 512]\nbatch_size = 4\n"
        "[[datasets.subsets]]\nimage_dir = '..\\LoRAInput\\4_krnk\\krnk girl_f0128'\nclass_tokens = 'krnk girl'\n"
        "[[datasets.subsets]]\nimage_dir = 'b'\nnum_repeats = 1\nflip_aug = false\n",
        "utf-8",
    )
    table = to_recipe.recipe(reader.read(str(path))[0]).table
    sources = table["dataset"]["sources"]
    assert sources["krnk"]["images"] == "../LoRAInput/4_krnk/krnk girl_f0128"
    assert (sources["krnk"]["repeats"], sources["krnk"]["flip"]) == (4, True)
    assert (sources["b"]["repeats"], sources["b"]["flip"]) == (1, False)


FLAT = """
pretrained_model_name_or_path = "base.safetensors"
train_data_dir = "pics/img"
reg_data_dir = "pics/reg"
output_name = "sdcat"
resolution = "768,768"
train_batch_size = 2
enable_bucket = true
caption_extension = ".caption"
flip_aug = true
max_train_steps = 800
"""


def test_a_config_file_with_the_pictures_in_it_keeps_them(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text(FLAT, "utf-8")
    imported = to_recipe.recipe(reader.read(str(path))[0])
    assert loaded(imported, tmp_path).name == "sdcat"
    dataset = imported.table["dataset"]
    assert (dataset["resolution_classes"], dataset["batch_size"], dataset["enable_bucket"]) == ([768], {"default": 2}, True)
    img, reg = dataset["sources"].values()
    assert (img["images"], img["reading"], img["caption_files"], img["flip"]) == ("pics/img", "kohya", ".caption", True)
    assert (reg["images"], reg["regularization"]) == ("pics/reg", True)
    assert imported.of(Disposition.LOST) == []
    assert dispositions(imported).get("train_data_dir") is None  # the line about the folder says it
    assert dispositions(imported)["output_name"] == "kept"


def test_options_fill_what_the_dataset_configuration_leaves_open(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text(f'{FLAT}dataset_config = "data.toml"\n', "utf-8")
    (tmp_path / "data.toml").write_text("[[datasets]]\nresolution = 512\n[[datasets.subsets]]\nimage_dir = 'b'\n", "utf-8")
    imported = to_recipe.recipe(reader.read(str(tmp_path / "settings.toml"))[0])
    dataset = imported.table["dataset"]
    assert (dataset["resolution_classes"], dataset["batch_size"], dataset["enable_bucket"]) == ([512], {"default": 2}, True)
    assert list(dataset["sources"]) == ["b"]
    assert {note.name for note in imported.of(Disposition.LOST)} == {"train_data_dir", "reg_data_dir"}  # as sd-scripts does


def test_a_name_on_the_command_line_wins_over_output_name(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text(FLAT, "utf-8")
    imported = to_recipe.recipe(reader.read(str(path))[0], "mimi")
    assert imported.name == "mimi"
    assert "changed  output_name -> the recipe's name   (mimi)" in map(str, imported.notes)


def test_a_dataset_alone_is_trained_as_the_release_was(project: Path, tmp_path: Path) -> None:
    path = tmp_path / "dataset.toml"
    path.write_text("[[datasets]]\nresolution = 512\nbatch_size = 4\n[[datasets.subsets]]\nimage_dir = '10_mimi'\n", "utf-8")
    imported = to_recipe.recipe(reader.read(str(path))[0], "mimi")
    recipe, ours = loaded(imported, tmp_path), loader.recipe(project / "recipes", "krnk-lora3x3").recipe
    assert (recipe.base, recipe.network, recipe.training) == (ours.base, ours.network, ours.training)
    assert (recipe.dataset.batch_size, recipe.dataset.resolution_classes) == ({"default": 4}, (512,))
    assert (recipe.dataset.sizes, recipe.dataset.color_aug, recipe.dataset.enable_bucket) == ((), False, False)
    assert (recipe.release.collection, recipe.release.source, recipe.triggers()) == ("mimi", "", ("mimi",))
    assert dispositions(imported) | {"the training": "changed"} == dispositions(imported)
    assert imported.of(Disposition.LOST) == []


def test_pairs_of_every_shape() -> None:
    assert sd_scripts_toml.pairs("a=1 b=x=y") == {"a": "1", "b": "x=y"}
    assert sd_scripts_toml.pairs(["a=1"]) == {"a": "1"}
    assert sd_scripts_toml.pairs(None) == {}
