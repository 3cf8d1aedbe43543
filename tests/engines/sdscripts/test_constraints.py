"""Recipes that the trainer would reject late or train otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from engine_recipes import RECIPES, problems, variant
from orchestrator.engines.sdscripts import engine as sdscripts
from orchestrator.recipe import loader

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("no_checkout")


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
        ("[training.options]\nrank = 8\n", "training.options.rank  set network.dim instead"),
        ("[network.args]\nnetwork_alpha = 8\n", "network.args.network_alpha  set network.alpha instead"),
        ("[network.args]\nfactor = 8\n", "locon takes no such argument (lokr does)"),
        ('[network.args]\nrank_dropout = "0.1"\n', "takes a number from 0 to 1"),
        ('unset = ["block_weights"]\n[network.args]\ndora_wd = true\n', "bypass mode does not build"),
        ('[render]\nsampler = "euler-a"\n', "did you mean euler_a?"),
        ('[render.prompts.a]\nprompt = "x --w 9"\n', "begins an option"),
        ('[render.prompts.a]\nprompt = "{x|y}"\n', "dynamic-prompt syntax"),
        ("[training]\nsave_every_n_steps = 100\n", "every 100 steps"),
        ('[training]\nlr_scheduler = "cosine"\n', "up to an epoch too long when it is resumed"),
        ("[training]\ngradient_accumulation_steps = 2\n", "counts batches as steps"),
        ('[training]\nlr_scheduler = "cosin"\n', "did you mean cosine?"),
        ('[training]\nlr_scheduler = "adafactor"\n', "needs the optimizer Adafactor"),
        ('[training]\noptimizer = "AdamWScheduleFree"\n', "none is resumed"),
        ('[training]\noptimizer = "Prodgy"\n', 'is "Prodgy", which sd-scripts does not have; did you mean Prodigy?'),
        ('[training]\noptimizer = "adam"\n', "did you mean Adam?"),
        ('[training]\noptimizer = "Adam8bit"\n', "did you mean AdamW8bit?"),
        (
            '[training]\noptimizer = "Prodigy"\nlearning_rate = 1.0\n',
            "training.text_encoder_lr  is 4.4e-05, and learning_rate 1.0",
        ),
        ('[training]\noptimizer = "Prodigy"\n', "training.learning_rate  is 0.0001: Prodigy finds its own rate"),
        (
            (
                "network.args.loraplus_lr_ratio = 4\n"
                '[training]\noptimizer = "Prodigy"\nlearning_rate = 1.0\ntext_encoder_lr = 1.0\n'
            ),
            "network.args.loraplus_lr_ratio  gives parts rates of their own",
        ),
        ('[training]\nlr_scheduler = "piecewise_constant"\n', "its rules are missing"),
        (
            "[training.options]\ncache_text_encoder_outputs = true\n",
            "is an option of sd-scripts' sdxl_train_network.py; sd-scripts' train_network.py lacks it",
        ),
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
def test_values_that_the_trainer_would_misuse_are_rejected(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in problems(tmp_path, text)


def test_sdxls_text_encoder_outputs_are_cached_in_memory_for_an_untrained_text_encoder(tmp_path: Path) -> None:
    text = (RECIPES / "examples" / "krnk-sdxl.toml").read_text("utf-8")
    path = tmp_path / "krnk-sdxl.toml"
    for train, option, expected in (
        ("unet", "cache_text_encoder_outputs", ""),
        ("both", "cache_text_encoder_outputs", 'needs training.train = "unet"'),
        ("unet", "cache_text_encoder_outputs_to_disk", "beside images that other trainings share"),
    ):
        more = f'\n[training]\ntrain = "{train}"\n[training.options]\n{option} = true\n'
        path.write_text(text.replace("extends = [", 'unset = ["training.text_encoder_lr"]\nextends = [') + more, "utf-8")
        reasons = sdscripts.check(loader.recipe(RECIPES, str(path)).recipe)
        assert expected in "\n".join(map(str, reasons))
        assert bool(reasons) == bool(expected)


def test_networks_lora_takes_other_block_lists_only_with_block_dims(tmp_path: Path) -> None:
    part = "_algorithms/lora3x3"
    ones = ",".join("1" * 25)
    assert "25 values" not in problems(tmp_path, f'[network.args]\nblock_dims = "{ones}"\nblock_alphas = "{ones}"\n', part)
    assert "has 2 values; sd1 takes 25" in problems(tmp_path, '[network.args]\nblock_dims = "4,4"\n', part)
    assert "ignored without" in problems(tmp_path, f'[network.args]\nconv_block_dims = "{ones}"\n', part)
    text = '[training.options]\nbase_weights = ["x.safetensors"]\n'
    assert "3x3 convolutions" not in problems(tmp_path, text, part)
    assert "also trains the 3x3 convolutions" in problems(tmp_path, text, "_algorithms/lora1x1")


def test_a_boft_that_lycoris_cannot_build_is_rejected(tmp_path: Path) -> None:
    assert "boft cannot split 320 channels" in problems(tmp_path, "[network]\ndim = 8\nconv_dim = 8\n", "_algorithms/boft")


def test_a_pickle_that_the_pictures_need_baked_is_refused(tmp_path: Path) -> None:
    text = '[base]\ncheckpoint = "old.ckpt"\n'
    assert "drawn with the LoRA baked into a .safetensors model" in problems(tmp_path, text, "_algorithms/loha")
    assert problems(tmp_path, text, "_algorithms/lora3x3") == ""
    assert problems(tmp_path, 'unset = ["render"]\n' + text, "_algorithms/loha") == ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[training.options]\nmultires_noise_discount = 0.2\n", "is an option of sd-scripts; the embedded engine lacks it"),
        ("[training.options]\nmin_snr_gama = 5\n", "not an option of the embedded engine; did you mean min_snr_gamma?"),
        ("", "the embedded engine has AdamW, Adam, SGD, SGDNesterov, Adafactor; AdamW has the same settings"),
        ('[training]\noptimizer = "AdmW"\n', "did you mean AdamW?"),
        (
            '[training]\noptimizer = "AdamW"\nlr_scheduler = "inverse_sqrt"\n',
            'training.lr_scheduler  is "inverse_sqrt"; the embed',
        ),
    ],
)
def test_settings_beyond_the_embedded_engine_are_named(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in problems(tmp_path, text, engine="embedded")


def test_self_adapting_optimizers_take_one_rate(tmp_path: Path) -> None:
    text = 'unset = ["training.text_encoder_lr"]\n[training]\noptimizer = "Prodigy"\nlearning_rate = 1.0\n'
    assert problems(tmp_path, text) == ""


def anima_problems(folder: Path, text: str) -> str:
    recipe = variant(folder, "_algorithms/lora1x1", "_base/anima", text=text)
    return "\n".join(map(str, sdscripts.check(recipe)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[training.options]\nmin_snr_gamma = 5.0\n", "the trainer of Anima ignores it"),
        ("[training.options]\nfp8_base = true\n", "the trainer of Anima ignores it"),
        ("[training.options]\nblocks_to_swap = 27\n", "takes at most 26"),
        ("[training.options]\nblocks_to_swap = 2\ncpu_offload_checkpointing = true\n", "excludes training.options.cpu_off"),
        ("[training.options]\ncpu_offload_checkpointing = true\nunsloth_offload_checkpointing = true\n", "excludes cpu_off"),
        ("[dataset]\nshuffle_caption = true\n", "changes captions"),
        ("[training.options]\ncaption_tag_dropout_rate = 0.1\n", "changes captions"),
        ('[training]\ntrain = "both"\n', 'needs training.train = "unet"'),
        ('[training.options]\nqwen3 = "x"\n', "set base.files.qwen3 instead"),
        ("[training.options]\nv2 = true\n", "set base.architecture instead"),
        ('[network]\nfamily = "locon"\n', "LyCORIS trains the final layer only"),
        ('[network]\nfamily = "loha"\n', "of LyCORIS locon, lokr train Anima"),
        ("[network]\nconv_dim = 8\n", "has no 3x3 convolutions"),
        ('[network.args]\nblock_dims = "1"\n', "takes no such argument"),
        ('block_weights = "ALL"\n[merge]\ntool = "sd-scripts"\n', "does not read LoRAs of Anima"),
        ('[render.prompts.a]\nprompt = "x"\n', 'unset = ["render.prompts"]'),
        ("[dataset]\nbucket_reso_steps = 24\n", "multiples of 16 only"),
    ],
)
def test_the_limits_of_another_architecture_are_checked(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in anima_problems(tmp_path, text)


def test_t5_is_trained_with_the_text_encoders_only(tmp_path: Path) -> None:
    text = "[network.args]\ntrain_t5xxl = true\n"
    for train, option, expected in (("unet", "true", "which training.train"), ("both", "false", "")):
        more = f'[training]\ntrain = "{train}"\n[training.options]\ncache_text_encoder_outputs = {option}\n'
        recipe = variant(tmp_path, "_algorithms/lora1x1", "_base/flux", text=text + more)
        reasons = "\n".join(map(str, sdscripts.check(recipe)))
        assert expected in reasons
        assert bool(reasons) == bool(expected)


def test_the_adapter_of_anima_is_trained_by_an_argument(tmp_path: Path) -> None:
    text = "[network.args]\ntrain_llm_adapter = true\n"
    assert anima_problems(tmp_path, text) == ""
    assert "takes no such argument" in problems(tmp_path, text, "_algorithms/lora1x1")
