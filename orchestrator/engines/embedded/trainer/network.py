"""The network that is trained: chosen by ``--network_module`` and ``--network_args``, lean where it can be.

``networks.lora`` and LyCORIS' lora, locon and loha run on ``stacked_network`` in float32. Dropout, DoRA, a
trained scalar, mixed precision and LyCORIS' other algorithms run on the modules of lycoris-lora itself, under the same names.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch

from orchestrator.engines.embedded.trainer import target_modules
from orchestrator.engines.embedded.trainer.stacked_network import LeanNetwork
from orchestrator.errors import Problem, RecipeError, near_miss

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from orchestrator.engines.embedded.trainer.model import Model

LORA_ARGS = frozenset(
    (
        "conv_dim",
        "conv_alpha",
        "rank_dropout",
        "module_dropout",
        "loraplus_lr_ratio",
        "loraplus_unet_lr_ratio",
        "loraplus_text_encoder_lr_ratio",
    )
)
LYCORIS_ARGS = LORA_ARGS | frozenset(
    (
        "algo",
        "preset",
        "dropout",
        "use_tucker",
        "use_cp",
        "use_conv_cp",
        "use_scalar",
        "block_size",
        "train_norm",
        "constraint",
        "rescaled",
        "dora_wd",
        "wd_on_output",
        "full_matrix",
        "bypass_mode",
        "rs_lora",
        "unbalanced_factorization",
        "decompose_both",
        "factor",
    )
)
_SIMPLE_PRESET = frozenset(
    ("enable_conv", "unet_target_module", "unet_target_name", "text_encoder_target_module", "text_encoder_target_name")
)
_HEAVY = ("dropout", "rank_dropout", "module_dropout", "use_scalar", "train_norm", "dora_wd", "rs_lora")


class Network(Protocol):
    """What the training loop needs of a network."""

    def rebuild(self) -> None:
        """Bring the model's layers up to the parameters of this moment."""

    def saved(self) -> dict[str, Tensor]:
        """The tensors of the file, float32."""

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take a file's tensors."""

    def train(self, mode: bool = True) -> Any:
        """Switch dropout on or off."""

    def parameters(self) -> Any:
        """All trainable tensors."""

    def named_parameters(self) -> Any:
        """All trainable tensors by name."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the command line says about the network."""

    module: str
    dim: int
    alpha: float
    dropout: float | None
    args: dict[str, str]
    unet: bool
    text: bool
    exact: bool  # float32: the lean form may rebuild weights


@dataclass(frozen=True, slots=True)
class Built:
    """A network, its two halves for the optimizer, and how many modules each has."""

    network: Network
    text: nn.ModuleList
    unet: nn.ModuleList
    text_modules: int
    unet_modules: int
    lean: bool


def wanted(args: Any) -> Wanted:
    """Read ``--network_*``.

    Raises:
        RecipeError: an argument without ``=``, an unknown one, or a value that is not a number.
    """
    pairs = [pair.partition("=") for pair in args.network_args]
    known = LORA_ARGS if args.network_module == "networks.lora" else LYCORIS_ARGS
    problems = [Problem("--network_args", f"{key!r} has no =") for key, equals, _ in pairs if not equals]
    problems += [
        Problem("--network_args", f"{key} is unknown to {args.network_module}{near_miss(key, known)}")
        for key, equals, _ in pairs
        if equals and key not in known
    ]
    if problems:
        raise RecipeError(problems)
    values = {key: value for key, _, value in pairs}
    return Wanted(
        args.network_module,
        args.network_dim or 4,
        args.network_alpha,
        args.network_dropout,
        values,
        not args.network_train_text_encoder_only,
        not args.network_train_unet_only,
        args.mixed_precision == "no",
    )


def build(model: Model, want: Wanted, weights: Mapping[str, Tensor] | None = None) -> Built:
    """Attach a network to the model. With ``weights`` every module's rank and alpha come from there (dim_from_weights)."""
    try:
        if _is_lean(want):
            return _lean(model, want, weights)
        from orchestrator.engines.embedded.trainer import lycoris_network  # noqa: PLC0415 - lycoris-lora is imported only where it is used

        return lycoris_network.build(model, want, selection(want), ranks(want), weights)
    except ValueError as error:
        raise RecipeError(Problem("network", str(error))) from error


