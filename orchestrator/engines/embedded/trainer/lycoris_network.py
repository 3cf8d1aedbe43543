"""Networks on the modules of lycoris-lora 3.4.0.

They cover all algorithms and options that stacks do not have.

Under mixed precision LoRA and LoCon run in bypass mode (the adapter's output is added), because rebuilding the weight in half
precision rounds most of a small delta away.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from lycoris.kohya import LycorisNetworkKohya, create_network_from_weights
from lycoris.wrapper import network_module_dict
from torch import Tensor, nn

from orchestrator.engines.embedded.trainer import network_spec
from orchestrator.engines.embedded.trainer.network_spec import BuiltNetwork, flag
from orchestrator.errors import near_miss

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.engines.embedded.trainer.model import DiffusionModel
    from orchestrator.engines.embedded.trainer.network_spec import NetworkSpec

_ATTRIBUTES = (
    "ENABLE_CONV",
    "UNET_TARGET_REPLACE_MODULE",
    "UNET_TARGET_REPLACE_NAME",
    "TEXT_ENCODER_TARGET_REPLACE_MODULE",
    "TEXT_ENCODER_TARGET_REPLACE_NAME",
    "MODULE_ALGO_MAP",
    "NAME_ALGO_MAP",
    "USE_FNMATCH",
)

_BROKEN = {
    "ia3": "its network for sd-scripts ends with a KeyError",
    "full": "its layers delete the weight that their forward pass then reads (modules/full.py 113 and 211)",
}


class LycorisNetwork(nn.Module):
    """A network of lycoris-lora behind the interface of the training loop."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner
        self.text = nn.ModuleList(inner.text_encoder_loras)
        self.unet = nn.ModuleList(inner.unet_loras)

    def rebuild(self) -> None:
        """Do nothing, because these modules compute when their layer is called."""

    def saved(self) -> dict[str, Tensor]:
        """Return the tensors of the LoRA file, float32."""
        return {name: value.detach().float().cpu().clone() for name, value in self.inner.state_dict().items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy the tensors of a LoRA file into the parameters.

        Raises:
            ValueError: names do not match.
        """
        missing, unexpected = self.inner.load_state_dict(dict(tensors), strict=False)
        if unexpected or [name for name in missing if not name.endswith("scalar")]:
            first = [*unexpected, *missing][0]
            message = f"weights do not match: {len(missing)} missing, {len(unexpected)} unexpected (first: {first})"
            raise ValueError(message)


def build(model: DiffusionModel, spec: NetworkSpec, weights: Mapping[str, Tensor] | None) -> BuiltNetwork:
    """Attach a LyCORIS network to the model.

    Ranks and alphas come from ``weights`` if given.

    Raises:
        ValueError: the algorithm is unknown, or lycoris-lora cannot train it.
    """
    algorithm = network_spec.algorithm(spec)
    if algorithm in _BROKEN:
        message = f"algo {algorithm} cannot be trained with lycoris-lora 3.4.0: {_BROKEN[algorithm]}"
        raise ValueError(message)
    if algorithm not in network_module_dict:
        names = [name for name in network_module_dict if name not in _BROKEN]
        message = f"algo {algorithm} is unknown to lycoris-lora 3.4.0{near_miss(algorithm, names)}"
        raise ValueError(message)
    if flag(spec.args.get("train_norm")):
        # torch 2.13 crashes in the backward pass of a channels-last group norm whose input needs no gradient.
        model.unet.to(memory_format=torch.contiguous_format)
    if weights is not None:
        inner, _ = create_network_from_weights(1.0, None, None, model.text_encoder, model.unet, weights_sd=dict(weights))
    else:
        inner = _create(model, spec, algorithm)
    inner.apply_to(model.text_encoder, model.unet, apply_text_encoder=spec.text, apply_unet=spec.unet)
    inner.requires_grad_(requires_grad=True)
    inner.to(model.device)
    network = LycorisNetwork(inner)
    return BuiltNetwork(network, network.text, network.unet, len(network.text), len(network.unet), stacked=False)


def _create(model: DiffusionModel, spec: NetworkSpec, algorithm: str) -> Any:
    network_class: Any = LycorisNetworkKohya
    layers = network_spec.selection(spec)
    before = {name: getattr(network_class, name) for name in _ATTRIBUTES}
    try:
        # The class keeps its targets in class attributes. They are restored so that one process can build two networks.
        network_class.apply_preset({"enable_conv": True, "module_algo_map": {}, "name_algo_map": {}, "use_fnmatch": False})
        if spec.module == "lycoris.kohya":
            network_class.apply_preset(network_spec.preset(spec))
        network_class.apply_preset(
            {
                "unet_target_module": list(layers.unet_modules),
                "unet_target_name": list(layers.unet_names),
                "text_encoder_target_module": list(layers.text_modules),
                "text_encoder_target_name": list(layers.text_names),
            }
        )
        return network_class(model.text_encoder, model.unet, **_arguments(spec, algorithm))
    finally:
        for name, value in before.items():
            setattr(network_class, name, value)


def _arguments(spec: NetworkSpec, algorithm: str) -> dict[str, Any]:
    args, ranks = spec.args, network_spec.ranks(spec)
    number = {key: float(args.get(key) or 0) for key in ("rank_dropout", "module_dropout", "constraint")}
    return {
        "multiplier": 1.0,
        "lora_dim": ranks.dim,
        "conv_lora_dim": ranks.conv_dim,
        "alpha": ranks.alpha,
        "conv_alpha": ranks.conv_alpha,
        "dropout": float(args.get("dropout") or spec.dropout or 0.0),
        **number,
        "use_tucker": network_spec.is_tucker(spec),
        "use_scalar": flag(args.get("use_scalar")),
        "network_module": algorithm,
        "train_norm": flag(args.get("train_norm")),
        "decompose_both": flag(args.get("decompose_both")),
        "factor": int(args.get("factor", -1)),
        "block_size": int(args.get("block_size", 4)),
        "rescaled": flag(args.get("rescaled")),
        "weight_decompose": flag(args.get("dora_wd")),
        "wd_on_out": flag(args.get("wd_on_output", "True")),
        "full_matrix": flag(args.get("full_matrix")),
        # The sum of outputs: half precision would lose the delta, and networks.lora applies its dropout there.
        "bypass_mode": flag(args.get("bypass_mode"))
        or (algorithm == "lora" and (spec.module == "networks.lora" or not spec.full_precision)),
        "rs_lora": flag(args.get("rs_lora")),
        "unbalanced_factorization": flag(args.get("unbalanced_factorization")),
    }
