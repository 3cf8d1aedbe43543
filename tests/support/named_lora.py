"""Small LoRA files with the layer names of each architecture."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from orchestrator.models import conventions, names
from orchestrator.models.layers import layers
from orchestrator.models.registry import ARCHITECTURES
from orchestrator.weights.families import deltas
from orchestrator.weights.families.adapter import adapter
from orchestrator.weights.io import dtypes, writer
from orchestrator.weights.io.safetensors_io import Body, read_header

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from orchestrator.models.conventions import Target
    from orchestrator.models.registry import ArchitectureName
    from orchestrator.weights.io.dtypes import Floats

OUTPUTS = 210
"""Outputs of every layer: whole for 2, 3, 5 and 7 parts."""


def layer_names(architecture: ArchitectureName, *, text: bool = True) -> list[str]:
    """Return the first and the last layer of each kind, by kohya, in order."""
    whole = [layer.name for layer in layers(ARCHITECTURES[architecture].model) if text or not layer.text]
    kinds: dict[str, list[str]] = {}
    for name in whole:
        kinds.setdefault(re.sub(r"_\d+_", "_#_", name, count=1), []).append(name)
    chosen = {name for names_ in kinds.values() for name in (names_[0], names_[-1])}
    return [name for name in whole if name in chosen]


def kohya_file(
    path: Path,
    architecture: ArchitectureName,
    *,
    dtype: str = "F16",
    ranks: Callable[[int], int] = lambda _: 4,
    alpha: Callable[[int], float] = lambda _: 1.0,
    text: bool = True,
    outputs: int = OUTPUTS,
    keep: Callable[[str], bool] = bool,
) -> Path:
    """Write a LoRA of the layers to keep, each with a rank and alpha."""
    rng, pieces = np.random.default_rng(7), []
    convolutions = {layer.name for layer in layers(ARCHITECTURES[architecture].model) if layer.conv}
    for number, name in enumerate(filter(keep, layer_names(architecture, text=text))):
        rank = ranks(number)
        kernel = (3, 3) if name in convolutions else ()
        values: dict[str, Any] = {
            "lora_down.weight": rng.standard_normal((rank, 6, *kernel)),
            "lora_up.weight": rng.standard_normal((outputs, rank, *(1 for _ in kernel))),
            "alpha": np.array(alpha(number)),
        }
        pieces += [
            writer.raw(f"{name}.{part}", dtype, value.shape, dtypes.encode(value, dtype, name))
            for part, value in values.items()
        ]
    writer.write_safetensors(path, pieces, {"ss_base_model_version": ARCHITECTURES[architecture].base_model_version})
    return path


def named_file(
    path: Path,
    architecture: ArchitectureName,
    target: Target,
    *,
    shared: bool,
    dtype: str = "F16",
    outputs: int = OUTPUTS,
    keep: Callable[[str], bool] = bool,
) -> Path:
    """Write a LoRA without alphas by the names of a convention.

    Parts of a joined layer have one down if ``shared``.
    """
    rng, pieces = np.random.default_rng(11), []
    for name in filter(keep, layer_names(architecture)):
        made = conventions.written(name, architecture, target)
        if made is None:
            continue
        down = rng.standard_normal((4, 6))
        for path_, (first, last) in zip(made.paths, made.rows(outputs) or (), strict=True):
            down = down if shared else rng.standard_normal((4, 6))
            values = {"lora_A.weight": down, "lora_B.weight": rng.standard_normal((last - first, 4))}
            pieces += [
                writer.raw(f"{path_}.{part}", dtype, value.shape, dtypes.encode(value, dtype, name))
                for part, value in values.items()
            ]
    writer.write_safetensors(path, pieces, {"ss_base_model_version": ARCHITECTURES[architecture].base_model_version})
    return path


def bits(path: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Return type, shape and bytes of each tensor."""
    header = read_header(path)
    with Body(header) as body:
        return {key: (entry.dtype, entry.shape, bytes(body.read(key))) for key, entry in header.entries.items()}


def whole_deltas(path: Path) -> dict[str, Floats]:
    """Return the delta of each layer by kohya, with parts in their rows."""
    lora = adapter(read_header(path))
    architecture = lora.known_architecture("test")
    by_layer: dict[str, Floats] = {}
    with Body(lora.header) as body:
        for module in lora.modules:
            delta = deltas.delta(module.kind, dtypes.load_module(body, module))
            layer, part = names.layer_and_part(module.name, architecture)
            counterpart = conventions.written(layer, architecture, "diffusers")
            if counterpart is not None and counterpart.swapped and names.of_diffusers_transformer(module.name, architecture):
                delta = np.concatenate([delta[len(delta) // 2 :], delta[: len(delta) // 2]])
            if part is None:
                by_layer[layer] = delta
                continue
            assert counterpart is not None
            first, last = (counterpart.rows(OUTPUTS) or ())[part]
            by_layer.setdefault(layer, np.zeros((OUTPUTS, *delta.shape[1:]), np.float32))[first:last] = delta
    return by_layer
