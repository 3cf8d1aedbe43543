"""Record short runs of the real sd-scripts on a CPU, for tests that read its logs and files.

``python record.py SD_SCRIPTS FOLDER`` (sd-scripts' own Python) trains in FOLDER and writes the recordings beside this file.
``python record.py train SD_SCRIPTS ARGUMENTS`` is the trainer itself, on a U-Net of a tenth of the width.
"""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
WRITER = HERE.parents[2] / "orchestrator" / "engines" / "sdscripts" / "write_tokenizer.py"
CHANNELS = (32, 64, 128, 128)
"""Width of the blocks of the U-Net; SD1.5 has (320, 640, 1280, 1280)."""
HIDDEN = 64
"""Width of the text encoder; SD1.5 has 768."""
PRESET = """enable_conv = true
unet_target_module = ["Transformer2DModel", "ResnetBlock2D", "Downsample2D", "Upsample2D"]
unet_target_name = []
text_encoder_target_module = ["CLIPAttention", "CLIPMLP"]
text_encoder_target_name = []
"""
DATASET = """[general]
enable_bucket = {bucket}
bucket_no_upscale = true
bucket_reso_steps = 64
min_bucket_reso = 64
color_aug = true
flip_aug = true
caption_extension = ".txt"
[[datasets]]
resolution = 64
batch_size = 1
[[datasets.subsets]]
image_dir = "{images}"
class_tokens = "krnk girl"
num_repeats = 4
"""
LORA = ["--network_module", "networks.lora", "--network_args", "conv_dim=1", "conv_alpha=1"]
LYCORIS = ["--network_module", "lycoris.kohya", "--network_args", "conv_dim=1", "conv_alpha=1", "use_tucker=True"]
PRESET_ARGUMENT = "preset=presets/2023-03.toml"
STATES = ["--save_every_n_steps", "2", "--save_state", "--logging_dir", "logs", "--log_with", "tensorboard"]
RESUMED = ["--resume", "output/lora3x3-step00000002-state", "--skip_until_initial_step", "--console_log_simple"]
RUNS: dict[str, list[str]] = {
    "lora": ["--network_module", "networks.lora", "--max_train_steps", "2", "--learning_rate", "1e-4"],
    "lora3x3": [*LORA, "--max_train_steps", "6", "--learning_rate", "1e-4", *STATES],
    "lora3x3-resumed": [*LORA, "--max_train_steps", "6", "--learning_rate", "1e-4", *RESUMED],
    "locon": [
        *LYCORIS,
        "algo=locon",
        "bypass_mode=True",
        PRESET_ARGUMENT,
        "--max_train_steps",
        "2",
        "--learning_rate",
        "1e-4",
    ],
    "loha": [*LYCORIS, "algo=loha", PRESET_ARGUMENT, "--max_train_steps", "2", "--learning_rate", "1e-4"],
    "nan": [*LORA, "--max_train_steps", "4", "--learning_rate", "1e30"],
    "nodata": [*LORA, "--max_train_steps", "2", "--learning_rate", "1e-4"],
}
"""Name -> arguments of a run; `arguments` adds those that all have."""


def arguments(name: str) -> list[str]:
    """Return the arguments of train_network.py for a run."""
    common = ["--pretrained_model_name_or_path", "base_sd15", "--tokenizer_cache_dir", "tokenizers", "--output_dir", "output"]
    common += ["--dataset_config", "data/empty.toml" if name == "nodata" else "data/4_krnk/4_krnk.toml"]
    common += ["--output_name", name, "--save_model_as", "safetensors", "--save_precision", "fp16", "--mixed_precision", "no"]
    common += ["--network_dim", "1", "--network_alpha", "1", "--text_encoder_lr", "4.4e-5", "--optimizer_type", "AdamW"]
    common += ["--lr_scheduler", "cosine_with_restarts", "--lr_scheduler_num_cycles", "1", "--seed", "31337"]
    return [*common, "--clip_skip", "2", "--max_data_loader_n_workers", "0", *RUNS[name]]


def train(checkout: str, argv: list[str]) -> None:
    """Run train_network.py in this process, with a U-Net of CHANNELS instead of SD1.5's."""
    sys.path.insert(0, checkout)
    from library import original_unet  # noqa: PLC0415 - of the checkout

    original_unet.BLOCK_OUT_CHANNELS = CHANNELS
    original_unet.TIMESTEP_INPUT_DIM, original_unet.TIME_EMBED_DIM = CHANNELS[0], CHANNELS[0] * 4
    sys.argv = [str(Path(checkout, "train_network.py")), *argv]
    runpy.run_path(sys.argv[0], run_name="__main__")


