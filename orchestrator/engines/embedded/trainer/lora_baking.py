"""Bake networks into a model: W + sum(multiplier * delta), in float32.

The deltas come from :mod:`orchestrator.weights.families.deltas`, which computes them for every LoRA family. They are computed
once, and a change of multipliers is an addition. With all multipliers 0 the weights are the base's own, bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file

from orchestrator.engines.embedded.trainer import target_modules
from orchestrator.errors import Problem, RecipeError
from orchestrator.weights.families import deltas as family_deltas
from orchestrator.weights.families import kinds

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from torch import Tensor, nn

    from orchestrator.engines.embedded.trainer.model import DiffusionModel

_BIAS = ("diff_b", "b_norm")


@dataclass(frozen=True, slots=True)
class LayerDelta:
    """The delta of one network for a layer's ``weight`` or ``bias``."""

    layer: nn.Module
    parameter: str
    delta: Tensor


class BakedModel:
    """A model whose weights carry networks at the multipliers of :meth:`set`."""

    def __init__(self, model: DiffusionModel, files: Sequence[Path]) -> None:
        self.deltas = [deltas(model, file) for file in files]
        self.base_weights: dict[tuple[int, str], tuple[nn.Module, Tensor]] = {}
        for delta in (delta for network in self.deltas for delta in network):
            key = (id(delta.layer), delta.parameter)
            if key not in self.base_weights:
                self.base_weights[key] = (delta.layer, getattr(delta.layer, delta.parameter).detach().clone())
        self.current: tuple[float, ...] = (0.0,) * len(files)

    @torch.no_grad()
    def set(self, multipliers: Sequence[float]) -> None:
        """Set the weights for these multipliers, starting from those of the base."""
        multipliers = tuple(multipliers)
        if multipliers == self.current:
            return
        for (_, parameter), (layer, weight) in self.base_weights.items():
            getattr(layer, parameter).copy_(weight)
        for network, multiplier in zip(self.deltas, multipliers, strict=True):
            for delta in network if multiplier else ():
                getattr(delta.layer, delta.parameter).add_(delta.delta, alpha=multiplier)
        self.current = multipliers


def deltas(model: DiffusionModel, file: Path) -> list[LayerDelta]:
    """Return the deltas of a LoRA file for the layers of a model.

    Raises:
        RecipeError: the file cannot be read, adapts layers that the model lacks, or has tensors of an unknown family.
    """
    try:
        tensors = load_file(file)
    except (OSError, ValueError) as error:
        raise RecipeError(Problem(str(file), f"cannot be read as safetensors: {error}")) from error
    layers = _layers(model)
    problems: list[Problem] = []
    result: list[LayerDelta] = []
    for name, parts in _by_layer(tensors).items():
        if name not in layers:
            problems.append(Problem(f"{file}: {name}", "the model has no such layer", "made for another model?"))
            continue
        try:
            result += _of_layer(layers[name], parts)
        except (ValueError, RuntimeError) as error:
            problems.append(Problem(f"{file}: {name}", str(error)))
    if problems:
        raise RecipeError(problems[:10])
    return result


def _by_layer(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Any]]:
    result: dict[str, dict[str, Any]] = {}
    for key, value in tensors.items():
        layer, _, part = key.partition(".")
        result.setdefault(layer, {})[part] = value.float().numpy()
    return result


def _layers(model: DiffusionModel) -> dict[str, nn.Module]:
    """Return every layer with a weight by its name in a LoRA file."""
    parts = (("lora_te", target_modules.text_root(model.text_encoder)), ("lora_unet", model.unet))
    return {
        f"{prefix}.{name}".replace(".", "_"): module
        for prefix, root in parts
        for name, module in root.named_modules()
        if getattr(module, "weight", None) is not None
    }


def _of_layer(layer: Any, parts: dict[str, Any]) -> list[LayerDelta]:
    kind = kinds.recognize({part: value.shape for part, value in parts.items()})
    if kind is None:
        message = f"tensors of an unknown family: {', '.join(sorted(parts))}"
        raise ValueError(message)
    weight = layer.weight.detach()
    delta = family_deltas.delta(kind, parts, weight.float().cpu().contiguous().numpy())
    result = [LayerDelta(layer, "weight", torch.from_numpy(delta.reshape(weight.shape).copy()).to(weight))]
    for part in _BIAS:
        if part in parts:
            bias = layer.bias.detach()
            result.append(LayerDelta(layer, "bias", torch.from_numpy(parts[part].reshape(bias.shape).copy()).to(bias)))
    return result