def flag(text: str | None) -> bool:
    """A switch in network_args, as LyCORIS reads it."""
    return (text or "").strip().lower() in {"true", "1", "yes", "on", "t", "y"}


def ranks(want: Wanted) -> target_modules.Ranks:
    """Ranks and alphas, with the defaults of the two network modules (alpha 0 means the rank)."""
    lora = want.module == "networks.lora"
    conv_dim = int(want.args.get("conv_dim", 0 if lora else want.dim))
    conv_alpha = float(want.args.get("conv_alpha", 1.0 if lora else want.alpha))
    if not lora and not preset(want).get("enable_conv", True):
        conv_dim = 0
    return target_modules.Ranks(want.dim, want.alpha or float(want.dim), conv_dim, conv_alpha or float(conv_dim))


def selection(want: Wanted) -> target_modules.Selection:
    """The layers: sd-scripts' choice for networks.lora, the preset's for LyCORIS (``full`` by default)."""
    if want.module == "networks.lora":
        more = target_modules.UNET_CONVOLUTION if "conv_dim" in want.args else ()
        return target_modules.Selection(target_modules.UNET_ATTENTION + more)
    chosen = preset(want)
    return target_modules.Selection(
        chosen.get("unet_target_module", target_modules.UNET_ATTENTION + target_modules.UNET_CONVOLUTION),
        chosen.get("unet_target_name", ("conv_in", "conv_out", "time_embedding.linear_1", "time_embedding.linear_2")),
        chosen.get("text_encoder_target_module", target_modules.TEXT_ENCODER),
        chosen.get("text_encoder_target_name", ()),
    )


def preset(want: Wanted) -> dict[str, Any]:
    """The preset's table: a TOML file, or one of LyCORIS' own by name; nothing for ``full``."""
    name = want.args.get("preset", "full")
    if name == "full":
        return {}
    if Path(name).suffix == ".toml":
        try:
            return tomllib.loads(Path(name).read_text(encoding="utf-8"))
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise RecipeError(Problem(f"--network_args preset={name}", f"cannot be read: {error}")) from error
    from lycoris.config import PRESET  # noqa: PLC0415

    if name not in PRESET:
        raise RecipeError(Problem("--network_args", f"preset {name} is unknown{near_miss(name, PRESET)}"))
    return dict(PRESET[name])


def algorithm(want: Wanted) -> str:
    """LyCORIS' algo; ``lora`` for networks.lora."""
    name = want.args.get("algo", "lora").lower()
    return "lora" if name == "locon" else name


def is_tucker(want: Wanted) -> bool:
    """Whether larger kernels are factored the Tucker way."""
    return any(flag(want.args.get(key)) for key in ("use_tucker", "use_cp", "use_conv_cp"))


def _is_lean(want: Wanted) -> bool:
    plain = not want.dropout and not any(flag(v) or _positive(v) for key in _HEAVY if (v := want.args.get(key)))
    simple = want.module == "networks.lora" or preset(want).keys() <= _SIMPLE_PRESET
    return want.exact and plain and simple and algorithm(want) in {"lora", "loha"}


def _positive(text: str) -> bool:
    try:
        return float(text) > 0
    except ValueError:
        return False


def _lean(model: Model, want: Wanted, weights: Mapping[str, Tensor] | None) -> Built:
    text, unet = target_modules.find(model, selection(want), ranks(want))
    text, unet = (text if want.text else []), (unet if want.unet else [])
    if weights is not None:
        text, unet = [_from_file(text, weights), _from_file(unet, weights)]
    network = LeanNetwork(text, unet, algorithm(want), tucker=is_tucker(want)).to(model.device)
    return Built(network, network.text, network.unet, len(text), len(unet), lean=True)


def _from_file(found: list[target_modules.Target], weights: Mapping[str, Tensor]) -> list[target_modules.Target]:
    """Targets that the file has, with its ranks and alphas."""
    result: list[target_modules.Target] = []
    for target in found:
        rank = next(
            (
                weights[key].shape[0]
                for factor in ("lora_down.weight", "hada_w1_b")
                if (key := f"{target.name}.{factor}") in weights
            ),
            None,
        )
        if rank is not None:
            alpha = weights.get(f"{target.name}.alpha", torch.tensor(float(rank)))
            result.append(target_modules.Target(target.name, target.module, int(rank), float(alpha)))
    return result