def model(folder: Path) -> None:
    """Write a small random SD1.5 in Diffusers layout and its tokenizer."""
    import torch  # noqa: PLC0415
    from diffusers import (  # noqa: PLC0415
        AutoencoderKL,
        PNDMScheduler,
        StableDiffusionPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer  # noqa: PLC0415

    words = folder / "tokenizers" / "openai_clip-vit-large-patch14"
    runpy.run_path(str(WRITER))["write"](words)
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=64,
        block_out_channels=CHANNELS,
        cross_attention_dim=HIDDEN,
        attention_head_dim=8,
        down_block_types=(*("CrossAttnDownBlock2D",) * 3, "DownBlock2D"),
        up_block_types=("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
    )
    vae = AutoencoderKL(
        block_out_channels=(32, 32, 32, 32),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=4,
    )
    text = CLIPTextConfig(
        hidden_size=HIDDEN,
        intermediate_size=4 * HIDDEN,
        num_hidden_layers=12,
        num_attention_heads=4,
        projection_dim=HIDDEN,
        bos_token_id=49406,
        eos_token_id=49407,
    )
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(text),
        tokenizer=CLIPTokenizer.from_pretrained(words),
        unet=unet,
        scheduler=PNDMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder / "base_sd15")


def dataset(folder: Path) -> None:
    """Write four images of 64x64 with captions, their configuration, and one without a folder."""
    from PIL import Image  # noqa: PLC0415

    images = folder / "data" / "4_krnk" / "krnk girl_f0064"
    images.mkdir(parents=True)
    for number in range(4):
        Image.new("RGB", (64, 64), (60 * number, 120, 200 - 40 * number)).save(images / f"f{number:02}.png")
        (images / f"f{number:02}.txt").write_text("krnk, white background", "utf-8")
    (images.parent / "4_krnk.toml").write_text(DATASET.format(bucket="true", images=images.relative_to(folder)), "utf-8")
    (folder / "data" / "empty.toml").write_text(DATASET.format(bucket="false", images="data/none"), "utf-8")
    (folder / "presets").mkdir()
    (folder / "presets" / "2023-03.toml").write_text(PRESET, "utf-8")


def run(checkout: Path, folder: Path, name: str) -> int:
    """Train one run, and write its two logs."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(checkout), "PYTHONUTF8": "1"}
    argv = [sys.executable, str(HERE / "record.py"), "train", str(checkout), *arguments(name)]
    logs = [HERE / f"{name}.{stream}.log" for stream in ("stdout", "stderr")]
    with logs[0].open("wb") as out, logs[1].open("wb") as err:
        code = subprocess.run(argv, cwd=folder, env=environment, stdout=out, stderr=err, check=False).returncode
    for log in logs:
        log.write_bytes(re.sub(rb"/[\w.-]+(?:/[\w.-]+)*/(site-packages|sd-scripts)\b", rb"/\1", log.read_bytes()))
    return code


def inventory(checkout: str) -> None:
    """Write the modules that networks.lora makes for a real SD1.5: name -> outputs, inputs, kernel, is a convolution."""
    sys.path.insert(0, checkout)
    import torch  # noqa: PLC0415
    from library import original_unet  # noqa: PLC0415
    from networks import lora  # noqa: PLC0415
    from transformers import CLIPTextConfig, CLIPTextModel  # noqa: PLC0415

    text = CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)
    with torch.device("meta"):
        unet = original_unet.UNet2DConditionModel(sample_size=64, attention_head_dim=8, cross_attention_dim=768)
        network = lora.create_network(1.0, 1, 1.0, None, [CLIPTextModel(text)], unet, conv_dim="1", conv_alpha="1")
    shapes = {}
    for module in [*network.text_encoder_loras, *network.unet_loras]:
        down, up = module.lora_down.weight, module.lora_up.weight
        shapes[module.lora_name] = [up.shape[0], down.shape[1], down.shape[2] if down.dim() == 4 else 1, down.dim() == 4]
    rows = ",\n".join(f"{json.dumps(name)}: {json.dumps(shape)}" for name, shape in sorted(shapes.items()))
    (HERE / "sd15-lora-modules.json").write_text(f"{{\n{rows}\n}}\n", "utf-8")


def main() -> None:
    checkout, folder = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    model(folder)
    dataset(folder)
    for name in RUNS:
        print(name, run(checkout, folder, name))
    for name in ("lora", "lora3x3", "locon", "loha"):
        shutil.copyfile(folder / "output" / f"{name}.safetensors", HERE / f"{name}.safetensors")
    for config in ("unet", "text_encoder"):
        (HERE / "base" / config).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / "base_sd15" / config / "config.json", HERE / "base" / config / "config.json")
    state = folder / "output" / "lora3x3-step00000002-state"
    files = sorted(state.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    (HERE / "state").mkdir(exist_ok=True)
    (HERE / "state" / "files.txt").write_text("".join(f"{path.stat().st_size} {path.name}\n" for path in files), "utf-8")
    shutil.copyfile(state / "train_state.json", HERE / "state" / "train_state.json")
    (HERE / "tensorboard").mkdir(exist_ok=True)
    events = next((folder / "logs").rglob("network_train/events*"))
    shutil.copyfile(events, HERE / "tensorboard" / "events.out.tfevents.1.recorded.1.0")
    inventory(str(checkout))


if __name__ == "__main__":
    if sys.argv[1] == "train":
        train(sys.argv[2], sys.argv[3:])
    else:
        main()
