"""Write the random models of an architecture and their tokenizers.

``launch_small.py make_small.py ARCHITECTURE FOLDER``.

Names and shapes are those of the modules that sd-scripts itself builds; without ``launch_small.py`` they have their full size.
Nothing is downloaded.
"""

from __future__ import annotations

import importlib
import json
import math
import runpy
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

WRITER = Path(__file__).resolve().parent.parent.parent / "orchestrator" / "engines" / "sdscripts" / "write_tokenizer.py"
BF16, CPU = torch.bfloat16, torch.device("cpu")
_DTYPES = {torch.bfloat16: "BF16", torch.float16: "F16"}
FULL = not any(type(finder).__name__ == "SmallFinder" for finder in sys.meta_path)
"""The sizes are those of sd-scripts."""
Shapes = dict[str, tuple[int, ...]]
# File of an architecture: the module of sd-scripts, its function that loads the file, and arguments.
FILES: dict[str, dict[str, tuple[str, str, tuple[Any, ...]]]] = {
    "anima": {
        "dit": ("anima_utils", "load_anima_model", (CPU, "x", "torch", False, CPU, BF16)),
        "vae": ("qwen_image_autoencoder_kl", "load_vae", ("x",)),
    },
    "flux": {
        "clip_l": ("flux_utils", "load_clip_l", ("x", None, "cpu")),
        "t5xxl": ("flux_utils", "load_t5xxl", ("x", None, "cpu")),
        "ae": ("flux_utils", "load_ae", ("x", BF16, "cpu")),
    },
    "sd3": {
        "clip_l": ("sd3_utils", "load_clip_l", ("x", BF16, "cpu")),
        "clip_g": ("sd3_utils", "load_clip_g", ("x", BF16, "cpu")),
        "t5xxl": ("flux_utils", "load_t5xxl", ("x", None, "cpu")),
        "vae": ("sd3_utils", "load_vae", ("x", BF16, "cpu")),
    },
    "lumina": {
        "dit": ("lumina_util", "load_lumina_model", ("x", BF16, CPU)),
        "gemma2": ("lumina_util", "load_gemma2", ("x", BF16, "cpu")),
        "ae": ("lumina_util", "load_ae", ("x", BF16, "cpu")),
    },
    "hunyuan-image": {
        "dit": ("hunyuan_image_models", "load_hunyuan_image_model", (CPU, "x", "torch", False, CPU, BF16)),
        "text_encoder": ("hunyuan_image_text_encoder", "load_qwen2_5_vl", ("x", BF16, "cpu")),
        "byt5": ("hunyuan_image_text_encoder", "load_byt5", ("x", torch.float16, "cpu")),
        "vae": ("hunyuan_image_vae", "load_vae", ("x", CPU)),
    },
}


class _Built(Exception):
    """Signal of the module that a function of sd-scripts was about to fill."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.module = module


def shapes(module_name: str, function: str, arguments: tuple[Any, ...]) -> Shapes:
    """Return the names and shapes of the file that a function of sd-scripts loads."""
    module: Any = importlib.import_module(f"library.{module_name}")
    loaders = [name for name in ("load_safetensors", "load_safetensors_with_lora_and_fp8") if hasattr(module, name)]
    kept = {name: getattr(module, name) for name in loaders}
    load_state = torch.nn.Module.load_state_dict

    def stop(self: torch.nn.Module, *_: Any, **__: Any) -> None:
        raise _Built(self)

    for name in loaders:
        setattr(module, name, lambda *_, **__: {"shared.weight": None})
    torch.nn.Module.load_state_dict = stop  # type: ignore[assignment,method-assign]
    try:
        if module_name == "qwen_image_autoencoder_kl":  # reads its file itself
            module.load_file = lambda *_, **__: {}
        getattr(module, function)(*arguments)
    except _Built as built:
        return of(built.module)
    finally:
        torch.nn.Module.load_state_dict = load_state  # type: ignore[method-assign]
        for name, old in kept.items():
            setattr(module, name, old)
    raise AssertionError(f"{function} loaded nothing")


def of(module: torch.nn.Module, prefix: str = "") -> Shapes:
    return {prefix + name: tuple(value.shape) for name, value in module.state_dict().items()}


def save(path: Path, shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype = BF16) -> None:
    """Write random weights, tensor by tensor.

    Vectors are norms and biases: ones and zeros.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": _DTYPES[dtype], "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    noise = torch.randn(1 << 22, generator=torch.Generator().manual_seed(0)) * 0.02
    tile = noise.to(dtype).view(torch.uint8).numpy().tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, shape in shapes.items():
            left = math.prod(shape) * dtype.itemsize
            if len(shape) > 1:
                for start in range(0, left, len(tile)):
                    file.write(tile[: left - start])
            else:
                norm = name.endswith(("weight", "scale", "gamma"))
                file.write(
                    (torch.ones if norm else torch.zeros)(shape, dtype=dtype).view(-1).view(torch.uint8).numpy().tobytes()
                )


