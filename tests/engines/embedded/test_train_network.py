"""The embedded trainer on a model of a few thousand parameters.

Files, output, errors.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file

import embedded_tiny as tiny
from embedded_tiny import TinyTraining
from orchestrator.engines.embedded.trainer.train_network import main

if TYPE_CHECKING:
    from pathlib import Path

FACTORS = {
    "lora": ({"lora_down.weight", "lora_up.weight", "alpha"}, {"lora_down.weight", "lora_up.weight", "alpha"}),
    "locon": (
        {"lora_down.weight", "lora_up.weight", "alpha"},
        {"lora_down.weight", "lora_mid.weight", "lora_up.weight", "alpha"},
    ),
    "loha": (
        {"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "alpha"},
        {"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2", "alpha"},
    ),
}


SHAPES = {
    ("lora", "lora_down.weight"): (4, 8, 3, 3),
    ("lora", "lora_up.weight"): (8, 4, 1, 1),
    ("locon", "lora_down.weight"): (4, 8, 1, 1),
    ("locon", "lora_mid.weight"): (4, 4, 3, 3),
    ("locon", "lora_up.weight"): (8, 4, 1, 1),
    ("loha", "hada_t1"): (4, 4, 3, 3),
    ("loha", "hada_w1_a"): (4, 8),
    ("loha", "hada_w1_b"): (4, 8),
}


@pytest.mark.parametrize("family", ["lora", "locon", "loha"])
def test_keys_and_shapes_equal_those_of_released_files(trained: dict[str, Path], family: str) -> None:
    tensors = load_file(trained[family])
    modules: dict[str, set[str]] = {}
    for key in tensors:
        name, _, part = key.partition(".")
        modules.setdefault(name, set()).add(part)
    unet = [name for name in modules if name.startswith("lora_unet_")]
    assert len(unet) == 278
    assert len(modules) == 278 + 12
    linear, kernel = FACTORS[family]
    assert modules["lora_te_text_model_encoder_layers_0_self_attn_q_proj"] == linear
    assert modules["lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_out_0"] == linear
    assert modules["lora_unet_up_blocks_3_attentions_2_transformer_blocks_0_ff_net_0_proj"] == linear
    assert modules["lora_unet_mid_block_resnets_1_time_emb_proj"] == linear
    assert modules["lora_unet_down_blocks_0_resnets_0_conv1"] == kernel
    assert modules["lora_unet_up_blocks_0_upsamplers_0_conv"] == kernel
    assert not any("conv_in" in name or "conv_out" in name or "time_embedding" in name for name in modules)
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}
    for (of, part), shape in SHAPES.items():
        if of == family:
            assert tensors[f"lora_unet_down_blocks_0_resnets_0_conv1.{part}"].shape == shape
    assert tensors["lora_unet_mid_block_resnets_1_conv2.alpha"].shape == ()
    assert float(tensors["lora_unet_mid_block_resnets_1_conv2.alpha"]) == 2.0


@pytest.mark.parametrize("family", ["lora", "locon", "loha"])
def test_training_changes_the_zero_factors(trained: dict[str, Path], family: str) -> None:
    zero_at_first = {"lora": "lora_up.weight", "locon": "lora_up.weight", "loha": "hada_w2_a"}[family]
    tensors = {key: value for key, value in load_file(trained[family]).items() if key.endswith(zero_at_first)}
    assert len(tensors) == 290
    assert sum(float(value.abs().max()) > 0 for value in tensors.values()) >= 280


def test_banner_and_progress(tiny_training: TinyTraining, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert tiny_training.train(tmp_path, *tiny.LORA, "--sdpa", max_train_epochs=2, gradient_accumulation_steps=2) == 0
    out, err = capfd.readouterr()
    for line in (
        "import network module: networks.lora",
        "override steps. steps for 2 epochs is / 指定エポックまでのステップ数: 4",
        "  num train images * repeats / 学習画像の数×繰り返し回数: 6",
        "  num batches per epoch / 1epochのバッチ数: 3",
        "  num epochs / epoch数: 2",
        "  batch size per device / バッチサイズ: 2",
        "  gradient accumulation steps / 勾配を合計するステップ数 = 2",
        "  total optimization steps / 学習ステップ数: 4",
        "epoch 1/2",
        "epoch 2/2",
        f"saving checkpoint: {tmp_path}/krnk.safetensors",
    ):
        assert line in out.splitlines()
    assert "create LoRA for Text Encoder: 12 modules." in err
    assert "create LoRA for U-Net: 278 modules." in err
    assert "bucket 0: resolution (32, 32), count: 6" in err
    assert "--sdpa: attention is PyTorch's own" in err
    assert "steps: 100%" in err
    assert "4/4 [" in err
    assert "avr_loss=" in err
    assert err.rstrip().endswith("model saved.")


def test_average_loss_is_over_one_epoch(
    tiny_training: TinyTraining, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert tiny_training.train(tmp_path, *tiny.LORA, max_train_steps=3) == 0
    shown = [piece.split("avr_loss=")[1].split("]")[0] for piece in capfd.readouterr().err.split("\r") if "avr_loss=" in piece]
    assert shown
    assert all(math.isfinite(float(value)) for value in shown)


def test_infinite_loss_stops_the_training(
    tiny_training: TinyTraining, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert tiny_training.train(tmp_path, *tiny.LORA, learning_rate=1e30, max_train_steps=50) == 1
    out, err = capfd.readouterr()
    assert "the loss is nan; stopped" in err or "the loss is inf; stopped" in err
    assert "50/50" not in err
    assert "model saved." not in err
    assert "saving checkpoint" not in out
    assert list(tmp_path.iterdir()) == []


def test_optional_settings_train(tiny_training: TinyTraining, tmp_path: Path) -> None:
    more = (
        "--min_snr_gamma",
        "5",
        "--debiased_estimation_loss",
        "--noise_offset",
        "0.05",
        "--lr_warmup_steps",
        "0.5",
        "--no_metadata",
    )
    ada = ("--optimizer_args", "relative_step=True", "scale_parameter=True", "warmup_init=False")
    options = {"optimizer_type": "Adafactor", "max_train_steps": 2, "save_precision": "float"}
    assert tiny_training.train(tmp_path, *tiny.LORA, *more, *ada, **options) == 0
    file = tmp_path / "krnk.safetensors"
    assert {tensor.dtype for tensor in load_file(file).values()} == {torch.float32}
    assert "ss_tag_frequency" not in tiny.metadata(file)
    assert all(bool(torch.isfinite(tensor).all()) for tensor in load_file(file).values())


@pytest.mark.parametrize(
    "case",
    [
        (tiny.LORA, {"optimizer_type": "AdamW8bit"}, "use --optimizer_type AdamW"),
        (tiny.LORA, {"optimizer_type": "AdaFaktor"}, "AdaFaktor is unknown; did you mean Adafactor?"),
        (tiny.LORA, {"lr_scheduler": "cosin"}, "cosin is unknown; did you mean cosine or "),
        (tiny.LORA, {"lr_scheduler": "constant", "lr_warmup_steps": 5}, "does not require `num_warmup_steps`"),
        (tiny.LORA, {"learning_rate": 0, "text_encoder_lr": 0}, "nothing would be trained"),
        (tiny.LORA, {"max_train_steps": 0}, "--max_train_steps  must be at least 1, is 0"),
        (("--network_module", "networks.lora", "--network_args", "conv_dims=4"), {}, "did you mean conv_dim?"),
        (("--network_module", "lycoris.kohya", "--network_args", "algo=lokrr"), {}, "algo lokrr is unknown"),
        (("--network_module", "lycoris.kohya", "--network_args", "preset=ful"), {}, "did you mean full?"),
        ((*tiny.LORA, "--dim_from_weights"), {}, "needs --network_weights"),
    ],
)
def test_wrong_arguments(
    tiny_training: TinyTraining,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    case: tuple[tuple[str, ...], dict[str, Any], str],
) -> None:
    words, options, message = case
    assert tiny_training.train(tmp_path, *words, **options) == 2
    assert message in capfd.readouterr().err


def test_unknown_options_are_errors(tiny_training: TinyTraining, tmp_path: Path) -> None:
    for word in ("--train_batch_size=2", "--max_train=5"):
        with pytest.raises(SystemExit) as stopped:
            tiny_training.train(tmp_path, *tiny.LORA, word)
        assert stopped.value.code == 2


def test_missing_model_or_device(tiny_training: TinyTraining, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert tiny_training.train(tmp_path, *tiny.LORA, pretrained_model_name_or_path=tmp_path) == 3
    assert "not a model in Diffusers layout" in capfd.readouterr().err
    if not torch.cuda.is_available():
        assert tiny_training.train(tmp_path, *tiny.LORA, mixed_precision="fp16") == 3
        assert "fp16 mixed precision requires a GPU" in capfd.readouterr().err


def test_dataset_without_images_is_an_error(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    toml = tiny.dataset(tmp_path / "set.toml", tmp_path / "missing")
    assert main(tiny.arguments(tmp_path / "base", toml, tmp_path / "out", *tiny.LORA)) == 2
    assert "No data found. Please verify" in capfd.readouterr().err
    assert not (tmp_path / "out").exists()
