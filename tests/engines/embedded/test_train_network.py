"""The embedded trainer, for real, on a model of a few thousand parameters."""

from __future__ import annotations

import hashlib
import json
import math
import sys
import types
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save

import embedded_tiny as tiny
from orchestrator.engines.embedded.trainer import loss
from orchestrator.engines.embedded.trainer.train_network import main

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Place:
    """A model, a preset and a dataset, shared by the tests of this file."""

    def __init__(self, root: Path) -> None:
        self.base = tiny.model(root / "base")
        self.preset = root / "preset.toml"
        self.preset.write_text(tiny.PRESET)
        self.folder = tiny.pictures(root / "krnk girl_f0032")
        self.toml = tiny.dataset(root / "set.toml", self.folder, general="flip_aug = true\ncolor_aug = true")

    def train(self, out: Path, *more: str, **options: Any) -> int:
        return main(tiny.arguments(self.base, self.toml, out, *more, **options))


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """A model this small only loses by threads."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("place"))


@pytest.fixture(scope="module")
def trained(place: Place, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    out = tmp_path_factory.mktemp("trained")
    networks = {"lora": tiny.LORA, "locon": tiny.locon(place.preset, "bypass_mode=True"), "loha": tiny.loha(place.preset)}
    for name, words in networks.items():
        assert place.train(out, *words, output_name=name, max_train_steps=3) == 0
    return {name: out / f"{name}.safetensors" for name in networks}


def metadata(file: Path) -> dict[str, str]:
    with safe_open(file, "pt") as opened:
        said: dict[str, str] = opened.metadata()
    return said


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
def test_keys_and_shapes_are_those_of_released_files(trained: dict[str, Path], family: str) -> None:
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
def test_something_was_learned(trained: dict[str, Path], family: str) -> None:
    zero_at_first = {"lora": "lora_up.weight", "locon": "lora_up.weight", "loha": "hada_w2_a"}[family]
    tensors = {key: value for key, value in load_file(trained[family]).items() if key.endswith(zero_at_first)}
    assert len(tensors) == 290
    assert sum(float(value.abs().max()) > 0 for value in tensors.values()) >= 280


def test_metadata_says_what_a_reader_needs(trained: dict[str, Path]) -> None:
    said = metadata(trained["locon"])
    assert said["ss_network_module"] == "lycoris.kohya"
    assert said["ss_network_dim"] == "4"
    assert said["ss_network_alpha"] == "2.0"
    assert json.loads(said["ss_network_args"])["algo"] == "locon"
    assert said["ss_output_name"] == "locon"
    assert said["ss_steps"] == "3"
    assert said["ss_epoch"] == "1"
    assert said["ss_num_train_images"] == "6"
    assert said["ss_num_batches_per_epoch"] == "3"
    assert said["ss_learning_rate"] == "0.01"
    assert said["ss_seed"] == "31337"
    assert said["ss_clip_skip"] == "2"
    assert said["ss_sd_model_name"] == "base"
    assert said["ss_base_model_version"] == "sd_v1"
    assert said["ss_optimizer"] == "torch.optim.adamw.AdamW"
    assert json.loads(said["ss_tag_frequency"]) == {"krnk girl_f0032": {"krnk": 3, "cat ears": 3}}
    assert json.loads(said["ss_dataset_dirs"]) == {"krnk girl_f0032": {"n_repeats": 2, "img_count": 3}}
    dataset = json.loads(said["ss_datasets"])[0]
    assert dataset["bucket_info"]["buckets"] == {"0": {"resolution": [32, 32], "count": 6}}
    assert dataset["subsets"][0]["flip_aug"] is True
    assert said["modelspec.architecture"] == "stable-diffusion-v1/lora"


def test_metadata_never_claims_to_be_sd_scripts(trained: dict[str, Path]) -> None:
    said = metadata(trained["lora"])
    assert "ss_sd_scripts_commit_hash" not in said
    assert said["modelspec.implementation"] == "krnk embedded"
    assert not any("sd-scripts" in value for value in said.values())


@pytest.mark.parametrize("family", ["lora", "locon", "loha"])
def test_both_hashes_follow_sd_scripts_rule(trained: dict[str, Path], family: str) -> None:
    said = metadata(trained[family])
    data = trained[family].read_bytes()
    body = data[8 + int.from_bytes(data[:8], "little") :]
    assert said["sshs_model_hash"] == hashlib.sha256(body).hexdigest()
    plain = save(load_file(trained[family]), {key: value for key, value in said.items() if key.startswith("ss_")})
    assert said["sshs_legacy_hash"] == hashlib.sha256(plain[0x100000:0x110000]).hexdigest()[:8]


def test_banner_and_progress(place: Place, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert place.train(tmp_path, *tiny.LORA, "--sdpa", max_train_epochs=2, gradient_accumulation_steps=2) == 0
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


@pytest.mark.parametrize("family", ["lora", "loha", "glora", "lokr", "boft", "diag-oft", "dylora"])
def test_resumed_run_equals_the_uninterrupted_one(place: Place, tmp_path: Path, family: str) -> None:
    words = {"lora": tiny.LORA, "loha": tiny.loha(place.preset)}.get(family) or (
        *("--network_module", "lycoris.kohya", "--network_dim", "8"),
        *("--network_args", f"algo={family}", "conv_dim=8"),
    )
    whole, again = tmp_path / "whole", tmp_path / "again"
    saving = ("--save_state", "--save_every_n_steps", "3", *words)
    assert place.train(whole, *saving, max_train_steps=7) == 0
    state = whole / "krnk-step00000003-state"
    assert json.loads((state / "train_state.json").read_text())["current_step"] == 3
    assert place.train(again, *words, "--resume", str(state), "--skip_until_initial_step", max_train_steps=7) == 0
    first, second = load_file(whole / "krnk.safetensors"), load_file(again / "krnk.safetensors")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert metadata(again / "krnk.safetensors")["ss_steps"] == "7"


def test_resume_refuses_what_does_not_belong_to_it(place: Place, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert place.train(tmp_path, *tiny.LORA, "--save_state", "--save_every_n_steps", "2", max_train_steps=2) == 0
    state = str(tmp_path / "krnk-step00000002-state")
    resume = ("--resume", state, "--skip_until_initial_step")
    for words, options, message in (
        (("--resume", state), {}, "needs --skip_until_initial_step"),
        (resume, {"seed": 1}, "was saved with seed 31337, now it is 1"),
        (resume, {"max_train_steps": 2}, "should be greater than initial step: 2 vs 2"),
        (resume, {"network_dim": 2}, "the state belongs to another network or optimizer"),
        (("--resume", str(tmp_path), "--skip_until_initial_step"), {}, "not a saved state of the embedded engine"),
    ):
        capfd.readouterr()
        assert place.train(tmp_path, *tiny.LORA, *words, **options) == 2
        assert message in capfd.readouterr().err


def test_old_checkpoints_and_states_go(place: Place, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ("--save_state", "--save_every_n_steps", "1", "--save_last_n_steps", "1", *tiny.LORA)
    assert place.train(tmp_path, *words, max_train_steps=4) == 0
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert kept == [
        "krnk-state",
        "krnk-step00000003-state",
        "krnk-step00000003.safetensors",
        "krnk-step00000004-state",
        "krnk-step00000004.safetensors",
        "krnk.safetensors",
    ]
    assert f"removing old checkpoint: {tmp_path}/krnk-step00000002.safetensors" in capfd.readouterr().out


def test_a_loss_that_is_no_number_stops_at_once(place: Place, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert place.train(tmp_path, *tiny.LORA, learning_rate=1e30, max_train_steps=50) == 1
    out, err = capfd.readouterr()
    assert "the loss is nan; stopped" in err or "the loss is inf; stopped" in err
    assert "50/50" not in err
    assert "model saved." not in err
    assert "saving checkpoint" not in out
    assert list(tmp_path.iterdir()) == []


def test_continue_from_a_file(
    place: Place, trained: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ("--network_weights", str(trained["loha"]), "--dim_from_weights", *tiny.loha(place.preset))
    assert place.train(tmp_path, *words, network_dim=2, max_train_steps=1, learning_rate=1e-9, text_encoder_lr=1e-9) == 0
    assert f"load network weights from {trained['loha']}" in capfd.readouterr().out
    before, after = load_file(trained["loha"]), load_file(tmp_path / "krnk.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.allclose(before[key].float(), after[key].float(), atol=1e-5) for key in before)
    wrong = ("--network_weights", str(trained["loha"]), *tiny.LORA)
    assert place.train(tmp_path, *wrong) == 2
    assert "does not fit this network" in capfd.readouterr().err


def test_halves_that_do_not_train(place: Place, tmp_path: Path) -> None:
    assert place.train(tmp_path, *tiny.LORA, "--network_train_unet_only", max_train_steps=1, output_name="unet") == 0
    assert all(key.startswith("lora_unet_") for key in load_file(tmp_path / "unet.safetensors"))
    assert place.train(tmp_path, *tiny.LORA, max_train_steps=2, output_name="zero", text_encoder_lr=0) == 0
    tensors = load_file(tmp_path / "zero.safetensors")
    ups = {key: float(value.abs().max()) for key, value in tensors.items() if key.endswith("lora_up.weight")}
    assert all(size == 0 for key, size in ups.items() if key.startswith("lora_te_"))
    assert any(size > 0 for key, size in ups.items() if key.startswith("lora_unet_"))


def test_debiased_estimation_weighs_by_the_root_of_signal_to_noise() -> None:
    noise = loss.NoiseSchedule(torch.tensor([0.9999, 0.8, 0.2]), velocity=False)
    found = loss.debiased(torch.ones(3), noise, torch.arange(3))
    assert found.tolist() == pytest.approx([1000**-0.5, 0.5, 2.0])
    velocity = loss.debiased(torch.ones(3), loss.NoiseSchedule(noise.alphas, velocity=True), torch.arange(3))
    assert velocity.tolist() == pytest.approx([1 / 1001, 0.2, 0.8])


def test_other_settings_train_too(place: Place, tmp_path: Path) -> None:
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
    assert place.train(tmp_path, *tiny.LORA, *more, *ada, **options) == 0
    file = tmp_path / "krnk.safetensors"
    assert {tensor.dtype for tensor in load_file(file).values()} == {torch.float32}
    assert "ss_tag_frequency" not in metadata(file)
    assert all(bool(torch.isfinite(tensor).all()) for tensor in load_file(file).values())


def test_reports(place: Place, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("krnk --w 32 --h 32 --s 2 --d 5\n")
    out, logs = tmp_path / "out", tmp_path / "logs"
    words = (
        "--sample_prompts",
        str(prompts),
        "--sample_every_n_steps",
        "2",
        "--logging_dir",
        str(logs),
        "--log_prefix",
        "krnk_",
    )
    assert place.train(out, *tiny.LORA, *words, max_train_steps=2) == 0
    assert len(list((out / "sample").glob("krnk_000002_00_*_5.png"))) == 1
    events = list(logs.glob("krnk_*/network_train/events.*"))
    assert len(events) == 1
    assert b"loss/current" in events[0].read_bytes()


def test_wandb_gets_what_tensorboard_gets(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logged: list[tuple[int, set[str]]] = []
    began: dict[str, Any] = {}

    class Run:
        def log(self, said: dict[str, float], step: int) -> None:
            logged.append((step, set(said)))

        def finish(self) -> None:
            logged.append((0, set()))

    def init(**said: Any) -> Run:
        began.update(said)
        return Run()

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init))
    words = ("--logging_dir", str(tmp_path / "logs"), "--log_with", "all", "--wandb_run_name", "krnk")
    assert place.train(tmp_path / "out", *tiny.LORA, *words, max_train_steps=2) == 0
    assert began["project"] == "network_train"
    assert began["name"] == "krnk"
    assert [step for step, _ in logged] == [1, 2, 0]
    assert {"loss/current", "loss/average", "lr/unet"} <= logged[0][1]
    assert len(list((tmp_path / "logs").glob("*/network_train/events.*"))) == 1


@pytest.mark.parametrize(
    "case",
    [
        (tiny.LORA, {"optimizer_type": "AdamW8bit"}, "use --optimizer_type AdamW"),
        (tiny.LORA, {"optimizer_type": "AdaFaktor"}, "AdaFaktor is unknown; did you mean Adafactor?"),
        (tiny.LORA, {"lr_scheduler": "cosin"}, "cosin is unknown; did you mean cosine?"),
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
    place: Place, tmp_path: Path, capfd: pytest.CaptureFixture[str], case: tuple[tuple[str, ...], dict[str, Any], str]
) -> None:
    words, options, message = case
    assert place.train(tmp_path, *words, **options) == 2
    assert message in capfd.readouterr().err


def test_unknown_options_are_errors(place: Place, tmp_path: Path) -> None:
    for word in ("--train_batch_size=2", "--max_train=5"):
        with pytest.raises(SystemExit) as stopped:
            place.train(tmp_path, *tiny.LORA, word)
        assert stopped.value.code == 2


def test_what_is_not_there(place: Place, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert place.train(tmp_path, *tiny.LORA, pretrained_model_name_or_path=tmp_path) == 3
    assert "not a model in Diffusers layout" in capfd.readouterr().err
    if not torch.cuda.is_available():
        assert place.train(tmp_path, *tiny.LORA, mixed_precision="fp16") == 3
        assert "fp16 mixed precision requires a GPU" in capfd.readouterr().err


def test_average_loss_is_over_one_epoch(place: Place, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert place.train(tmp_path, *tiny.LORA, max_train_steps=3) == 0
    shown = [piece.split("avr_loss=")[1].split("]")[0] for piece in capfd.readouterr().err.split("\r") if "avr_loss=" in piece]
    assert shown
    assert all(math.isfinite(float(value)) for value in shown)