def anima_shapes(name: str, found: Shapes) -> Shapes:
    if name != "dit":
        return found
    buffers = ("seq", "dim_spatial_range", "dim_temporal_range", "inv_freq")
    return {f"net.{key}": shape for key, shape in found.items() if not any(word in key for word in buffers)}


def hunyuan_shapes(name: str, found: Shapes) -> Shapes:
    if name == "byt5":
        return {{"embed_tokens.weight": "shared.weight"}.get(key, key): shape for key, shape in found.items()}
    for old, new in (("model.language_model.", "model."), ("model.visual.", "visual.")):
        found = {key.replace(old, new, 1): shape for key, shape in found.items()}
    return found


RENAMED: dict[str, Callable[[str, Shapes], Shapes]] = {"anima": anima_shapes, "hunyuan-image": hunyuan_shapes}


def write(architecture: str, folder: Path) -> None:
    """Write the models of an architecture below a folder."""
    family = {"chroma": "flux", "flux-schnell": "flux"}.get(architecture, architecture)
    family = "sd3" if family.startswith("sd3") else family
    for name, (module, function, arguments) in FILES.get(family, {}).items():
        found = shapes(module, function, arguments)
        found = RENAMED[family](name, found) if family in RENAMED else found
        found = {key: shape for key, shape in found.items() if "position_ids" not in key}
        save(folder / f"{name}.safetensors", found, torch.float16 if name == "byt5" else BF16)
    if family == "flux":
        flux(architecture, folder)
    elif family == "sd3":
        sd3(architecture, folder)
    elif family == "anima":
        qwen3(folder / "qwen3")
    elif family == "sdxl":
        sdxl(folder)
    elif family in ("sd1", "sd2"):
        diffusers(family, folder)


def flux(architecture: str, folder: Path) -> None:
    from library import chroma_models, flux_models  # noqa: PLC0415 - with the sizes of launch_small.py

    with torch.device("meta"):
        if architecture == "chroma":
            module: torch.nn.Module = chroma_models.Chroma(chroma_models.chroma_params)
        else:
            module = flux_models.Flux(flux_models.configs["schnell" if architecture == "flux-schnell" else "dev"].params)
    save(folder / "dit.safetensors", of(module))


def sd3(architecture: str, folder: Path) -> None:
    """Write an MMDiT of two blocks. The checkpoint decides about its size."""
    from library import sd3_models  # noqa: PLC0415

    depth = 2
    parameters = sd3_models.SD3Params(
        patch_size=2,
        depth=depth,
        num_patches=36864,
        pos_embed_max_size=192,
        adm_in_channels=2048,
        qk_norm=None if architecture == "sd3-medium" else "rms",
        x_block_self_attn_layers=[0] if architecture == "sd3.5-medium" else [],
        context_embedder_in_features=2048,
        context_embedder_out_features=64 * depth,
        model_type="medium",
    )
    with torch.device("meta"):
        module = sd3_models.create_sd3_mmdit(parameters)
    found = of(module, "model.diffusion_model.")
    found.setdefault("model.diffusion_model.pos_embed", (1, 36864, 64 * depth))
    save(folder / "dit.safetensors", found)


