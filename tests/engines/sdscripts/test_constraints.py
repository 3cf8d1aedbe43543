"""Recipes that the trainer would reject late or train otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from engine_recipes import RECIPES, load, problems, variant
from orchestrator.engines.sdscripts import constraints
from orchestrator.engines.sdscripts import engine as sdscripts
from orchestrator.recipe import loader

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.recipe import Recipe

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
        (
            'unset = ["training.text_encoder_lr"]\nblock_weights = {BASE = 0}\n[training]\ntrain = "unet"\n',
            "block_weights  change no layer that is trained",
        ),
        ('unset = ["block_weights"]\n[network.args]\ndora_wd = true\n', "bypass mode does not build"),
        ('[render]\nsampler = "euler-a"\n', "did you mean euler_a?"),
        ('[render.prompts.a]\nprompt = "x --w 9"\n', "begins an option"),
        ('[render.prompts.a]\nprompt = "{x|y}"\n', "dynamic-prompt syntax"),
        ("[training]\nsave_every_n_steps = 100\n", "every 100 steps"),
        ('[training]\nlr_scheduler = "cosine"\n', "up to an epoch too long when it is resumed"),
        ("[training]\ngradient_accumulation_steps = 2\n", "counts batches as steps"),
        ('[training]\nlr_scheduler = "cosin"\n', "did you mean cosine or "),
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
            '[training]\ncache_text_encoder_outputs = "memory"\n',
            "training.cache_text_encoder_outputs  sd-scripts' train_network.py has no such option",
        ),
        ("[training.options]\nblocks_to_swap = 2\n", "set training.blocks_to_swap instead"),
        ('[training.options]\ntimestep_sampling = "sigma"\n', "set training.timestep_sampling instead"),
        ("[training]\nblocks_to_swap = 2\n", "sd-scripts' train_network.py has no such option"),
        ("[training]\ntext_encoder_lr = [1e-5, 1e-5]\n", "has 2 rates; the trainer of SD1.5 takes one for all text encoders"),
        ('[training.options]\nlr_scheduler_type = "CosineAnnealingLR"\n', "up to an epoch too long when it is resumed"),
        ('[training]\nlr_warmup_steps = 10\n[training.options]\nlr_scheduler_type = "StepLR"\n', "StepLR takes none"),
        ("[training.options]\nadaptive_noise_scale = 0.1\n", "needs training.options.noise_offset"),
        ("[training.options]\nscale_v_pred_loss_like_noise_pred = true\n", "needs training.options.v_parameterization"),
        ("[training.options]\nfull_bf16 = true\n", 'needs training.mixed_precision = "bf16"'),
        ("[training.options]\nfused_backward_pass = true\n", "is for the optimizer Adafactor"),
        ("[training.options]\nsample_at_first = true\n", "needs training.sample_every_n_steps"),
        ("[training.options]\nsample_every_n_epochs = 1\n", "set training.sample_every_n_steps instead"),
        ("[training.options]\nvalidation_split = 0.2\n", "set training.validation.split instead"),
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
        ("unet", "memory", ""),
        ("both", "memory", "excludes training of clip_l, clip_g; set training.train"),
        ("unet", "disk", ""),
    ):
        more = f'\n[training]\ntrain = "{train}"\ncache_text_encoder_outputs = "{option}"\n'
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
    assert "is a pickle; the images of a loha are drawn with the LoRA baked" in problems(tmp_path, text, "_algorithms/loha")


def test_a_lora_is_not_baked_into_one_of_several_shards(tmp_path: Path) -> None:
    text = 'unset = ["training.text_encoder_lr"]\n[base]\ncheckpoint = "x-00001-of-00003.safetensors"\n'
    text += '[network]\nfamily = "lokr"\n[training]\nfp8_base = false\n[render.prompts.front]\nprompt = "x"\n'
    recipe = variant(tmp_path, "_algorithms/lora1x1", "_base/flux", text=text)
    assert "is one of 3 shards; the images of a lokr are drawn with the LoRA baked" in "\n".join(
        map(str, sdscripts.check(recipe))
    )


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
        ("[training]\nfp8_base = true\n", "training.fp8_base  the trainer of Anima ignores it"),
        ("[training]\nguidance_scale = 3.5\n", "anima_train_network.py has no such option"),
        ('[training]\ntimestep_sampling = "nextdit_shift"\n', "takes sigma, uniform, sigmoid, shift, flux_shift"),
        ("[training]\nflow_shift = 3.0\n", 'is ignored with timestep_sampling = "sigmoid"; sigma, shift use it'),
        ('[training]\ntimestep_sampling = "sigma"\nsigmoid_scale = 2.0\n', 'is ignored with timestep_sampling = "sigma"'),
        ('[training]\nweighting_scheme = "mode"\n', 'which only timestep_sampling = "sigma" uses; it is "sigmoid"'),
        ("[training]\nlogit_mean = 0.5\n", 'needs training.weighting_scheme = "logit_normal"'),
        ("[training]\nblocks_to_swap = 27\n", "takes at most 26"),
        ("[training]\nblocks_to_swap = 2\n[training.options]\ncpu_offload_checkpointing = true\n", "excludes training.opt"),
        ('[training.options]\ndynamo_backend = "eager"\n', "needs training.torch_compile"),
        ('[training]\ntrain = "both"\ntext_encoders = ["qwen"]\n', "has 'qwen'; did you mean qwen3?; Anima trains qwen3"),
        ('[training]\ntext_encoders = ["qwen3"]\n', "which trains none; leave one of them out"),
        ('[network]\nblocks = ["B28"]\n', "network.blocks  has 'B28'"),
        ('[network]\nblocks = ["B00-B99999999"]\n', "network.blocks  has 'B00-B99999999'"),
        ('[network.layer_dims]\n"a,b" = 4\n', "has a comma or ="),
        ('[network.layer_dims]\n"mlp" = 4\n', "matches no layer that is trained; it matches the whole of a name as blocks.0"),
        (
            '[network]\ninclude = ["llm_adapter.*"]\n',
            "matches no layer that is left out; it matches the whole of a name as x_embe",
        ),
        ('[network]\ninclude = [".*mlp.layer1"]\n', "matches no layer that is left out"),
        ('[network]\nexclude = ["final_layer.*"]\n', "matches no layer that is trained"),
        ('[network]\nfamily = "locon"\nblocks = ["B00"]\n', "locon of LyCORIS chooses layers by network.preset"),
        ('[network.args]\nexclude_patterns = ".*"\n', "set network.exclude instead"),
        ("[training.options]\ncpu_offload_checkpointing = true\nunsloth_offload_checkpointing = true\n", "excludes cpu_off"),
        ("[dataset]\nshuffle_caption = true\n", "changes captions"),
        ("[training.options]\ncaption_tag_dropout_rate = 0.1\n", "changes captions"),
        ('[training]\ntrain = "both"\n', "cache_text_encoder_outputs  excludes training of qwen3"),
        ('[training.options]\nqwen3 = "x"\n', "set base.files.qwen3 instead"),
        ("[training.options]\nv2 = true\n", "set base.architecture instead"),
        ('[network]\nfamily = "locon"\n', "LyCORIS trains the final layer only"),
        ('[network]\nfamily = "loha"\n', "of LyCORIS locon, lokr train Anima"),
        ("[network]\nconv_dim = 8\n", "has no 3x3 convolutions"),
        ('[network.args]\nblock_dims = "1"\n', "takes no such argument"),
        ('block_weights = "ALL"\n[merge]\ntool = "sd-scripts"\n', "does not read LoRAs of Anima"),
        ("[dataset]\nbucket_reso_steps = 24\n", "multiples of 16 only"),
    ],
)
def test_the_limits_of_another_architecture_are_checked(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in anima_problems(tmp_path, text)


def test_a_sampling_without_its_scale_is_no_problem(tmp_path: Path) -> None:
    assert "sigmoid_scale" not in anima_problems(tmp_path, '[training]\ntimestep_sampling = "sigma"\n')


def test_t5_is_trained_with_the_text_encoders_only(tmp_path: Path) -> None:
    for train, cache, encoders, expected in (
        ("unet", "no", '["clip_l", "t5xxl"]', "which trains none"),
        ("both", "memory", '["clip_l", "t5xxl"]', "excludes training of t5xxl"),
        ("both", "memory", '["clip_l"]', ""),
        ("both", "no", '["t5xxl"]', "lacks clip_l, which the script trains in any case"),
        ("both", "no", '["clip_l", "t5xxl"]', ""),
    ):
        more = f'[training]\ntrain = "{train}"\ncache_text_encoder_outputs = "{cache}"\ntext_encoders = {encoders}\n'
        recipe = variant(tmp_path, "_algorithms/lora1x1", "_base/flux", text=more)
        reasons = "\n".join(map(str, sdscripts.check(recipe)))
        assert expected in reasons
        assert bool(reasons) == bool(expected)


@pytest.mark.parametrize(
    ("part", "text", "expected"),
    [
        ("flux", '[training]\nweighting_scheme = "cosmap"\n', 'only model_prediction_type = "sigma_scaled" uses; it is "raw"'),
        ("flux", "[training]\nblocks_to_swap = 36\n", "takes at most 35"),
        (
            "flux",
            '[base]\narchitecture = "flux-schnell"\n',
            "training.guidance_scale  the trainer of FLUX.1-schnell ignores it",
        ),
        ("flux", '[network]\nexclude = ["x"]\n', "networks.lora_flux of FLUX.1-dev takes none; it takes network.blocks"),
        ("chroma", '[training]\ntrain = "both"\n', 'Chroma trains no text encoder: set "unet"'),
        ("sdxl", "[training]\ntext_encoder_lr = [1e-5, 0.0]\n", "has 2 rates; the trainer of SDXL takes one for all text enc"),
        (
            "flux",
            '[training]\ntrain = "both"\ntext_encoder_lr = [1e-5, 0, 0]\n',
            "takes one for each of clip_l, t5xxl, or one",
        ),
        ("flux", '[training]\nattention = "xformers"\n', 'is "xformers", which the trainer of FLUX.1-dev ignores; set "sdpa"'),
        ("lumina", '[training]\nattention = "xformers"\n', "which the trainer of Lumina 2 ignores"),
        ("flux", "[training.options]\nweighted_captions = true\n", "is not for FLUX.1-dev: its tokenizer takes no weights"),
        ("anima", "[training.options]\nweighted_captions = true\n", "is not for Anima: its tokenizer takes no weights"),
        ("flux", "[training.options]\nsplit_mode = true\n", "set training.blocks_to_swap instead"),
        ("chroma", "[training.options]\ncpu_offload_checkpointing = true\n", "its blocks do not offload their checkpoints"),
        ("flux", '[network]\nblocks = ["D19"]\n', "FLUX.1-dev has D00 to D18, S00 to S37, and ranges as D00-D01"),
        ("sdxl", '[network]\nblocks = ["IN04"]\n', "takes none; network.args.block_dims takes 23 ranks"),
        (
            "sdxl",
            '[training]\ntrain = "unet"\ncache_text_encoder_outputs = "disk"\n[dataset]\nshuffle_caption = true\n',
            "changes",
        ),
        ("flux", '[network]\nfamily = "locon"\n', "training.fp8_base  holds weights in 8 bits, in which LyCORIS cannot"),
        ("hunyuan-image", '[network]\nfamily = "locon"\n', "training.options.fp8_scaled  holds weights in 8 bits"),
    ],
)
def test_what_an_architecture_ignores_or_lacks_is_named(tmp_path: Path, part: str, text: str, expected: str) -> None:
    recipe = variant(
        tmp_path, "_algorithms/lora1x1", f"_base/{part}", text='unset = ["training.text_encoder_lr", "block_weights"]\n' + text
    )
    assert expected in "\n".join(map(str, sdscripts.check(recipe)))


def test_the_embedded_engine_names_settings_of_transformers(tmp_path: Path) -> None:
    text = '[training]\noptimizer = "AdamW"\nblocks_to_swap = 2\ntext_encoders = ["clip_l"]\n[network]\nblocks = ["B00"]\n'
    found = problems(tmp_path, text, "_algorithms/lora1x1", engine="embedded")
    for key in ("training.blocks_to_swap", "training.text_encoders", "network.blocks"):
        assert f"{key}  the embedded engine" in found


def test_the_adapter_of_anima_is_trained_by_an_argument(tmp_path: Path) -> None:
    text = "[network.args]\ntrain_llm_adapter = true\n"
    assert anima_problems(tmp_path, text) == ""
    assert "takes no such argument" in problems(tmp_path, text, "_algorithms/lora1x1")


def changed(recipe: Recipe, **tables: dict[str, Any]) -> Recipe:
    """Return a recipe with other values in some of its tables, unchecked."""
    return recipe.model_copy(update={name: getattr(recipe, name).model_copy(update=table) for name, table in tables.items()})


def options(**values: Any) -> dict[str, dict[str, Any]]:
    return {"training": {"options": values}}


BF16 = {"mixed_precision": "bf16"}
RATES = {"text_encoder_lr": None, "unet_lr": None}


@pytest.mark.parametrize(
    ("tables", "keys"),
    [
        ({}, []),
        (options(adaptive_noise_scale=0.1, noise_offset=0.1), []),
        (options(adaptive_noise_scale=0.0), []),
        (options(scale_v_pred_loss_like_noise_pred=True, v_parameterization=True), []),
        (options(v_pred_like_loss=0.5), []),
        (options(v_pred_like_loss=0.5, v_parameterization=True), ["training.options.v_pred_like_loss"]),
        (options(full_fp16=True), []),
        (options(full_bf16=True), ["training.options.full_bf16"]),
        ({"training": {**BF16, "options": {"full_bf16": True}}}, []),
        ({"training": {**BF16, "options": {"full_fp16": True}}}, ["training.options.full_fp16"]),
        ({"training": {"optimizer": "AdaFactor", "options": {"fused_backward_pass": True}}}, []),
        (options(fused_backward_pass=False), []),
        ({"training": {"sample_every_n_steps": 50, "options": {"sample_at_first": True}}}, []),
        (options(base_weights=("x",)), []),  # with conv_dim
        ({"network": {"conv_dim": None}, **options(base_weights=("x",))}, ["training.options.base_weights"]),
        ({"dataset": {"bucket_reso_steps": 128}}, []),
        ({"dataset": {"bucket_reso_steps": 96}}, ["dataset.bucket_reso_steps"]),
        ({"dataset": {"bucket_reso_steps": 96, "enable_bucket": False}}, []),
        ({"network": {"args": {"block_dims": ",".join("4" * 25)}}}, []),
        ({"network": {"args": {"block_dims": ",".join("4" * 24)}}}, ["network.args.block_dims"]),
        ({"training": {"optimizer": "lion"}}, []),
        ({"training": {"optimizer": "NAdam"}}, []),
        ({"training": {"optimizer": "nadam"}}, ["training.optimizer"]),
        ({"training": {"optimizer": "torch.optim.LBFGS"}}, []),
        ({"training": {"optimizer": "Prodigy", "learning_rate": 1.0, **RATES}}, []),
        ({"training": {"optimizer": "prodigyplus.Prodigy", "learning_rate": 0.1, **RATES}}, ["training.learning_rate"]),
        ({"training": {"optimizer": "DAdaptAdam", "learning_rate": 0.2, **RATES}}, []),
        (
            {"training": {"optimizer": "Prodigy", "learning_rate": 1.0, "text_encoder_lr": None, "unet_lr": 0.5}},
            ["training.unet_lr"],
        ),
        (
            {"training": {"optimizer": "Prodigy", "learning_rate": None, "text_encoder_lr": 0.1, "unet_lr": None}},
            ["training.text_encoder_lr"],
        ),
        (
            {
                "training": {"optimizer": "Prodigy", "learning_rate": 1.0, **RATES},
                "network": {"args": {"loraplus_unet_lr_ratio": 2, "loraplus_lr_ratio": 1}},
            },
            ["network.args.loraplus_unet_lr_ratio"],
        ),
        ({"training": {"lr_scheduler": "constant", "state_every_n_steps": None}}, []),
        ({"training": {"lr_scheduler": "constant"}}, ["training.state_every_n_steps"]),
        ({"training": {"lr_scheduler": "linear"}}, []),
        ({"training": {"lr_scheduler": "linear", "lr_warmup_steps": 10}}, []),
        (
            {"training": {"lr_warmup_steps": 10, "options": {"lr_scheduler_type": "X"}, "state_every_n_steps": None}},
            ["training.lr_warmup_steps"],
        ),
        ({"training": {"gradient_accumulation_steps": 1}}, []),
        ({"training": {"gradient_accumulation_steps": 2}}, ["training.state_every_n_steps"]),
        ({"training": {"gradient_accumulation_steps": 2, "state_every_n_steps": None}}, []),
        ({"training": {"save_every_n_steps": None}}, []),
        ({"training": {"save_every_n_steps": 100}}, ["training.state_every_n_steps"]),
        ({"training": {"optimizer": "AdamWScheduleFree"}}, ["training.state_every_n_steps"]),
        (
            {"training": {"lr_scheduler": "piecewise_constant", "state_every_n_steps": None}},
            ["training.lr_scheduler"],
        ),
        (
            {
                "training": {
                    "lr_scheduler": "piecewise_constant",
                    "state_every_n_steps": None,
                    "options": {"lr_scheduler_args": ("step_rules=1:0.5,1",)},
                }
            },
            [],
        ),
    ],
)
def test_only_combinations_that_do_not_train_are_named(tables: dict[str, dict[str, Any]], keys: list[str]) -> None:
    assert [key for key, _ in constraints.problems(changed(load("krnk-lora3x3"), **tables))] == keys


@pytest.mark.parametrize(
    ("weights", "train", "named"),
    [
        ("FACE", "both", False),
        ("ALL", "both", False),
        ({"BASE": 0.0}, "unet", True),
        ({"BASE": 0.0}, "both", False),
        ({"MID": 0.0}, "text_encoder", True),
        ({"MID1": 0.0}, "unet", False),
        (None, "both", False),
    ],
)
def test_block_weights_change_a_layer_that_is_trained(weights: Any, train: str, named: bool) -> None:
    recipe = changed(load("krnk-lora3x3"), training={"train": train}).model_copy(update={"block_weights": weights})
    assert ("block_weights" in [key for key, _ in constraints._block_weights(recipe)]) == named
