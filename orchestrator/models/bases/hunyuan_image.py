"""HunyuanImage-2.1: blocks of two streams and of one.

Its text encoders are not trained.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.models import dit_blocks, file_kinds, text_encoders
from orchestrator.models.architecture import Architecture, ModelFile
from orchestrator.models.bases import flux
from orchestrator.models.counterparts import Counterpart, qkv
from orchestrator.models.layer_choice import LayerChoice
from orchestrator.models.layers import Model, ModelLayer, Targets, unet_layer
from orchestrator.models.renderer import PATTERNS_WITHOUT_USE, Renderer

if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCKS = dit_blocks.names({"D": 20, "S": 40})
_TRANSFORMER = "transformer_blocks.#"
_DIFFUSERS: dict[str, str | Counterpart] = {
    "double_blocks.#.img_mod.linear": f"{_TRANSFORMER}.norm1.linear",
    "double_blocks.#.img_attn_qkv": qkv(f"{_TRANSFORMER}.attn"),
    "double_blocks.#.img_attn_proj": f"{_TRANSFORMER}.attn.to_out.0",
    "double_blocks.#.img_mlp.fc1": f"{_TRANSFORMER}.ff.net.0.proj",
    "double_blocks.#.img_mlp.fc2": f"{_TRANSFORMER}.ff.net.2",
    "double_blocks.#.txt_mod.linear": f"{_TRANSFORMER}.norm1_context.linear",
    "double_blocks.#.txt_attn_qkv": qkv(f"{_TRANSFORMER}.attn", "add_q_proj", "add_k_proj", "add_v_proj"),
    "double_blocks.#.txt_attn_proj": f"{_TRANSFORMER}.attn.to_add_out",
    "double_blocks.#.txt_mlp.fc1": f"{_TRANSFORMER}.ff_context.net.0.proj",
    "double_blocks.#.txt_mlp.fc2": f"{_TRANSFORMER}.ff_context.net.2",
    **flux.SINGLE_BLOCK,
    "single_blocks.#.modulation.linear": "single_transformer_blocks.#.norm.linear",
    "final_layer.linear": "proj_out",
    "final_layer.adaLN_modulation.1": Counterpart(("norm_out.linear",), swapped=True),
}
"""Source: diffusers' convert_hunyuan_image_to_diffusers.py."""
_COMFY = (
    *(("_attn_qkv", "_attn.qkv"), ("_attn_proj", "_attn.proj"), ("_mlp.fc1", "_mlp.0"), ("_mlp.fc2", "_mlp.2")),
    *(("_mod.linear", "_mod.lin"), (".modulation.linear", ".modulation.lin")),
)
"""Source: sd-scripts' networks/convert_hunyuan_image_lora_to_comfy.py."""


def _layers(model: Model) -> Iterator[ModelLayer]:
    """Yield the layers of the blocks and of the final layer."""
    width = model.unet["width"]
    for number in range(model.unet["double"]):
        for stream in ("img", "txt"):
            root, around = f"double_blocks.{number}.{stream}", "MMDoubleStreamBlock"
            yield unet_layer(f"{root}_mod.linear", 6 * width, width, around, "ModulateDiT")
            yield unet_layer(f"{root}_attn_qkv", 3 * width, width, around)
            yield unet_layer(f"{root}_attn_proj", width, width, around)
            yield unet_layer(f"{root}_mlp.fc1", 4 * width, width, around, "MLP")
            yield unet_layer(f"{root}_mlp.fc2", width, 4 * width, around, "MLP")
    for number in range(model.unet["single"]):
        root, around = f"single_blocks.{number}", "MMSingleStreamBlock"
        yield unet_layer(f"{root}.linear1", 7 * width, width, around)
        yield unet_layer(f"{root}.linear2", width, 5 * width, around)
        yield unet_layer(f"{root}.modulation.linear", 3 * width, width, around, "ModulateDiT")
    yield unet_layer("final_layer.linear", 64, width, "FinalLayer")
    yield unet_layer("final_layer.adaLN_modulation.1", 2 * width, width, "FinalLayer")


MODEL = Model(
    {"width": 3584, "double": 20, "single": 40},
    (),
    _layers,
    targets=Targets(("MMDoubleStreamBlock", "MMSingleStreamBlock"), convolutions=(), text=()),
    blocks_only=True,
)

RENDERER = Renderer(
    script="hunyuan_image_minimal_inference.py",
    models={"checkpoint": "dit", "vae": "vae", "text_encoder": "text_encoder", "byt5": "byt5"},
    output="save_path",
    lora="lora_weight",
    multiplier="lora_multiplier",
    line={"scale": "g", "flow_shift": "fs"},
    precisions={"no": (), "bf16": ()},  # bf16 with either
    side_step=32,
    merges=True,
    without_use=PATTERNS_WITHOUT_USE,
)

ARCHITECTURE = Architecture(
    name="hunyuan-image",
    title="HunyuanImage-2.1",
    released="2025-09",
    trainer_script="hunyuan_image_train_network.py",
    model=MODEL,
    blocks=BLOCKS,
    short_blocks=BLOCKS,
    presets={"ALL": (1.0,) * len(BLOCKS)},
    block_of=dit_blocks.block_of({"double_blocks": "D", "single_blocks": "S"}),
    checkpoint_names=(
        r"^(?:model\.diffusion_model\.)?double_blocks\.0\.img_mod\.linear\.",
        r"^(?:model\.diffusion_model\.)?byt5_in\.",
    ),
    modelspec="hunyuan-image-2.1",
    base_model_version="hunyuan-image-2.1",
    checkpoint_title="HunyuanImage-2.1",
    civitai_base="Other",
    hub_tags=("hunyuan-image",),
    fixed_clip_skip="the trainer of HunyuanImage ignores it",
    network_module="networks.lora_hunyuan_image",
    ignored_options=(
        *dit_blocks.IGNORED_OPTIONS,
        *dit_blocks.IGNORED_RANGE,
        *("fp8_base", "fp8_base_unet"),  # fp8_scaled is its 8-bit mode
    ),
    rejected_options=dit_blocks.REJECTED_OPTIONS,
    swappable_blocks=37,
    disk_cache_only="sd-scripts v0.10.1 cannot keep the outputs of its text encoders in memory",
    cached_text_bytes=4 * (1024 * 3584 + 128 * 1472),
    flow_shift="discrete_flow_shift",
    loss_weighting=False,
    layer_choice=LayerChoice(
        block_patterns={"D": "double_blocks_({})_", "S": "single_blocks_({})_"},
        patterns="search",
        numbers=("ggpo_beta", "ggpo_sigma"),
    ),
    lycoris=("locon",),
    tokenizers=(text_encoders.QWEN_VL_TOKENIZER, text_encoders.BYT5_TOKENIZER),
    files=(ModelFile("text_encoder", file_kinds.QWEN25_VL), ModelFile("byt5", file_kinds.BYT5)),
    vae=file_kinds.HUNYUAN_VAE,
    diffusers=_DIFFUSERS,
    comfy=_COMFY,
    caption_limits=(),
    needs_vae=True,
    shards=None,
    resolution=2048,
    prediction_type="",
    renderer=RENDERER,
    samples_need_autocast=True,  # generate_body of hunyuan_image_minimal_inference.py
)
