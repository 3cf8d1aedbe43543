"""Values that a recipe may hold, but not together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from recipe_files import RECIPE, problems

if TYPE_CHECKING:
    from pathlib import Path

COMBINATIONS = {
    "a pattern that is none": (
        '[network.layer_dims]\n"(" = 4\n',
        "network.layer_dims\n    '(' is not a regular expression: missing ), unterminated subpattern at position 0",
    ),
    "color_aug with cached latents": (
        '[dataset]\ncolor_aug = true\n[training]\ncache_latents = "memory"\n',
        'training.cache_latents\n    is "memory" with dataset.color_aug, which changes every image anew',
    ),
    "a resize of a LoHa": (
        '[network]\nfamily = "loha"\n[resize]\nsv_ratio = 16\n',
        "resize\n    a loha has no single pair of factors to compress; lora and locon do",
    ),
    "a resize of a Tucker LoCon": (
        "[network]\ntucker = true\nconv_dim = 4\n[resize]\nsv_ratio = 16\n",
        "resize\n    a Tucker LoCon has three factors; compressing it needs `convert --to plain` first",
    ),
    "two ways to resize": ("[resize]\nsv_ratio = 16\nsv_fro = 0.9\n", "resize\n    takes one of sv_ratio, sv_fro"),
    "alpha 0": ("[network]\nalpha = 0\n", "network.alpha\n    is 0; should be greater than 0"),
    "conv_alpha without conv_dim": (
        "[network]\nconv_alpha = 4\n",
        "network.conv_alpha\n    needs network.conv_dim: without it no convolution is trained",
    ),
    "conv_dim of full": (
        '[network]\nfamily = "full"\nconv_dim = 4\n',
        "network.conv_dim\n    full trains whole weights and has no rank of its own for convolutions",
    ),
    "Tucker of networks.lora": (
        '[network]\nfamily = "lora"\ntucker = true\nconv_dim = 4\n',
        "network.tucker\n    lora has no Tucker convolutions; locon, loha, lokr do",
    ),
    "a family that is none": (
        '[network]\nfamily = "lora4x4"\n',
        'network.family\n    is "lora4x4"; takes lora, locon, loha, lokr, dylora, glora, full, diag-oft or boft',
    ),
    "a value that is an option": (
        '[training]\nlog_prefix = "--resume"\n',
        "training.log_prefix\n    is '--resume'; a value that begins with - would be read as an option",
    ),
    "an option's value that is an option": (
        '[resize]\nsv_ratio = 8\ntool = "sd-scripts"\noptions = {device = "--save_to=x"}\n',
        "resize.options.device\n    is '--save_to=x'; a value that begins with - would be read as an option",
    ),
    "persistent workers without workers": (
        "[training]\npersistent_workers = true\ndata_loader_workers = 0\n",
        "training.persistent_workers\n    needs training.data_loader_workers > 0",
    ),
    "a warm-up of all steps": (
        '[training]\nlr_scheduler = "linear"\nlr_warmup_steps = 10\n',
        "training.lr_warmup_steps\n    is 10 of 10 steps: the rate never gets there",
    ),
    "clip_skip of SDXL": (
        '[base]\narchitecture = "sdxl"\nclip_skip = 2\n',
        "base.clip_skip\n    SDXL always takes the last but one layer of its text encoders; remove it",
    ),
    "a rate of what is not trained": (
        '[training]\ntrain = "text_encoder"\nunet_lr = 1e-4\n',
        'training.unet_lr\n    training.train = "text_encoder" does not train the U-Net',
    ),
    "a tagger without a model": (
        '[dataset.sources.cat]\ncaptions = "tagger"\n',
        'dataset.sources.cat.captions\n    is "tagger"; set dataset.tagger_model to its ONNX file',
    ),
    "a picture with an odd side": (
        "[render]\nwidth = 516\n",
        "render.width\n    is 516; sides of images are multiples of 8",
    ),
    "a prompt with an odd side": (
        '[render.prompts.front]\nprompt = "x"\nheight = 500\n',
        "render.prompts.front.height\n    is 500; sides of images are multiples of 8",
    ),
    "a rate of an untrained text encoder": (
        '[training]\ntrain = "unet"\ntext_encoder_lr = 1e-4\n',
        'training.text_encoder_lr\n    training.train = "unet" does not train the text encoder',
    ),
    "a warm-up of a constant rate": (
        '[training]\nlr_scheduler = "constant"\nlr_warmup_steps = 1\n',
        'training.lr_warmup_steps\n    the constant schedule has no warm-up; use "constant_with_warmup"',
    ),
    "buckets whose smallest is the largest": (
        "[dataset]\nmin_bucket_reso = 1024\nmax_bucket_reso = 512\n",
        "dataset.min_bucket_reso\n    is larger than dataset.max_bucket_reso",
    ),
    "captions without a dot": (
        '[dataset]\ncaption_extension = "txt"\n',
        'dataset.caption_extension\n    is "txt"; begins with a dot',
    ),
    "classes from large to small": (
        "[dataset]\nresolution_classes = [512, 256]\n",
        "dataset.resolution_classes\n    takes sides in pixels, each once, from small to large",
    ),
    "a batch size of no class": (
        "[dataset.batch_size]\ndefault = 1\nlarge = 1\n",
        "dataset.batch_size.large\n    takes WIDTHxHEIGHT, as 512x768, or default",
    ),
    "a batch size for one class alone": (
        "[dataset.batch_size]\n512x512 = 1\n",
        "dataset.batch_size\n    needs `default` for the other classes",
    ),
    "neither originals nor sizes": (
        "[dataset]\noriginals = false\nsizes = []\n",
        "dataset.originals\n    is false and dataset.sizes is empty: nothing to train on",
    ),
    "regularization alone": (
        "[dataset.sources.cat]\nregularization = true\n",
        "dataset.sources\n    no source with images of the subject\n    (set in _base/base.toml)",
    ),
    "options of a merge by our own tool": (
        "[merge]\noptions = {device = 1}\n",
        'merge.options\n    are those of sd-scripts; set merge.tool = "sd-scripts", or leave them out',
    ),
    "options of a resize by our own tool": (
        "[resize]\nsv_ratio = 8\noptions = {device = 1}\n",
        'resize.options\n    are those of sd-scripts; set resize.tool = "sd-scripts", or leave them out',
    ),
    "a resize that says nothing": (
        "[resize]\n",
        "resize\n    has neither sv_ratio, sv_fro, sv_cumulative, size_mb nor new_rank",
    ),
    "block weights of OFT": (
        'block_weights = "FACE"\n[network]\nfamily = "diag-oft"\n',
        (
            'block_weights\n    diag-oft cannot be scaled by a tensor; leave them out (unset = ["block_weights"]), '
            "or train another family"
        ),
    ),
    "a rate of 0": (
        "[training]\nlearning_rate = 0.0\n",
        "training.learning_rate\n    is 0 for all trained parts: nothing would be trained",
    ),
    "a cover that is no prompt": (
        '[release]\ncover = "frnt"\n[render.prompts.front]\nprompt = "cat"\n',
        'release.cover\n    is "frnt"; did you mean front?; names one of render.prompts',
    ),
    "a retry of an unknown key": (
        "[guards]\nretry = [{precision = 1}]\n",
        "guards.retry.1\n    changes training.precision: extra inputs are not permitted",
    ),
    "a retry with a wrong value": (
        "[guards]\nretry = [{seed = 2}, {learning_rate = 0.0}]\n",
        "guards.retry.2\n    makes training.learning_rate wrong: it is 0 for all trained parts: nothing would be trained",
    ),
    "dora and block weights": (
        'block_weights = "FACE"\n[network.args]\ndora_wd = true\n',
        (
            "block_weights\n    a locon with dora_wd cannot be scaled by a tensor; "
            'leave them out (unset = ["block_weights"]), or train another family'
        ),
    ),
    "dora and resize": (
        "[network.args]\ndora_wd = true\n[resize]\nnew_rank = 4\n",
        "resize\n    dora_wd saves more than a product of factors; leave one of them out",
    ),
    "negative weights as of 2023": (
        f'block_weights = [{", ".join(["-1"] * 26)}]\n[merge]\ncompat = "supermerger-2023"\n',
        "block_weights\n    negative weights are an error in supermerger-2023; leave merge.compat out",
    ),
}


@pytest.mark.parametrize("name", COMBINATIONS)
def test_impossible_combinations(root: Path, name: str) -> None:
    text, message = COMBINATIONS[name]
    assert problems(root, RECIPE + text) == f"cat.toml: {message}\n1 problem. Nothing was run."
