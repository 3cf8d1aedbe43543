"""Build the network on the fastest modules that can train it.

``networks.lora`` and LyCORIS' lora, locon and loha run on :mod:`stacked_network` in float32. Dropout, DoRA, a trained scalar,
mixed precision and LyCORIS' other algorithms run on the modules of lycoris-lora, under the same names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from orchestrator.engines.embedded.trainer import lycoris_network, network_spec, target_modules
from orchestrator.engines.embedded.trainer.network_spec import BuiltNetwork
from orchestrator.engines.embedded.trainer.stacked_network import StackedNetwork
from orchestrator.engines.embedded.trainer.target_modules import TargetLayer
from orchestrator.errors import Problem, RecipeError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from orchestrator.engines.embedded.trainer.model import DiffusionModel
    from orchestrator.engines.embedded.trainer.network_spec import NetworkSpec


def build(model: DiffusionModel, spec: NetworkSpec, weights: Mapping[str, Tensor] | None = None) -> BuiltNetwork:
    """Attach a network to the model.

    Args:
        model: its layers are changed in place.
        spec: the network's arguments.
        weights: tensors of a LoRA file that replace the ranks and alphas of ``spec`` (``--dim_from_weights``).

    Raises:
        RecipeError: the network cannot be built on this model.
    """
    try:
        if network_spec.is_stackable(spec):
            return _stacked(model, spec, weights)
        return lycoris_network.build(model, spec, weights)
    except ValueError as error:
        raise RecipeError(Problem("network", str(error))) from error


def _stacked(model: DiffusionModel, spec: NetworkSpec, weights: Mapping[str, Tensor] | None) -> BuiltNetwork:
    text, unet = target_modules.find(model, network_spec.selection(spec), network_spec.ranks(spec))
    text, unet = (text if spec.text else []), (unet if spec.unet else [])
    if weights is not None:
        text, unet = [_with_ranks_of(weights, text), _with_ranks_of(weights, unet)]
    stacked = StackedNetwork(text, unet, network_spec.algorithm(spec), tucker=network_spec.is_tucker(spec))
    network = stacked.to(model.device)
    return BuiltNetwork(network, network.text, network.unet, len(text), len(unet), stacked=True)


def _with_ranks_of(weights: Mapping[str, Tensor], targets: list[TargetLayer]) -> list[TargetLayer]:
    """Return the targets that a LoRA file has, with its ranks and alphas."""
    result: list[TargetLayer] = []
    for target in targets:
        keys = (f"{target.name}.{factor}" for factor in ("lora_down.weight", "hada_w1_b"))
        rank = next((weights[key].shape[0] for key in keys if key in weights), None)
        if rank is not None:
            alpha = weights.get(f"{target.name}.alpha", torch.tensor(float(rank)))
            result.append(TargetLayer(target.name, target.module, int(rank), float(alpha)))
    return result
