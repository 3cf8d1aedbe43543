"""The objects that one training run works on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from argparse import Namespace

    from torch import Tensor
    from torch.optim import Optimizer

    from orchestrator.engines.embedded.trainer.latents import LatentCache
    from orchestrator.engines.embedded.trainer.loss import NoiseSchedule
    from orchestrator.engines.embedded.trainer.model import DiffusionModel
    from orchestrator.engines.embedded.trainer.network_spec import BuiltNetwork


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """Arguments, model, network, optimizer and caches of one training run."""

    args: Namespace
    model: DiffusionModel
    built: BuiltNetwork
    optimizer: Optimizer
    schedule: Any
    noise: NoiseSchedule
    latents: LatentCache
    scaler: Any
    text_states: dict[str, Tensor] = field(default_factory=dict)
    """Text encoder states by caption, where the text encoder does not train."""