def qwen3(folder: Path) -> None:
    """Write Qwen3 as a folder, the only form in which its size is free, or as a file of full size."""
    from transformers import Qwen3Config, Qwen3ForCausalLM  # noqa: PLC0415

    values = json.loads((configs() / "qwen3_06b" / "config.json").read_text("utf-8"))
    if FULL:
        with torch.device("meta"):
            found = of(Qwen3ForCausalLM(Qwen3Config(**values)))
        save(folder.with_suffix(".safetensors"), {name: shape for name, shape in found.items() if name != "lm_head.weight"})
        return
    values |= {"num_hidden_layers": 1, "intermediate_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1}
    values |= {"head_dim": 32, "max_window_layers": 1, "layer_types": ["full_attention"]}
    torch.manual_seed(0)
    Qwen3ForCausalLM(Qwen3Config(**values)).to(BF16).save_pretrained(folder)
    for path in (configs() / "qwen3_06b").glob("[mtv]*"):
        shutil.copy(path, folder)


def sdxl(folder: Path) -> None:
    from diffusers import AutoencoderKL  # noqa: PLC0415
    from library import model_util, sdxl_model_util, sdxl_original_unet  # noqa: PLC0415
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection  # noqa: PLC0415

    inner = (3072, 5120) if FULL else (64, 64)
    second = CLIPTextConfig(hidden_size=1280, num_attention_heads=20, intermediate_size=inner[1])
    second.projection_dim, second.num_hidden_layers = 1280, 32 if FULL else 2
    with torch.device("meta"):
        unet = sdxl_original_unet.SdxlUNet2DConditionModel()
        texts = (
            CLIPTextModel(CLIPTextConfig(hidden_size=768, num_attention_heads=12, intermediate_size=inner[0])),
            CLIPTextModelWithProjection(second),
        )
        vae = AutoencoderKL(**model_util.create_vae_diffusers_config())
        openclip = sdxl_model_util.convert_text_encoder_2_state_dict_to_sdxl(texts[1].state_dict(), torch.ones(()))
    found = of(unet, "model.diffusion_model.")
    found |= of(texts[0], "conditioner.embedders.0.transformer.")
    found |= {f"conditioner.embedders.1.model.{name}": tuple(value.shape) for name, value in openclip.items()}
    first = model_util.convert_vae_state_dict(vae.state_dict())
    found |= {f"first_stage_model.{name}": tuple(value.shape) for name, value in first.items()}
    save(folder / "dit.safetensors", {name: shape for name, shape in found.items() if "position_ids" not in name})


def diffusers(architecture: str, folder: Path) -> None:
    """Write a pipeline folder. Its text encoder may have any size."""
    from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel  # noqa: PLC0415
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer  # noqa: PLC0415

    width = 1024 if architecture == "sd2" else 768
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=64,
        block_out_channels=(32, 64, 64, 64),
        cross_attention_dim=width,
        attention_head_dim=8,
        use_linear_projection=architecture == "sd2",
        down_block_types=(*("CrossAttnDownBlock2D",) * 3, "DownBlock2D"),
        up_block_types=("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
    )
    channels = {"block_out_channels": (32, 32, 32, 32), "layers_per_block": 1, "latent_channels": 4}
    kinds = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    text = CLIPTextConfig(hidden_size=width, intermediate_size=64, num_hidden_layers=2, num_attention_heads=16)
    text.bos_token_id, text.eos_token_id = 49406, 49407
    scheduler = PNDMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True)
    StableDiffusionPipeline(
        vae=AutoencoderKL(**channels, **kinds),
        text_encoder=CLIPTextModel(text),
        tokenizer=CLIPTokenizer.from_pretrained("openai/clip-vit-large-patch14"),
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder / "dit")


def configs() -> Path:
    import library  # noqa: PLC0415

    return Path(next(iter(library.__path__))).parent / "configs"


def tokenizers(folder: Path) -> None:
    """Write the tokenizers of all architectures, for --tokenizer_cache_dir and as HF_HOME.

    Gemma's is gated. A stand-in of 260 tokens has the same interface.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers  # noqa: PLC0415
    from transformers import PreTrainedTokenizerFast  # noqa: PLC0415

    clip = runpy.run_path(str(WRITER))
    for name in clip["NAMES"]:
        clip["write"](folder / name, configs().parent)
    qwen, gemma = folder / "Qwen_Qwen2.5-VL-7B-Instruct", folder / "google_gemma-2-2b"
    shutil.copytree(configs() / "qwen3_06b", qwen)
    (qwen / "config.json").unlink()
    words = ("<pad>", "<eos>", "<bos>", "<unk>", *sorted(pre_tokenizers.ByteLevel.alphabet()))
    model = Tokenizer(models.BPE(vocab={word: number for number, word in enumerate(words)}, merges=[], unk_token="<unk>"))  # noqa: S106
    model.pre_tokenizer, model.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    special = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=model, padding_side="right", **special).save_pretrained(gemma)
    (gemma / "config.json").write_text(json.dumps({"model_type": "gemma2"}), "utf-8")
    for path in [path for path in folder.iterdir() if not path.name.startswith("models--")]:
        organization, _, name = path.name.partition("_")
        entry = folder / f"models--{organization}--{name}"
        (entry / "refs").mkdir(parents=True)
        (entry / "refs" / "main").write_text("0" * 40, "utf-8")
        shutil.copytree(path, entry / "snapshots" / ("0" * 40))
    (folder / "hub").symlink_to(".")


if __name__ == "__main__":
    chosen, target = sys.argv[1], Path(sys.argv[2])
    if chosen == "tokenizers":
        tokenizers(target)
    else:
        write(chosen, target)
