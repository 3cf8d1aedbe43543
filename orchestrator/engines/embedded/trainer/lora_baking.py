"""Networks baked into a model: for given multipliers every layer's weight is W + sum(multiplier * delta), in float32.

The deltas come from :mod:`orchestrator.weights.families.deltas`, the one place that knows what a file's tensors mean. They are
computed once; changing multipliers is an addition. With all multipliers 0 the weights are the base's own, bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file

from orchestrator.engines.embedded.trainer import target_modules
from orchestrator.errors import Problem, RecipeError
from orchestrator.weights.families import deltas as families
from orchestrator.weights.families import kinds

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from torch import Tensor, nn

    from orchestrator.engines.embedded.trainer.model import Model

_BIAS = ("diff_b", "b_norm")


@dataclass(frozen=True, slots=True)
class Delta:
    """The change that one network makes to one parameter of a layer (``weight`` or ``bias``)."""

    layer: nn.Module
    parameter: str
    change: Tensor


class Baked:
    """A model whose weights carry networks at the multipliers of :meth:`set`."""

    def __init__(self, model: Model, files: Sequence[Path]) -> None:
        self.deltas = [deltas(model, file) for file in files]
        self.own: dict[tuple[int, str], tuple[nn.Module, Tensor]] = {}
        for delta in (delta for network in self.deltas for delta in network):
            key = (id(delta.layer), delta.parameter)
            if key not in self.own:
                self.own[key] = (delta.layer, getattr(delta.layer, delta.parameter).detach().clone())
        self.now: tuple[float, ...] = (0.0,) * len(files)

    @torch.no_grad()
    def set(self, multipliers: Sequence[float]) -> None:
        """Bring the weights to these multipliers, always starting from the base's own."""
        wanted = tuple(multipliers)
        if wanted == self.now:
            return
        for (_, parameter), (layer, own) in self.own.items():
            getattr(layer, parameter).copy_(own)
        for network, multiplier in zip(self.deltas, wanted, strict=True):
            for delta in network if multiplier else ():
                getattr(delta.layer, delta.parameter).add_(delta.change, alpha=multiplier)
        self.now = wanted


def deltas(model: Model, file: Path) -> list[Delta]:
    """Every change that a file makes to this model.

    Raises:
        RecipeError: the file cannot be read, names layers that the model does not have, or has tensors of no known family.
    """
    try:
        tensors = load_file(file)
    except (OSError, ValueError) as error:
        raise RecipeError(Problem(str(file), f"cannot be read as safetensors: {error}")) from error
    layers = _layers(model)
    problems: list[Problem] = []
    found: list[Delta] = []
    for name, parts in _by_layer(tensors).items():
        if name not in layers:
            problems.append(Problem(f"{file}: {name}", "the model has no such layer", "made for another model?"))
            continue
        try:
            found += _of_layer(layers[name], parts)
        except (ValueError, RuntimeError) as error:
            problems.append(Problem(f"{file}: {name}", str(error)))
    if problems:
        raise RecipeError(problems[:10])
    return found


def _by_layer(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Any]]:
    result: dict[str, dict[str, Any]] = {}
    for key, value in tensors.items():
        layer, _, part = key.partition(".")
        result.setdefault(layer, {})[part] = value.float().numpy()
    return result


def _layers(model: Model) -> dict[str, nn.Module]:
    """Name in a file -> layer, for every layer with a weight."""
    parts = (("lora_te", target_modules.text_root(model.text_encoder)), ("lora_unet", model.unet))
    return {
        f"{prefix}.{name}".replace(".", "_"): module
        for prefix, root in parts
        for name, module in root.named_modules()
        if getattr(module, "weight", None) is not None
    }


def _of_layer(layer: Any, parts: dict[str, Any]) -> list[Delta]:
    kind = kinds.recognize({part: value.shape for part, value in parts.items()})
    if kind is None:
        message = f"tensors of no known family: {', '.join(sorted(parts))}"
        raise ValueError(message)
    weight = layer.weight.detach()
    change = families.delta(kind, parts, weight.float().cpu().contiguous().numpy())
    found = [Delta(layer, "weight", torch.from_numpy(change.reshape(weight.shape).copy()).to(weight))]
    for part in _BIAS:
        if part in parts:
            bias = layer.bias.detach()
            found.append(Delta(layer, "bias", torch.from_numpy(parts[part].reshape(bias.shape).copy()).to(bias)))
    return found
