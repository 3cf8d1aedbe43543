"""Small random LoRA files of every family."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from orchestrator.models import conventions, names
from orchestrator.models.bases import sd1
from orchestrator.weights.families import deltas, kinds
from orchestrator.weights.families.adapter import adapter
from orchestrator.weights.io import dtypes, writer
from orchestrator.weights.io.safetensors_io import Body, read_header

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.models.registry import ArchitectureName
    from orchestrator.weights.io.dtypes import Floats

RECORDINGS = Path(__file__).resolve().parents[1] / "data" / "recordings"

TE = "lora_te_text_model_encoder_layers_0_mlp_fc1"
DOWN = "lora_unet_down_blocks_0_attentions_0_proj_in"
CONV = "lora_unet_down_blocks_1_resnets_0_conv1"
MID = "lora_unet_mid_block_attentions_0_transformer_blocks_0_ff_net_0_proj"
UP = "lora_unet_up_blocks_1_resnets_0_conv2"
OUT = "lora_unet_conv_out"
LAYERS: dict[str, tuple[int, int, int | None]] = {
    TE: (16, 8, None),
    DOWN: (8, 12, 1),
    CONV: (16, 8, 3),
    MID: (16, 8, None),
    UP: (8, 6, 3),
    OUT: (8, 4, 3),
}
"""Name -> (out, in, kernel or None for a linear layer): BASE, IN01, IN04, MID, OUT03 and one in no block."""

BLOCK_OF = {TE: "BASE", DOWN: "IN01", CONV: "IN04", MID: "MID", UP: "OUT03"}

LINEAR = (
    "lora",
    "locon-tucker",
    "loha",
    "loha-tucker",
    "lokr",
    "lokr-decomposed",
    "lokr-tucker",
    "lokr-whole",
    "full",
    "dylora",
)
OTHER = ("norm", "ia3", "glora", "diag-oft", "boft", "dora")


SDXL = {
    "lora_te1_text_model_encoder_layers_0_mlp_fc1": "BASE",
    "lora_te2_text_model_encoder_layers_0_mlp_fc1": "BASE",
    "lora_unet_input_blocks_4_1_proj_in": "IN04",
    "lora_unet_input_blocks_6_0_op": "IN06",
    "lora_unet_middle_block_1_proj_in": "MID",
    "lora_unet_output_blocks_5_2_conv": "OUT05",
    "lora_unet_output_blocks_8_0_in_layers_2": "OUT08",
    "lora_unet_label_emb_0_0": "",
}
"""Block of each module, by its name in SDXL."""


def diffusers_path(module: str, architecture: ArchitectureName) -> str:
    """Return the path in diffusers of a module that is not divided there."""
    made = conventions.written(names.kohya(module, architecture), architecture, "diffusers")
    assert made is not None
    return made.paths[0]


def sample(name: str) -> Path:
    """Return a file that the real trainer wrote."""
    return RECORDINGS / f"{name}.safetensors"


def tensors(  # noqa: PLR0911 - one shape per family
    family: str, layer: tuple[int, int, int | None], rank: int, rng: np.random.Generator
) -> dict[str, Floats]:
    """Return random tensors of one module by part, as trainers shape them."""
    outputs, inputs, kernel = layer
    tail = (kernel, kernel) if kernel else ()
    ones = (1, 1) if kernel else ()
    flat = inputs * (kernel or 1) ** 2
    deep = (kernel or 1) > 1

    def random(*shape: int) -> Floats:
        return (rng.standard_normal(shape) * 0.2).astype(np.float32)

    alpha = {"alpha": np.array(rank / 2, np.float32)}
    tucker = "tucker" in family and deep
    match family:
        case "lora" | "dylora":
            return {"lora_up.weight": random(outputs, rank, *ones), "lora_down.weight": random(rank, inputs, *tail), **alpha}
        case "dora":
            return {**tensors("lora", layer, rank, rng), "dora_scale": 1 + random(outputs, 1, *ones)}
        case "locon-tucker":
            if not tucker:
                return tensors("lora", layer, rank, rng)
            parts = {"lora_up.weight": random(outputs, rank, 1, 1), "lora_down.weight": random(rank, inputs, 1, 1)}
            return {**parts, "lora_mid.weight": random(rank, rank, *tail), **alpha}
        case "loha" | "loha-tucker":
            first, second = ((rank, outputs), (rank, inputs)) if tucker else ((outputs, rank), (rank, flat))
            parts = {f"hada_w{n}_{side}": random(*shape) for n in (1, 2) for side, shape in (("a", first), ("b", second))}
            cores = {f"hada_t{n}": random(rank, rank, *tail) for n in (1, 2)} if tucker else {}
            return {**parts, **cores, **alpha}
        case "full":
            return {"diff": random(outputs, inputs, *tail), "diff_b": random(outputs)}
        case _ if family.startswith("lokr"):
            return {**_lokr(family, layer, rank, random), **alpha}
        case "norm":
            return {"w_norm": random(outputs), "b_norm": random(outputs)}
        case "ia3":
            return {"weight": random(1, outputs, *ones) if kernel else random(outputs), "on_input": np.array(0, np.float32)}
        case "glora":
            parts = {"a1.weight": random(inputs, rank, *ones), "a2.weight": random(rank, inputs, *ones)}
            return {**parts, "b1.weight": random(outputs, rank, *ones), "b2.weight": random(rank, inputs, *tail), **alpha}
        case "diag-oft":
            return {"oft_blocks": random(outputs // 2, 2, 2), "alpha": np.array(0, np.float32)}
        case "boft":
            return {"oft_blocks": random(2, outputs // 4, 4, 4), "alpha": np.array(0, np.float32)}
    raise AssertionError(family)


def _lokr(family: str, layer: tuple[int, int, int | None], rank: int, random: Any) -> dict[str, Floats]:
    outputs, inputs, kernel = layer
    tail = (kernel, kernel) if kernel else ()
    a, b, c, d = 2, outputs // 2, 2, inputs // 2
    first = {"lokr_w1": random(a, c)}
    if family == "lokr-decomposed":
        first = {"lokr_w1_a": random(a, rank), "lokr_w1_b": random(rank, c)}
    if family == "lokr-whole":
        return {**first, "lokr_w2": random(b, d, *tail)}
    if family == "lokr-tucker" and (kernel or 1) > 1:
        return {**first, "lokr_w2_a": random(rank, b), "lokr_w2_b": random(rank, d), "lokr_t2": random(rank, rank, *tail)}
    return {**first, "lokr_w2_a": random(b, rank), "lokr_w2_b": random(rank, d * (kernel or 1) ** 2)}


def write(
    path: Path, modules: Mapping[str, Mapping[str, Floats]], dtype: str = "F32", entries: Mapping[str, str] | None = None
) -> Path:
    """Write modules as one file, and return its path."""
    pieces = []
    for name, parts in modules.items():
        for part, values in parts.items():
            key = f"{name}.{part}"
            pieces.append(writer.raw(key, dtype, values.shape, dtypes.encode(values, dtype, key)))
    writer.write_safetensors(path, pieces, entries or {})
    return path


def lora(path: Path, family: str = "lora", *, dtype: str = "F32", rank: int = 4, seed: int = 0, **entries: str) -> Path:
    """Write a file with all LAYERS in one family, and return its path."""
    rng = np.random.default_rng(seed)
    return write(path, {name: tensors(family, layer, rank, rng) for name, layer in LAYERS.items()}, dtype, entries)


def read(path: Path) -> dict[str, Floats]:
    """Return all tensors of a file as float32 by key."""
    header = read_header(path)
    with Body(header) as body:
        return {key: dtypes.load(body, key) for key in header.entries}


def modules(path: Path) -> dict[str, dict[str, Floats]]:
    """Return all tensors by module (kohya's name) and part."""
    whole = adapter(read_header(path))
    with Body(whole.header) as body:
        return {module.kohya: dtypes.load_module(body, module) for module in whole.modules}


def changes(path: Path) -> dict[str, Floats]:
    """Return the delta of every module by kohya's name."""
    return {name: _change(parts, None) for name, parts in modules(path).items()}


def matrices(path: Path, base: dict[str, Floats] | None = None) -> dict[str, Floats]:
    """Return the delta of every module as a matrix.

    Args:
        path: a LoRA file.
        base: weights of the base model by module, for deltas that depend on it.
    """
    return {name: matrix(parts, base[name] if base else None) for name, parts in modules(path).items()}


def matrix(parts: dict[str, Floats], base: Floats | None = None) -> Floats:
    """Return the delta of one module as a matrix."""
    change = _change(parts, base)
    return change.reshape(len(change), -1)


def _change(parts: dict[str, Floats], base: Floats | None) -> Floats:
    kind = kinds.recognize({part: value.shape for part, value in parts.items()})
    assert kind is not None
    return deltas.delta(kind, parts, base if kind.needs_base or "dora_scale" in parts else None)


def decaying(outputs: int, inputs: int, rank: int, seed: int, slope: float = 4.0) -> tuple[Floats, Floats]:
    """Return factors as training leaves them.

    The down factor is well-conditioned; the directions of the up factor decay.
    """
    rng = np.random.default_rng(seed)
    up = rng.standard_normal((outputs, rank)) * np.exp(-np.arange(rank) / slope)
    rotation = np.linalg.qr(rng.standard_normal((rank, rank)))[0]
    return (up @ rotation).astype(np.float32) * 0.05, rng.standard_normal((rank, inputs)).astype(np.float32)


def decaying_lora(
    path: Path,
    *,
    rank: int = 12,
    seed: int = 0,
    dtype: str = "F32",
    slope: float = 4.0,
    layers: Mapping[str, tuple[int, int, int | None]] = LAYERS,
) -> Path:
    """Write a LoRA whose singular values decay as after a training."""
    made = {}
    for number, (name, (_, _, kernel)) in enumerate(layers.items()):
        up, down = decaying(40, 20 * (kernel or 1) ** 2, rank, seed + number, slope)
        tail, ones = ((kernel, kernel), (1, 1)) if kernel else ((), ())
        parts = {"lora_up.weight": up.reshape(40, rank, *ones), "lora_down.weight": down.reshape(rank, 20, *tail)}
        made[name] = {**parts, "alpha": np.array(rank / 2, np.float32)}
    return write(path, made, dtype)


def block_list(**by_block: float) -> list[float]:
    """Return a full list of block weights of SD1, 1 for other blocks."""
    return [by_block.get(name, 1.0) for name in sd1.BLOCKS]


def raw(path: Path) -> bytes:
    """Return the body of a file as it is."""
    return path.read_bytes()[read_header(path).body :]
