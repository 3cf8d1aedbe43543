"""Lumina-Image 2.0: refiners and joint blocks, with Gemma2-2b."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.models import dit_blocks, file_kinds, text_encoders
from orchestrator.models.architecture import Architecture, ModelFile
from orchestrator.models.counterparts import Counterpart, qkv
from orchestrator.models.layer_choice import LayerChoice
from orchestrator.models.layers import Model, ModelLayer, Targets, TextEncoder, unet_layer
from orchestrator.models.renderer import Renderer

if TYPE_CHECKING:
    from collections.abc import Iterator

_LISTS = {"context_refiner": 2, "noise_refiner": 2, "layers": 26}
_LETTERS = {"context_refiner": "CR", "noise_refiner": "NR", "layers": "L"}
BLOCKS = dit_blocks.names({_LETTERS[name]: count for name, count in _LISTS.items()})
_DIFFUSERS: dict[str, str | Counterpart] = {
    "final_layer.adaLN_modulation.1": "norm_out.linear_1",
    "final_layer.linear": "norm_out.linear_2",
}
for _blocks in (f"{name}.#" for name in _LISTS):
    _DIFFUSERS |= {
        f"{_blocks}.attention.qkv": qkv(f"{_blocks}.attn", shares=(3, 1, 1)),
        f"{_blocks}.attention.out": f"{_blocks}.attn.to_out.0",
        **{f"{_blocks}.feed_forward.w{number}": f"{_blocks}.feed_forward.linear_{number}" for number in (1, 2, 3)},
        f"{_blocks}.adaLN_modulation.1": f"{_blocks}.norm1.linear",
    }
"""Sources: diffusers' convert_lumina_to_diffusers.py and _convert_non_diffusers_lumina2_lora_to_diffusers."""


def _layers(model: Model) -> Iterator[ModelLayer]:
    """Yield the layers of the blocks and of the final layer."""
    width, inner, time = model.unet["width"], model.unet["inner"], model.unet["time"]
    for blocks in _LISTS:
        for number in range(model.unet[blocks]):
            root, around = f"{blocks}.{number}", "JointTransformerBlock"
            yield unet_layer(f"{root}.attention.qkv", model.unet["qkv"], width, around, "JointAttention", bias=False)
            yield unet_layer(f"{root}.attention.out", width, width, around, "JointAttention", bias=False)
            yield unet_layer(f"{root}.feed_forward.w1", inner, width, around, "FeedForward", bias=False)
            yield unet_layer(f"{root}.feed_forward.w2", width, inner, around, "FeedForward", bias=False)
            yield unet_layer(f"{root}.feed_forward.w3", inner, width, around, "FeedForward", bias=False)
            if blocks != "context_refiner":
                yield unet_layer(f"{root}.adaLN_modulation.1", 4 * width, time, around)
    yield unet_layer("final_layer.linear", 64, width, "FinalLayer")
    yield unet_layer("final_layer.adaLN_modulation.1", width, time, "FinalLayer")


MODEL = Model(
    {"width": 2304, "qkv": 3840, "inner": 9216, "time": 1024, **_LISTS},
    (
        TextEncoder(
            text_encoders.decoder,
            text_encoders.GEMMA2_2B,
            "lora_te",
            "lora_te1",
            "gemma2",
            comfy="gemma2_2b.transformer.model",
        ),
    ),
    _layers,
    targets=Targets(("JointTransformerBlock", "FinalLayer"), convolutions=(), text=("Gemma2Attention", "Gemma2MLP")),
    blocks_only=True,
)

RENDERER = Renderer(
    script="lumina_minimal_inference.py",
    models={"checkpoint": "pretrained_model_name_or_path", "gemma2": "gemma2_path", "ae": "ae_path"},
    output="output_dir",
    lora="lora_weights",
    # Without --offload its autoencoder stays on the CPU while the latents are on the GPU.
    switches=("--offload",),
    line={"scale": "g"},
    arguments={"flow_shift": "discrete_flow_shift"},
    precisions={
        precision: ("--dtype", name, "--gemma2_dtype", name, "--ae_dtype", name)
        for precision, name in (("no", "fp32"), ("fp16", "fp16"), ("bf16", "bf16"))
    },
    side_step=16,
    dialog=True,
    last_line="exit",
    trained=("system_prompt", "gemma2_max_token_length"),
)

ARCHITECTURE = Architecture(
    name="lumina",
    title="Lumina 2",
    released="2025-01",
    trainer_script="lumina_train_network.py",
    model=MODEL,
    blocks=BLOCKS,
    short_blocks=BLOCKS,
    presets={"ALL": (1.0,) * len(BLOCKS)},
    block_of=dit_blocks.block_of(_LETTERS),
    checkpoint_names=(r"^(?:model\.diffusion_model\.)?context_refiner\.0\.attention\.qkv\.",),
    modelspec="lumina-2",
    base_model_version="lumina2",
    checkpoint_title="Lumina 2",
    civitai_base="Lumina",
    hub_tags=("lumina2",),
    fixed_clip_skip="the trainer of Lumina ignores it",
    network_module="networks.lora_lumina",
    ignored_options=(*dit_blocks.IGNORED_OPTIONS, *dit_blocks.IGNORED_RANGE),
    xformers=False,
    swappable_blocks=24,
    trained_beside_cache=("gemma2",),
    cached_text_bytes=4 * 256 * 2304,
    flow_shift="discrete_flow_shift",
    loss_weighting=False,
    layer_choice=LayerChoice(
        dims={"attn_dim": ("attention",), "mod_dim": ("modulation",), "refiner_dim": ("refiner",)},  # mlp_dim matches none
    ),
    lycoris=("locon",),
    tokenizers=(text_encoders.GEMMA_TOKENIZER,),
    files=(ModelFile("gemma2", file_kinds.GEMMA2, lora_prefix="lora_te"), ModelFile("ae", file_kinds.AUTOENCODER)),
    diffusers=_DIFFUSERS,
    resolution=1024,
    vae=None,
    caption_limits=(),  # the tokenizer of Gemma is not in sd-scripts
    prediction_type="",
    renderer=RENDERER,
    least_sample_seed=1,
)
