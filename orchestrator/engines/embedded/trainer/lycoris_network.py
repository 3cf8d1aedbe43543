"""Networks on the modules of lycoris-lora 3.4.0: every algorithm it trains, and whatever the lean form leaves out.

Under mixed precision LoRA and LoCon run in bypass mode (the adapter's output is added): rebuilding the weight in half
precision would round most of a small delta away, which is also why the release was trained so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from lycoris.kohya import LycorisNetworkKohya, create_network_from_weights
from lycoris.wrapper import network_module_dict
from torch import Tensor, nn

from orchestrator.engines.embedded.trainer import network as choice
from orchestrator.errors import near_miss

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.engines.embedded.trainer.model import Model
    from orchestrator.engines.embedded.trainer.network import Built, Wanted
    from orchestrator.engines.embedded.trainer.target_modules import Ranks, Selection

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
    "full": "its layers delete the weight that their forward pass then asks for (modules/full.py 113 and 211)",
}


class HeavyNetwork(nn.Module):
    """A LyCORIS network as the training loop wants it."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner
        self.text = nn.ModuleList(inner.text_encoder_loras)
        self.unet = nn.ModuleList(inner.unet_loras)

    def rebuild(self) -> None:
        """Nothing: these modules compute when their layer is called."""

    def saved(self) -> dict[str, Tensor]:
        """The tensors of the file, float32."""
        return {name: value.detach().float().cpu().clone() for name, value in self.inner.state_dict().items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take a file's tensors; ValueError where names do not fit."""
        missing, unexpected = self.inner.load_state_dict(dict(tensors), strict=False)
        if unexpected or [name for name in missing if not name.endswith("scalar")]:
            first = [*unexpected, *missing][0]
            message = f"weights do not fit: {len(missing)} missing, {len(unexpected)} unexpected (first: {first})"
            raise ValueError(message)


def build(model: Model, want: Wanted, where: Selection, rank: Ranks, weights: Mapping[str, Tensor] | None) -> Built:
    """Attach a LyCORIS network to the model.

    Raises:
        ValueError: the algorithm is unknown.
    """
    algo = choice.algorithm(want)
    if algo in _BROKEN:
        message = f"algo {algo} cannot be trained with lycoris-lora 3.4.0: {_BROKEN[algo]}"
        raise ValueError(message)
    if algo not in network_module_dict:
        known = [name for name in network_module_dict if name not in _BROKEN]
        message = f"algo {algo} is unknown to lycoris-lora 3.4.0{near_miss(algo, known)}"
        raise ValueError(message)
    if choice.flag(want.args.get("train_norm")):
        # torch 2.13 crashes in the backward pass of a channels-last group norm whose input needs no gradient.
        model.unet.to(memory_format=torch.contiguous_format)
    if weights is not None:
        inner, _ = create_network_from_weights(1.0, None, None, model.text_encoder, model.unet, weights_sd=dict(weights))
    else:
        inner = _create(model, want, where, rank, algo)
    inner.apply_to(model.text_encoder, model.unet, apply_text_encoder=want.text, apply_unet=want.unet)
    inner.requires_grad_(requires_grad=True)
    inner.to(model.device)
    network = HeavyNetwork(inner)
    return choice.Built(network, network.text, network.unet, len(network.text), len(network.unet), lean=False)


def _create(model: Model, want: Wanted, where: Selection, rank: Ranks, algo: str) -> Any:
    kind: Any = LycorisNetworkKohya
    before = {name: getattr(kind, name) for name in _ATTRIBUTES}
    try:
        # The class keeps its targets in class attributes; they are put back so that one process can build two networks.
        kind.apply_preset({"enable_conv": True, "module_algo_map": {}, "name_algo_map": {}, "use_fnmatch": False})
        if want.module == "lycoris.kohya":
            kind.apply_preset(choice.preset(want))
        kind.apply_preset(
            {
                "unet_target_module": list(where.unet_modules),
                "unet_target_name": list(where.unet_names),
                "text_encoder_target_module": list(where.text_modules),
                "text_encoder_target_name": list(where.text_names),
            }
        )
        return kind(model.text_encoder, model.unet, **_arguments(want, rank, algo))
    finally:
        for name, value in before.items():
            setattr(kind, name, value)


def _arguments(want: Wanted, rank: Ranks, algo: str) -> dict[str, Any]:
    given = want.args
    number = {key: float(given.get(key) or 0) for key in ("rank_dropout", "module_dropout", "constraint")}
    return {
        "multiplier": 1.0,
        "lora_dim": rank.dim,
        "conv_lora_dim": rank.conv_dim,
        "alpha": rank.alpha,
        "conv_alpha": rank.conv_alpha,
        "dropout": float(given.get("dropout") or want.dropout or 0.0),
        **number,
        "use_tucker": choice.is_tucker(want),
        "use_scalar": choice.flag(given.get("use_scalar")),
        "network_module": algo,
        "train_norm": choice.flag(given.get("train_norm")),
        "decompose_both": choice.flag(given.get("decompose_both")),
        "factor": int(given.get("factor", -1)),
        "block_size": int(given.get("block_size", 4)),
        "rescaled": choice.flag(given.get("rescaled")),
        "weight_decompose": choice.flag(given.get("dora_wd")),
        "wd_on_out": choice.flag(given.get("wd_on_output", "True")),
        "full_matrix": choice.flag(given.get("full_matrix")),
        # Sums of outputs where half precision would lose the delta, and where dropout of networks.lora is meant.
        "bypass_mode": choice.flag(given.get("bypass_mode"))
        or (algo == "lora" and (want.module == "networks.lora" or not want.exact)),
        "rs_lora": choice.flag(given.get("rs_lora")),
        "unbalanced_factorization": choice.flag(given.get("unbalanced_factorization")),
    }
