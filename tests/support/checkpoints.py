"""Small checkpoints of every architecture, in the original's names."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from orchestrator.models import conventions
from orchestrator.models.layers import layers
from orchestrator.models.registry import ARCHITECTURES, ArchitectureName
from orchestrator.weights.io import dtypes, writer

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from orchestrator.models.layers import ModelLayer
    from orchestrator.weights.io.dtypes import Floats

OUT, IN = 210, 12
"""Sizes of every layer. The shares of joined projections divide the first."""
MARKS = {
    "sd3-medium": (),
    "sd3.5-medium": (),
    "sd3.5-large": (),
    "flux-schnell": (),
    "flux": ("guidance_in.in_layer",),
    "chroma": ("distilled_guidance_layer.in_proj",),
    "lumina": (),
    "hunyuan-image": ("byt5_in.fc1",),
    "anima": (),
    "sdxl": (),
}
"""Architectures whose names in LoRA files are the original's, and further layers that tell them apart."""
ROOTS = {"sdxl": "model.diffusion_model.", "anima": "net.", "flux": "model.diffusion_model."}
LISTS = ("double_blocks", "single_blocks", "joint_blocks", "blocks", "layers", "input_blocks", "output_blocks")


def chosen(architecture: ArchitectureName) -> list[ModelLayer]:
    """Return the layers of the first and the last block of each list."""
    network = [layer for layer in layers(ARCHITECTURES[architecture].model) if not layer.text]
    if architecture == "chroma":
        return network  # a part of it may be a part of FLUX.1
    last = {layer.dotted.split(".")[0]: layer.dotted.split(".")[1] for layer in network}
    kept = []
    for layer in network:
        list_, number = layer.dotted.split(".")[:2]
        deep = "transformer_blocks" in layer.dotted and "transformer_blocks.0." not in layer.dotted
        if (list_ not in LISTS or number in {"0", "4", last[list_]}) and not deep:
            kept.append(layer)
    return kept


def weights(architecture: ArchitectureName, seed: int = 0) -> dict[str, Floats]:
    """Return random weights by name in the original, with norms and a VAE."""
    rng = np.random.default_rng(seed)
    root = ROOTS.get(architecture, "")
    made: dict[str, Floats] = {}
    for layer in chosen(architecture):
        tail = (layer.kernel, layer.kernel) if layer.conv else ()
        made[f"{root}{layer.dotted}.weight"] = rng.standard_normal((OUT, IN, *tail)).astype(np.float32)
    for mark in MARKS[architecture]:
        made[f"{root}{mark}.weight"] = rng.standard_normal((4, 4)).astype(np.float32)
        made[f"{root}{mark}.bias"] = rng.standard_normal(4).astype(np.float32)
    if architecture == "sdxl":
        made["conditioner.embedders.0.transformer.text_model.encoder.layers.0.mlp.fc1.weight"] = rng.standard_normal(
            (OUT, IN)
        ).astype(np.float32)
        fused = "conditioner.embedders.1.model.transformer.resblocks.0.attn.in_proj_weight"
        made[fused] = rng.standard_normal((OUT, IN)).astype(np.float32)
    return made


def tuned(base: Mapping[str, Floats], rank: int = 2, *, keep: Iterable[str] = (), seed: int = 9) -> dict[str, Floats]:
    """Return weights with a low-rank change, but those in ``keep``."""
    rng, made, kept = np.random.default_rng(seed), dict(base), set(keep)
    for name, weight in base.items():
        if weight.ndim > 1 and weight.size and name not in kept:
            up, down = rng.standard_normal((len(weight), rank)), rng.standard_normal((rank, weight[0].size))
            made[name] = weight + (0.1 * up @ down).reshape(weight.shape).astype(np.float32)
    return made


def save(path: Path, tensors: Mapping[str, Floats], dtype: str = "F32") -> Path:
    """Write a checkpoint, and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pieces = [writer.raw(name, dtype, value.shape, dtypes.encode(value, dtype, name)) for name, value in tensors.items()]
    writer.write_in_order(path, pieces, {})
    return path


def save_folder(folder: Path, architecture: ArchitectureName, tensors: Mapping[str, Floats]) -> Path:
    """Write a checkpoint in Diffusers layout, its network in two files."""
    root = ROOTS.get(architecture, "")
    made: dict[str, dict[str, Floats]] = {}
    for layer in chosen(architecture):
        weight = tensors[f"{root}{layer.dotted}.weight"]
        names = conventions.written(layer.name, architecture, "diffusers")
        assert names is not None, layer.name
        if names.swapped:
            weight = np.concatenate(np.split(weight, 2)[::-1])
        rows = names.rows(len(weight))
        assert rows is not None, layer.name
        for path, (first, last) in zip(names.paths, rows, strict=True):
            component, _, name = path.partition(".")
            made.setdefault(component, {})[f"{name}.weight"] = weight[first:last]
    if architecture.startswith("flux"):
        guidance = np.ones((4, 4), np.float32)
        made["transformer"]["time_text_embed.guidance_embedder.linear_1.weight"] = guidance
    for component, own in made.items():
        for number in range(2):
            shard = dict(list(own.items())[number::2])
            save(folder / component / f"diffusion_pytorch_model-0000{number + 1}-of-00002.safetensors", shard)
    return folder
