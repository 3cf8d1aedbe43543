"""Diffusers' own transformers have the layers of these names, and its loader applies the delta of the file."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from orchestrator.errors import RecipeError
from orchestrator.models import conventions
from orchestrator.models.layers import layers
from orchestrator.models.registry import ARCHITECTURES
from orchestrator.weights.convert import convert
from weights_samples import write

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.models.registry import ArchitectureName
    from orchestrator.weights.io.dtypes import Floats

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
pytest.importorskip("peft")

SMALL: dict[ArchitectureName, dict[str, Any]] = {
    "flux": {"width": 32, "double": 2, "single": 2},
    "sd3-medium": {"depth": 2},
    "sd3.5-medium": {"depth": 2, "double_attention": 1},
}


def _transformer(architecture: ArchitectureName) -> Any:
    common = {"attention_head_dim": 16, "joint_attention_dim": 8, "pooled_projection_dim": 8, "in_channels": 4}
    if architecture == "flux":
        return diffusers.FluxTransformer2DModel(
            num_layers=2, num_single_layers=2, num_attention_heads=2, axes_dims_rope=(4, 4, 8), **common
        )
    dual = (0,) if architecture == "sd3.5-medium" else ()
    return diffusers.SD3Transformer2DModel(
        num_layers=2, num_attention_heads=8, caption_projection_dim=128, sample_size=8, dual_attention_layers=dual, **common
    )


def _lora(path: Path, architecture: ArchitectureName) -> dict[str, Floats]:
    """Write a LoRA of small layers, and return the whole delta of each."""
    rng, parts, deltas = np.random.default_rng(3), {}, {}
    model = replace(ARCHITECTURES[architecture].model, unet={**ARCHITECTURES[architecture].model.unet, **SMALL[architecture]})
    for number, layer in enumerate(layer for layer in layers(model) if not layer.text):
        rank, alpha = 1 + number % 3, 0.5 * (1 + number % 2)
        up, down = (rng.standard_normal(shape).astype(np.float32) for shape in ((layer.out, rank), (rank, layer.in_)))
        parts[layer.name] = {"lora_up.weight": up, "lora_down.weight": down, "alpha": np.array(alpha, np.float32)}
        deltas[layer.name] = alpha / rank * up @ down
    write(path, parts, entries={"ss_base_model_version": ARCHITECTURES[architecture].base_model_version})
    return deltas


def test_peft_opens_the_folder_of_an_adapter(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    deltas = _lora(tmp_path / "in.safetensors", "flux")
    convert(tmp_path / "in.safetensors", tmp_path / "adapter_model.safetensors", "peft")
    transformer = _transformer("flux")
    before = transformer.transformer_blocks[1].attn.to_out[0].weight.detach().clone()
    merged = peft.PeftModel.from_pretrained(transformer, str(tmp_path)).merge_and_unload()
    change = (merged.transformer_blocks[1].attn.to_out[0].weight.detach() - before).numpy()
    np.testing.assert_allclose(change, deltas["lora_unet_double_blocks_1_img_attn_proj"], atol=1e-5)
    with pytest.raises(RecipeError, match="exists"):
        convert(tmp_path / "in.safetensors", tmp_path / "adapter_model.safetensors", "peft")


@pytest.mark.parametrize("architecture", SMALL)
def test_diffusers_applies_the_delta_of_mixed_ranks(tmp_path: Path, architecture: ArchitectureName) -> None:
    """Without alphas diffusers 0.32 takes one module's rank as the alpha of all, so that all have one rank."""
    deltas = _lora(tmp_path / "in.safetensors", architecture)
    convert(tmp_path / "in.safetensors", tmp_path / "out.safetensors", "diffusers")
    state = pytest.importorskip("safetensors.torch").load_file(str(tmp_path / "out.safetensors"))
    transformer = _transformer(architecture)
    linear = ((name, layer) for name, layer in transformer.named_modules() if isinstance(layer, torch.nn.Linear))
    before = {name: layer.weight.detach().clone() for name, layer in linear}
    loader = diffusers.loaders.FluxLoraLoaderMixin if architecture == "flux" else diffusers.loaders.SD3LoraLoaderMixin
    alphas = {"network_alphas": None} if architecture == "flux" else {}
    loader.load_lora_into_transformer(state, transformer=transformer, **alphas)
    transformer.fuse_lora()
    transformer.unload_lora()
    applied = 0
    for layer, delta in deltas.items():
        made = conventions.written(layer, architecture, "diffusers")
        assert made is not None
        whole = np.concatenate([delta[len(delta) // 2 :], delta[: len(delta) // 2]]) if made.swapped else delta
        for path, (first, last) in zip(made.paths, made.rows(len(delta)) or (), strict=True):
            name = path.removeprefix("transformer.")
            change = (transformer.get_submodule(name).weight.detach() - before[name]).numpy()
            np.testing.assert_allclose(change, whole[first:last], atol=1e-5)
            applied += 1
    assert applied == len(state) // 2
