"""A recipe as arguments: all 15 recipes, every part, zero and false; what both engines and the real parser take."""

from __future__ import annotations

import itertools
import json
import shutil
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator import engines
from orchestrator.engines.embedded import EMBEDDED_BASE
from orchestrator.engines.embedded.trainer import cli_options as own
from orchestrator.engines.sdscripts import (
    arguments,
    checkout,
    lora_tools,
    network_args,
    parser_options,
    render_command,
    write_tokenizer,
)
from orchestrator.engines.sdscripts import engine as sdscripts
from orchestrator.errors import RecipeError
from orchestrator.recipe import Network, Recipe, loader
from orchestrator.system import settings
from orchestrator.weights.options import ResizeOptions

if TYPE_CHECKING:
    from orchestrator.system.process import Command

ROOT = Path(__file__).resolve().parents[3]
RECIPES = ROOT / "recipes"
INPUTS = {"dataset": Path("/d"), "checkpoint": Path("/m/Defmix-v2.0.safetensors"), "vae": Path("/m/kl-f8-anime2.ckpt")}


@pytest.fixture(autouse=True)
def _no_checkout(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Commands name fixed places, whatever this machine's owner has set."""
    for name in ("SD_SCRIPTS_PYTHON", "SD_SCRIPTS_TOKENIZERS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SD_SCRIPTS_DIR", str(tmp_path / "none"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def recipe(name: str) -> Recipe:
    return loader.recipe(RECIPES, str(ROOT / name) if name.endswith(".toml") else name).recipe


def made(tmp_path: Path, *parts: str, text: str = "") -> Recipe:
    """Return a recipe of the release's settings with other parts and values."""
    root = tmp_path / "recipes"
    shutil.copytree(RECIPES, root, dirs_exist_ok=True)
    extends = ["_base/release-2023-03", "_subjects/krnk", *parts]
    (root / "made.toml").write_text(f'extends = {json.dumps(extends)}\nsummary = "x"\n{text}', "utf-8")
    return loader.recipe(root, "made").recipe


def said(command: Command) -> dict[str, list[str]]:
    """Return a command's options: name -> values."""
    found: dict[str, list[str]] = {}
    name = ""
    for word in command.argv[2:]:
        if word.startswith("--"):
            name = word[2:]
            assert name not in found, f"{name} is given twice"
            found[name] = []
        else:
            found[name].append(word)
    return found


STEPS = {"krnk": 1000, "tyank": 1000, "krnksf": 1200, "tyankps": 1200, "krnksf_tyankps": 1600}
NETWORKS = {
    "lora3x3": ("networks.lora", "128", "64", ["conv_dim=128", "conv_alpha=64"]),
    "locon": (
        "lycoris.kohya",
        "128",
        "64",
        ["conv_dim=128", "conv_alpha=64", "algo=locon", "use_tucker=True", "bypass_mode=True", "preset=/w/preset.toml"],
    ),
    "loha": (
        "lycoris.kohya",
        "32",
        "16",
        ["conv_dim=32", "conv_alpha=16", "algo=loha", "use_tucker=True", "preset=/w/preset.toml"],
    ),
}


@pytest.mark.parametrize("algorithm", NETWORKS)
@pytest.mark.parametrize("subject", STEPS)
def test_the_15_recipes_train_with_the_releases_options(subject: str, algorithm: str) -> None:
    name = f"{subject}-{algorithm}"
    command = sdscripts.train(recipe(name), INPUTS, Path("/w"), None)
    module, dim, alpha, args = NETWORKS[algorithm]
    assert command.argv[0].endswith("python")
    assert command.argv[1].endswith("/none/train_network.py")
    assert command.cwd == Path("/w")
    assert said(command) == {
        "pretrained_model_name_or_path": ["/m/Defmix-v2.0.safetensors"],
        "vae": ["/m/kl-f8-anime2.ckpt"],
        "dataset_config": ["/w/dataset.toml"],
        "output_dir": ["/w"],
        "output_name": [name],
        "save_model_as": ["safetensors"],
        "save_precision": ["fp16"],
        "network_module": [module],
        "network_dim": [dim],
        "network_alpha": [alpha],
        "network_args": args,
        "max_train_steps": [str(STEPS[subject])],
        "learning_rate": ["0.0001"],
        "text_encoder_lr": ["4.4e-05"],
        "optimizer_type": ["AdamW8bit"],
        "lr_scheduler": ["cosine_with_restarts"],
        "lr_scheduler_num_cycles": ["1"],
        "seed": ["31337"],
        "mixed_precision": ["fp16"],
        "clip_skip": ["2"],
        "gradient_checkpointing": [],
        "sdpa": [],
        "max_data_loader_n_workers": ["8"],
        "persistent_data_loader_workers": [],
        "save_every_n_steps": ["200"],
        "save_last_n_steps": ["399"],
        "save_state": [],
        "save_last_n_steps_state": ["399"],
        "logging_dir": ["/w/logs"],
        "log_with": ["tensorboard"],
        "log_prefix": [f"{name}-"],
        "tokenizer_cache_dir": [str(settings.tokenizers())],
        "console_log_simple": [],
    }
    assert sdscripts.check(recipe(name)) == []


def test_the_preset_is_a_file_that_lycoris_reads() -> None:
    text = sdscripts.train(recipe("krnk-loha"), INPUTS, Path("/w"), None).files["preset.toml"]
    assert tomllib.loads(text) == {
        "enable_conv": True,
        "unet_target_module": ["Transformer2DModel", "ResnetBlock2D", "Downsample2D", "Upsample2D"],
        "unet_target_name": [],
        "text_encoder_target_module": ["CLIPAttention", "CLIPMLP"],
        "text_encoder_target_name": [],
    }
    assert "preset.toml" not in sdscripts.train(recipe("krnk-lora3x3"), INPUTS, Path("/w"), None).files


def test_a_built_dataset_is_named_by_absolute_folders_and_predicts_the_banner(tmp_path: Path) -> None:
    (tmp_path / "dataset.toml").write_text(
        '[general]\ncolor_aug = true\n[[datasets]]\nresolution = [512, 512]\n[[datasets.subsets]]\nimage_dir = "krnk_f0512"\n',
        "utf-8",
    )
    numbers = {"images_x_repeats": 360, "regularization_x_repeats": 0, "batches_per_epoch": 205}
    (tmp_path / "dataset.json").write_text(json.dumps(numbers), "utf-8")
    command = sdscripts.train(recipe("krnk-locon"), INPUTS | {"dataset": tmp_path}, Path("/w"), None)
    table = tomllib.loads(command.files["dataset.toml"])
    assert table["datasets"][0]["subsets"][0]["image_dir"] == str(tmp_path / "krnk_f0512")
    assert json.loads(command.files["expected.json"]) == {
        "steps": 1000,
        "gradient accumulation": 1,
        "algo": "locon",
        "text encoder modules": 72,
        "U-Net modules": 278,
        "images": 360,
        "regularization": 0,
        "batches per epoch": 205,
        "epochs": 5,
    }


def test_latents_on_disk_lie_beside_links_in_the_work_folder(tmp_path: Path) -> None:
    (tmp_path / "dataset.toml").write_text(
        '[general]\n[[datasets]]\nresolution = [512, 512]\n[[datasets.subsets]]\nimage_dir = "4_krnk/krnk_f0512"\n', "utf-8"
    )
    text = '[training]\ncache_latents = "disk"\n[dataset]\ncolor_aug = false\n'
    command = sdscripts.train(made(tmp_path, "_algorithms/locon", text=text), INPUTS | {"dataset": tmp_path}, Path("/w"), None)
    assert {"--cache_latents", "--cache_latents_to_disk"} <= set(command.argv)
    table = tomllib.loads(command.files["dataset.toml"])
    assert table["datasets"][0]["subsets"][0]["image_dir"] == "/w/latents/4_krnk/krnk_f0512"


def test_zero_and_false_reach_the_command(tmp_path: Path) -> None:
    text = "[training]\nseed = 0\nmax_grad_norm = 0.0\ntext_encoder_lr = 0.0\nlr_warmup_steps = 0\ndata_loader_workers = 0\n"
    text += "persistent_workers = false\ngradient_checkpointing = false\n[network]\ndropout = 0.0\n"
    text += "[training.options]\nmin_snr_gamma = 0.0\nnoise_offset = 0.0\nfull_fp16 = false\n"
    options_ = said(sdscripts.train(made(tmp_path, "_algorithms/lora3x3", text=text), INPUTS, Path("/w"), None))
    for name in (
        "seed",
        "max_grad_norm",
        "text_encoder_lr",
        "lr_warmup_steps",
        "max_data_loader_n_workers",
        "network_dropout",
    ):
        assert options_[name] == ["0"], name
    assert options_["min_snr_gamma"] == ["0"]
    assert options_["noise_offset"] == ["0"]
    assert not {"full_fp16", "persistent_data_loader_workers", "gradient_checkpointing"} & set(options_)


PARTS = {
    ("_algorithms/lora1x1",): ("networks.lora", "128", "64", None),
    ("_algorithms/lora1x1", "_algorithms/alpha1-1x1"): ("networks.lora", "128", "1", None),
    ("_algorithms/lora3x3", "_algorithms/alpha1"): ("networks.lora", "128", "1", "conv_dim=128 conv_alpha=1"),
    ("_algorithms/locon", "_algorithms/alpha1"): ("lycoris.kohya", "128", "1", "conv_dim=128 conv_alpha=1 algo=locon"),
    ("_algorithms/loha", "_algorithms/alpha1"): ("lycoris.kohya", "32", "1", "conv_dim=32 conv_alpha=1 algo=loha"),
    ("_algorithms/lokr",): ("lycoris.kohya", "16", "8", "conv_dim=16 conv_alpha=8 algo=lokr"),
    ("_algorithms/dylora",): ("lycoris.kohya", "64", "32", "conv_dim=64 conv_alpha=32 algo=dylora block_size=8"),
    ("_algorithms/glora",): ("lycoris.kohya", "32", "16", "conv_dim=32 conv_alpha=16 algo=glora"),
    ("_algorithms/full",): ("lycoris.kohya", "1", "1", "algo=full"),
    ("_algorithms/diag-oft",): ("lycoris.kohya", "8", "1", "conv_dim=8 algo=diag-oft"),
    ("_algorithms/boft",): ("lycoris.kohya", "10", "1", "conv_dim=10 algo=boft"),
}


@pytest.mark.parametrize("parts", PARTS, ids=" ".join)
def test_every_algorithm_part_trains(parts: tuple[str, ...], tmp_path: Path) -> None:
    asked = made(tmp_path, *parts)
    found = said(sdscripts.train(asked, INPUTS, Path("/w"), None))
    module, dim, alpha, args = PARTS[parts]
    assert (found["network_module"], found["network_dim"], found["network_alpha"]) == ([module], [dim], [alpha])
    assert (args is None) == ("network_args" not in found)
    assert args is None or " ".join(found["network_args"]).startswith(args)
    assert sdscripts.check(asked) == []
    assert found["save_precision"] == ["fp16"]


def test_adafactor_finds_its_own_rates(tmp_path: Path) -> None:
    asked = made(tmp_path, "_algorithms/locon", "_algorithms/adafactor")
    found = said(sdscripts.train(asked, INPUTS, Path("/w"), None))
    assert found["optimizer_type"] == ["AdaFactor"]
    assert found["optimizer_args"] == ["relative_step=True", "scale_parameter=True", "warmup_init=False"]
    assert not {"learning_rate", "text_encoder_lr", "unet_lr"} & set(found)


def test_a_stopped_training_is_resumed_with_computed_flags() -> None:
    found = said(sdscripts.train(recipe("krnk-locon"), INPUTS, Path("/w"), Path("/w/krnk-locon-step00000400-state")))
    assert found["resume"] == ["/w/krnk-locon-step00000400-state"]
    assert found["skip_until_initial_step"] == []


def test_a_training_can_be_continued_from_a_file(tmp_path: Path) -> None:
    asked = made(tmp_path, "_algorithms/locon", text='[network]\nweights = "old.safetensors"\n')
    found = said(sdscripts.train(asked, INPUTS | {"weights": Path("/l/old.safetensors")}, Path("/w"), None))
    assert found["network_weights"] == ["/l/old.safetensors"]


def test_sample_images_are_asked_for_with_their_prompts(tmp_path: Path) -> None:
    text = '[training]\nsample_every_n_steps = 100\n[render.prompts.front]\nprompt = "{trigger}, smile"\nseed = 0\n'
    command = sdscripts.train(made(tmp_path, "_algorithms/locon", text=text), INPUTS, Path("/w"), None)
    found = said(command)
    assert found["sample_prompts"] == ["/w/sample_prompts.txt"]
    assert (found["sample_every_n_steps"], found["sample_sampler"]) == (["100"], ["euler_a"])
    first = command.files["sample_prompts.txt"].splitlines()[0]
    assert first.startswith("krnk, smile --n ")
    assert " --d 0 --s 28 --l 7" in first
    assert "--f " not in first


def test_the_environment_leaves_nothing_to_the_users_console_or_accelerate() -> None:
    env = sdscripts.train(recipe("krnk-locon"), INPUTS, Path("/w"), None).env
    assert {
        "PYTHONUTF8": "1",
        "PYTHONUNBUFFERED": "1",
        "COLUMNS": "400",
        "ACCELERATE_USE_FSDP": "false",
    }.items() <= env.items()
    assert "HF_HUB_OFFLINE" not in env  # the tokenizer has to be fetched once
    (settings.tokenizers() / "openai_clip-vit-large-patch14").mkdir(parents=True)
    assert sdscripts.train(recipe("krnk-locon"), INPUTS, Path("/w"), None).env["HF_HUB_OFFLINE"] == "1"


def test_sdxl_chooses_its_own_script_and_options(tmp_path: Path) -> None:
    asked = recipe("recipes/examples/krnk-sdxl.toml")
    command = sdscripts.train(asked, {"dataset": tmp_path, "checkpoint": Path("/m/sdxl.safetensors")}, Path("/w"), None)
    found = said(command)
    assert command.argv[1].endswith("sdxl_train_network.py")
    assert "clip_skip" not in found
    assert sdscripts.check(asked) == []
    drawing = sdscripts.render(asked, {"checkpoint": Path("/m/sdxl.safetensors"), "lora": Path("/l.safetensors")}, Path("/w"))
    assert "--sdxl" in drawing.argv
    assert "--v1" not in drawing.argv
    for name in write_tokenizer.NAMES:  # SDXL has two tokenizers, and goes offline when it has both
        assert "HF_HUB_OFFLINE" not in drawing.env
        (settings.tokenizers() / name).mkdir(parents=True)
        drawing = sdscripts.render(asked, {"checkpoint": Path("/m/x.safetensors"), "lora": Path("/l.safetensors")}, Path("/w"))
    assert drawing.env["HF_HUB_OFFLINE"] == "1"
    assert json.loads(command.files["expected.json"])["U-Net modules"] == 722


def wrong(tmp_path: Path, text: str, part: str = "_algorithms/locon", engine: str = "sd-scripts") -> str:
    problems = engines.get(engine).check(made(tmp_path, part, text=text))
    return "\n".join(str(problem) for problem in problems)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[training.options]\nmin_snr_gama = 5.0\n", "did you mean min_snr_gamma?"),
        ('[training.options]\nmin_snr_gamma = "5"\n', "takes a number"),
        ("[training.options]\nnoise_offset = true\n", "takes a number"),
        ("[training.options]\nmax_token_length = 75\n", "takes 150, 225"),
        ('[training.options]\nloss_type = "l3"\n', "takes l1, l2, huber, smooth_l1"),
        ("[training.options]\nlowram = 1\n", "takes true or false"),
        ('[training.options]\nbase_weights = "x"\n', "takes a list"),
        ("[training.options]\nlearning_rate = 1.0\n", "set training.learning_rate instead"),
        ('[training.options]\nconfig_file = "x.toml"\n', "is set by the orchestrator"),
        ("[network.args]\nfactor = 8\n", "locon takes no such argument (lokr does)"),
        ('[network.args]\nrank_dropout = "0.1"\n', "takes a number from 0 to 1"),
        ("[network.args]\ndora_wd = true\n", "bypass mode does not build"),
        ('[render]\nsampler = "euler-a"\n', "did you mean euler_a?"),
        ('[render.prompts.a]\nprompt = "x --w 9"\n', "begins an option"),
        ('[render.prompts.a]\nprompt = "{x|y}"\n', "dynamic-prompt syntax"),
        ("[training]\nsave_every_n_steps = 100\n", "every 100 steps"),
        ('[training]\nlr_scheduler = "cosine"\n', "up to an epoch too long when it is resumed"),
        ("[training]\ngradient_accumulation_steps = 2\n", "counts batches as steps"),
        ("[training]\nlearning_rate = 0.0\ntext_encoder_lr = 0.0\n", "LyCORIS drops parts without a rate"),
        ('[training]\nlr_scheduler = "cosin"\n', "did you mean cosine?"),
        ('[training]\nlr_scheduler = "adafactor"\n', "needs the optimizer Adafactor"),
        ('[training]\noptimizer = "AdamWScheduleFree"\n', "none is resumed"),
        ('[training.options]\nlr_scheduler_type = "CosineAnnealingLR"\n', "up to an epoch too long when it is resumed"),
        ('[training]\nlr_warmup_steps = 10\n[training.options]\nlr_scheduler_type = "StepLR"\n', "StepLR takes none"),
        ("[training.options]\nadaptive_noise_scale = 0.1\n", "needs training.options.noise_offset"),
        ("[training.options]\nscale_v_pred_loss_like_noise_pred = true\n", "needs training.options.v_parameterization"),
        ("[training.options]\nfull_bf16 = true\n", 'needs training.mixed_precision = "bf16"'),
        ("[training.options]\nfused_backward_pass = true\n", "is for the optimizer Adafactor"),
        ("[training.options]\nsample_at_first = true\n", "needs training.sample_every_n_steps"),
        ("[training.options]\nsample_every_n_epochs = 1\n", "set training.sample_every_n_steps instead"),
        ("[training.options]\nvalidation_split = 0.2\n", "removes images from those that the plan counts"),
        ("[training.options]\nv2 = true\n", "set base.architecture instead"),
        ("[training.options]\ndim_from_weights = true\n", "set network.dim instead"),
        ("[dataset]\nbucket_reso_steps = 32\n", "multiples of 64 only"),
        ("[network]\nbypass = false\ndropout = 0.1\n", "set network.bypass = true"),
        ('[base]\ncheckpoint = "embedded"\n', "the embedded base is of a size"),
        ('[merge]\ntool = "sd-scripts"\n', "drops lora_mid"),
        ('[merge]\ntool = "sd-scripts"\n[merge.options]\ndevise = "cuda"\n', "did you mean device?"),
        ('[merge]\ntool = "sd-scripts"\nzeroed = "prune"\n', "svd_merge_lora.py has no such choice"),
    ],
)
def test_the_engine_refuses_what_would_pass_in_silence(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in wrong(tmp_path, text)


def test_sdxls_text_encoder_outputs_are_kept_in_memory_and_only_where_they_do_not_change(tmp_path: Path) -> None:
    text = (RECIPES / "examples" / "krnk-sdxl.toml").read_text("utf-8")
    path = tmp_path / "krnk-sdxl.toml"
    for train, option, expected in (
        ("unet", "cache_text_encoder_outputs", ""),
        ("both", "cache_text_encoder_outputs", 'needs training.train = "unet"'),
        ("unet", "cache_text_encoder_outputs_to_disk", "beside images that other trainings share"),
    ):
        more = f'\n[training]\ntrain = "{train}"\n[training.options]\n{option} = true\n'
        path.write_text(text.replace("extends = [", 'unset = ["training.text_encoder_lr"]\nextends = [') + more, "utf-8")
        found = sdscripts.check(loader.recipe(RECIPES, str(path)).recipe)
        assert expected in "\n".join(map(str, found))
        assert bool(found) == bool(expected)


def test_networks_lora_takes_lists_of_its_blocks_beside_block_dims_only(tmp_path: Path) -> None:
    part = "_algorithms/lora3x3"
    ones = ",".join("1" * 25)
    assert "25 values" not in wrong(tmp_path, f'[network.args]\nblock_dims = "{ones}"\nblock_alphas = "{ones}"\n', part)
    assert "has 2 values; sd1 takes 25" in wrong(tmp_path, '[network.args]\nblock_dims = "4,4"\n', part)
    assert "ignored without" in wrong(tmp_path, f'[network.args]\nconv_block_dims = "{ones}"\n', part)
    text = '[training.options]\nbase_weights = ["x.safetensors"]\n'
    assert "takes the 3x3" not in wrong(tmp_path, text, part)
    assert "also trains the 3x3 convolutions" in wrong(tmp_path, text, "_algorithms/lora1x1")


@pytest.mark.parametrize(
    ("args", "free"), [("", True), ("relative_step = false", False), ("relative_step = false\nwarmup_init = true", True)]
)
def test_adafactor_finds_its_own_rate_unless_told_otherwise(tmp_path: Path, args: str, free: bool) -> None:
    text = f'[training]\noptimizer = "Adafactor"\n[training.optimizer_args]\n{args}\n'
    if free:
        with pytest.raises(RecipeError, match="ignores this one; unset it") as caught:
            made(tmp_path, "_algorithms/locon", text=text)
        assert 'set "adafactor"' in str(caught.value)
    else:
        assert not made(tmp_path, "_algorithms/locon", text=text).training.relative_step


def test_v_prediction_is_drawn_as_it_was_trained(tmp_path: Path) -> None:
    text = "[training.options]\nv_parameterization = true\nzero_terminal_snr = true\n"
    inputs = {"checkpoint": Path("/m/base.safetensors"), "lora": Path("/l/x.safetensors")}
    drawing = sdscripts.render(made(tmp_path, "_algorithms/lora3x3", text=text), inputs, Path("/w"))
    assert {"--v_parameterization", "--zero_terminal_snr"} <= set(drawing.argv)


def test_a_resize_by_sd_scripts_says_the_rank_rule_of_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = '[resize]\ntool = "sd-scripts"\n'
    assert 'this resize_lora.py has "sd-scripts-0.10"' in wrong(tmp_path, text, "_algorithms/lora3x3")
    newer = tmp_path / "newer" / "networks"
    newer.mkdir(parents=True)
    (newer / "resize_lora.py").write_text("new_rank = index_sv_ratio(S, dynamic_param)\n", "utf-8")
    monkeypatch.setattr(settings, "sd_scripts", lambda: tmp_path / "newer")
    assert lora_tools.rank_rule(tmp_path / "newer") == "2023"
    assert "rank_rule" not in wrong(tmp_path, text, "_algorithms/lora3x3")


@pytest.mark.parametrize("engine", ["sd-scripts", "embedded"])
def test_options_of_the_other_engines_tools_are_checked_wherever_they_stand(engine: str, tmp_path: Path) -> None:
    text = '[resize]\ntool = "sd-scripts"\nrank_rule = "sd-scripts-0.10"\n[resize.options]\nnew_rank = 3\n'
    assert "set resize.new_rank instead" in wrong(tmp_path, text, "_algorithms/lora3x3", engine)
    with pytest.raises(RecipeError, match=r"set resize\.tool"):
        made(tmp_path, "_algorithms/lora3x3", text='[resize.options]\ndevice = "cuda"\n')


def test_a_boft_that_lycoris_cannot_build_is_refused(tmp_path: Path) -> None:
    assert "boft cannot split 320 channels" in wrong(tmp_path, "[network]\ndim = 8\nconv_dim = 8\n", "_algorithms/boft")


def test_families_that_cannot_resume_say_so_before_the_start(tmp_path: Path) -> None:
    for part, args in (
        ("_algorithms/dylora", ""),
        ("_algorithms/loha", "[network.args]\nuse_scalar = true\n"),
    ):
        text = "[training]\nstate_every_n_steps = 100\n" + args
        assert "could not be resumed" in wrong(tmp_path, text, part), part
    for part in ("_algorithms/lokr", "_algorithms/full"):
        assert wrong(tmp_path, "[training]\nstate_every_n_steps = 100\n", part) == ""
    assert "loads nothing of a DyLoRA file" in wrong(tmp_path, '[network]\nweights = "x.safetensors"\n', "_algorithms/dylora")


# Not networks.lora: that is sd-scripts' own, its parameters are its state.
@pytest.mark.parametrize("family", [family for family in network_args.ARGS if family != "lora"])
def test_what_can_be_resumed_is_what_lycoris_loads_back(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Save and load the real modules as accelerate does; the table of capabilities says the same."""
    torch = pytest.importorskip("torch", reason="needs torch")
    kohya = pytest.importorskip("lycoris.kohya", reason="needs lycoris-lora")
    monkeypatch.setattr(kohya.logger, "disabled", True)

    def network(**args: Any) -> tuple[Network, Any]:
        rank = 10 if family == "boft" else 8
        asked = Network(family=family, dim=rank, alpha=4.0, conv_dim=None if family == "full" else rank, args=args)
        torch.manual_seed(1)
        unet = torch.nn.Module()
        layers = [torch.nn.Linear(64, 160), torch.nn.Conv2d(64, 160, 3)]
        unet.block = type("Transformer2DModel", (torch.nn.ModuleList,), {})(layers)
        given = dict(one.split("=", 1) for one in network_args.arguments(asked, ""))
        net = kohya.create_network(1.0, asked.dim, asked.alpha, None, torch.nn.Module(), unet, **given)
        net.apply_to(torch.nn.Module(), unet, False, True)
        return asked, net

    for args in ({}, {"use_scalar": True}) if "use_scalar" in network_args.ARGS[family] else ({},):
        asked, first = network(**args)
        for parameter in first.parameters():
            parameter.data.normal_()
        state = {name: value.clone() for name, value in first.state_dict().items()}
        _, second = network(**args)
        try:
            second.load_state_dict(state)
            restored = dict(second.named_parameters())
            works = all(torch.allclose(value, restored[name], atol=1e-5) for name, value in first.named_parameters())
        except RuntimeError:
            works = False
        assert works == (network_args.no_resume(asked) == ""), (family, args)


# Not a DyLoRA without bypass: it draws its blocks anew in every forward.
@pytest.mark.parametrize(
    ("family", "bypass"),
    [*itertools.product(["locon", "loha", "lokr", "glora", "diag-oft", "boft"], [False, True]), ("dylora", True)],
)
def test_dropouts_that_are_taken_are_those_that_drop_something_out(
    family: str, bypass: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two forwards of the real modules differ while training, or the recipe is refused; bypass modes work, or are refused."""
    torch = pytest.importorskip("torch", reason="needs torch")
    kohya = pytest.importorskip("lycoris.kohya", reason="needs lycoris-lora")
    monkeypatch.setattr(kohya.logger, "disabled", True)
    for name in ("dropout", "rank_dropout", "module_dropout"):
        more: dict[str, Any] = {"dropout": 0.5} if name == "dropout" else {"args": {name: 0.5}}
        rank = 10 if family == "boft" else 8
        asked = Network(family=family, dim=rank, alpha=4.0, conv_dim=rank, bypass=bypass, **more)  # type: ignore[arg-type]
        torch.manual_seed(1)
        unet = torch.nn.Module()
        layers = [torch.nn.Linear(64, 160), torch.nn.Conv2d(64, 160, 3)]
        unet.block = type("Transformer2DModel", (torch.nn.ModuleList,), {})(layers)
        given: dict[str, Any] = dict(one.split("=", 1) for one in network_args.arguments(asked, ""))
        given |= {"dropout": 0.5} if name == "dropout" else {}
        net = kohya.create_network(1.0, rank, 4.0, None, torch.nn.Module(), unet, **given)
        net.apply_to(torch.nn.Module(), unet, False, True)
        for parameter in net.parameters():
            parameter.data.normal_()
        net.train()
        pictures = (torch.randn(3, 64), torch.randn(3, 64, 8, 8))
        try:
            drops = all(
                any(not torch.allclose(layer(picture), layer(picture)) for _ in range(8))
                for layer, picture in zip(layers, pictures, strict=True)
            )
        except RuntimeError:
            drops = False
        assert drops == (not list(network_args.problems(asked))), (family, bypass, name)


def test_the_locked_lycoris_cannot_train_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch", reason="needs torch")
    full = pytest.importorskip("lycoris.modules.full", reason="needs lycoris-lora")
    module = full.FullModule("x", torch.nn.Linear(4, 4))
    module.apply_to()
    with pytest.raises(AttributeError, match="no attribute 'weight'"):
        module.forward(torch.zeros(1, 4))
    packages = tmp_path / "lib" / "python3.11" / "site-packages"
    for name in (
        "torch",
        "accelerate",
        "transformers",
        "diffusers",
        "bitsandbytes",
        "lycoris",
        "lycoris_lora-3.4.0.dist-info",
    ):
        (packages / name).mkdir(parents=True)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").touch()
    (tmp_path / "pyvenv.cfg").touch()
    monkeypatch.setenv("SD_SCRIPTS_PYTHON", str(tmp_path / "bin" / "python"))
    asked = made(tmp_path, "_algorithms/full")
    assert "cannot train full" in "\n".join(str(problem) for problem in sdscripts.preflight(asked))
    (packages / "lycoris_lora-3.4.0.dist-info").rename(packages / "lycoris_lora-3.2.0.post2.dist-info")
    assert "lycoris-lora" not in "\n".join(str(problem) for problem in sdscripts.preflight(asked))


def test_rendering_goes_directly_where_gen_img_can_read_the_file(tmp_path: Path) -> None:
    inputs = {"checkpoint": Path("/m/base.safetensors"), "lora": Path("/l/x.safetensors")}
    command = sdscripts.render(recipe("krnk-lora3x3"), inputs, Path("/w"))
    assert command.argv[1].endswith("gen_img.py")
    found = said(command)
    assert found["network_module"] == ["networks.lora"]
    assert found["network_weights"] == ["/l/x.safetensors"]
    assert (found["ckpt"], found["v1"], found["fp16"], found["clip_skip"]) == (["/m/base.safetensors"], [], [], ["2"])
    lines = command.files["prompts.txt"].splitlines()
    assert len(lines) == len(recipe("krnk-lora3x3").render.prompts)
    assert all(" --d 31337 " in line and line.endswith(".png") for line in lines)
    for name, how in (("krnk-locon", render_command.LoraDelivery.FOLD), ("krnk-loha", render_command.LoraDelivery.BAKE)):
        command = sdscripts.render(recipe(name), inputs, Path("/w"))
        assert command.argv[1:3] == ("-m", "orchestrator.engines.sdscripts.render_program")
        request = json.loads(command.files["request.json"])
        assert request["how"] == how
        assert ("--network_module" in request["argv"]) == (how is render_command.LoraDelivery.FOLD)
    full = made(tmp_path, "_algorithms/locon", text='unset = ["network.preset"]\n')
    assert render_command.delivery(full) is render_command.LoraDelivery.BAKE  # gen_img.py would skip its conv_in in silence


def test_resize_and_merge_through_sd_scripts(tmp_path: Path) -> None:
    text = '[resize]\ntool = "sd-scripts"\nrank_rule = "sd-scripts-0.10"\n[merge]\ntool = "sd-scripts"\n'
    asked = made(tmp_path, "_algorithms/lora3x3", text=text)
    assert sdscripts.check(asked) == []
    resize = lora_tools.command("resize", asked, Path("/a.safetensors"), Path("/b.safetensors"), Path("/w"))
    assert resize.argv[1].endswith("networks/resize_lora.py")
    assert said(resize) == {
        "model": ["/a.safetensors"],
        "save_to": ["/b.safetensors"],
        "save_precision": ["fp16"],
        "new_rank": ["128"],
        "new_conv_rank": ["128"],
        "dynamic_method": ["sv_ratio"],
        "dynamic_param": ["16"],
        "verbose": [],
    }
    merge = said(lora_tools.command("merge", asked, Path("/a.safetensors"), Path("/b.safetensors"), Path("/w")))
    assert len(json.loads(merge["lbws"][0])) == 26
    assert (merge["new_rank"], merge["new_conv_rank"], merge["ratios"]) == (["128"], ["128"], ["1"])
    said_more = '[merge.options]\ndevice = "cuda"\nnew_rank = 64\n[resize.options]\ndevice = "cuda"\n'
    asked = made(tmp_path, "_algorithms/lora3x3", text=text + said_more)
    assert sdscripts.check(asked) == []
    merge = said(lora_tools.command("merge", asked, Path("/a.safetensors"), Path("/b.safetensors"), Path("/w")))
    assert (merge["new_rank"], merge["new_conv_rank"], merge["device"]) == (["64"], ["128"], ["cuda"])
    resize = lora_tools.command("resize", asked, Path("/a.safetensors"), Path("/b.safetensors"), Path("/w"))
    assert said(resize)["device"] == ["cuda"]
    for part in ("_algorithms/locon", "_algorithms/loha", "_algorithms/full"):
        with pytest.raises(RecipeError):
            lora_tools.command("merge", made(tmp_path, part), Path("/a"), Path("/b"), Path("/w"))


def test_a_file_that_the_tools_would_corrupt_is_rejected(tmp_path: Path) -> None:
    recordings = ROOT / "tests" / "data" / "recordings"
    options = ResizeOptions(method="sv_ratio", param=16.0, rank_rule="sd-scripts-0.10")
    lora_tools.resize(recordings / "lora3x3.safetensors", tmp_path / "x", tmp_path, options, (1, 1), {})
    for name, part in (("locon", "lora_mid.weight"), ("loha", "hada_t1")):
        with pytest.raises(RecipeError, match=part):
            lora_tools.resize(recordings / f"{name}.safetensors", tmp_path / "x", tmp_path, options, (1, 1), {})


def test_the_shipped_options_are_those_of_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SD_SCRIPTS_DIR")
    folder = settings.sd_scripts()
    if checkout.version(folder) != checkout.PINNED or not checkout.present(folder):
        pytest.skip(f"the pinned sd-scripts is not in {folder}")
    assert checkout._files_digest(folder) == checkout.PINNED_FILES
    assert parser_options.dumps(folder) == (ROOT / "orchestrator" / "engines" / "sdscripts" / "pinned.json").read_text("utf-8")


def test_another_commits_options_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "other"
    for name in (*parser_options.SCRIPTS, "library/train_util.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        text = "def setup_parser():\n    parser.add_argument('--novelty', type=int, default=3, choices=[3, 4])\n"
        (folder / name).write_text(text, "utf-8")
    (folder / ".git").mkdir()
    clean = {"rev-parse": "0" * 39 + "1\n", "status": ""}
    monkeypatch.setattr(checkout, "capture", lambda argv: (0, next(clean[word] for word in argv if word in clean)))
    novelty = parser_options.ParserOption("novelty", "int", choices=(3, 4), default=3)
    assert parser_options.of("train_network.py", folder) == {"novelty": novelty}
    monkeypatch.setenv("SD_SCRIPTS_DIR", str(folder))
    sdscripts.preflight(recipe("krnk-locon"))
    assert "novelty" in (settings.cache_folder() / f"options-{'0' * 39}1.json").read_text("utf-8")
    parser_options._of.cache_clear()
    monkeypatch.setattr(parser_options, "parse_options", lambda *_: pytest.fail("the source is read again"))
    assert parser_options.of("train_network.py", folder) == {"novelty": novelty}
    found = list(parser_options.problems({"novelty": novelty}, {"novelty": 5, "noveltie": 3}, "x", {}))
    assert found == [
        ("x.novelty", "is 5; takes 3, 4"),
        ("x.noveltie", "is not an option of this program; did you mean novelty?"),
    ]


def test_every_owned_option_is_one_of_the_trainers() -> None:
    known = parser_options.of("train_network.py")
    assert not set(arguments.OWNED) - set(known)
    assert len(known) == 193


def test_the_embedded_engine_takes_the_same_arguments(tmp_path: Path) -> None:
    parser = own.parser()
    for name in loader.names(RECIPES):
        asked = loader.recipe(RECIPES, name, "demo").recipe
        if asked.base.architecture != "sd1":
            continue
        inputs = {"dataset": tmp_path, "checkpoint": EMBEDDED_BASE}
        command = engines.get("embedded").train(asked, inputs, tmp_path, tmp_path / "x-step00000001-state")
        args = parser.parse_args(command.argv[3:])
        assert args.max_train_steps == asked.training.steps
        assert engines.get("embedded").check(asked) == []
    assert "did you mean min_snr_gamma?" in wrong(tmp_path, "[training.options]\nmin_snr_gama = 5.0\n", engine="embedded")


def test_preflight_says_what_is_missing_and_what_still_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SD_SCRIPTS_PYTHON", str(tmp_path / "venv" / "bin" / "python"))
    text = "\n".join(str(problem) for problem in sdscripts.preflight(recipe("krnk-locon")))
    assert "sd-scripts is not there" in text
    assert "--profile demo" in text
    assert "make setup" in text


def test_preflight_looks_into_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    venv = tmp_path / "venv"
    packages = venv / "lib" / "python3.11" / "site-packages"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").touch()
    (venv / "pyvenv.cfg").touch()
    for name in ("torch", "accelerate", "transformers", "diffusers", "lycoris", "lycoris_lora-4.1.3.dist-info"):
        (packages / name).mkdir(parents=True)
    monkeypatch.setenv("SD_SCRIPTS_PYTHON", str(venv / "bin" / "python"))
    text = "\n".join(str(problem) for problem in sdscripts.preflight(recipe("krnk-locon")))
    assert "bitsandbytes is not there" in text
    assert "lycoris-lora 4.1.3" in text
    (packages / "lycoris_lora-4.1.3.dist-info").rename(packages / "lycoris_lora-3.4.0.dist-info")
    (packages / "bitsandbytes").mkdir()
    text = "\n".join(str(problem) for problem in sdscripts.preflight(recipe("krnk-locon")))
    assert "bitsandbytes" not in text
    assert "lycoris-lora" not in text
    assert "wandb" not in text


def test_wandb_is_passed_through_and_its_package_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = made(tmp_path, "_algorithms/locon", text="[training]\nwandb = true\n")
    (tmp_path / "data").mkdir()
    said = arguments.train(asked, {"checkpoint": tmp_path / "x", "dataset": tmp_path / "data"}, tmp_path, None).argv
    assert said[said.index("--log_with") + 1] == "all"
    assert not any("api_key" in word for word in said)
    venv = tmp_path / "venv"
    (venv / "lib" / "python3.11" / "site-packages").mkdir(parents=True)
    (venv / "bin").mkdir()
    for name in ("bin/python", "pyvenv.cfg"):
        (venv / name).touch()
    monkeypatch.setenv("SD_SCRIPTS_PYTHON", str(venv / "bin" / "python"))
    text = "\n".join(str(problem) for problem in sdscripts.preflight(asked))
    assert "the package wandb is not there (training.wandb = true)" in text
    assert "python -m pip install wandb" in text
