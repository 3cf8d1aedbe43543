"""The network that the ``--network_*`` arguments describe.

A :class:`NetworkSpec` holds the arguments, and the functions here derive ranks, layers and algorithm from it with the defaults
of sd-scripts' ``networks.lora`` and of LyCORIS. A :class:`BuiltNetwork` is the result of building it.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from lycoris.config import PRESET

from orchestrator.engines.embedded.trainer.target_modules import (
    TEXT_ENCODER,
    UNET_ATTENTION,
    UNET_CONVOLUTION,
    AdapterRanks,
    LayerSelection,
)
from orchestrator.errors import Problem, RecipeError, near_miss

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

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
_STACKABLE_ALGORITHMS = ("lora", "loha")
_STACKABLE_PRESET = frozenset(
    ("enable_conv", "unet_target_module", "unet_target_name", "text_encoder_target_module", "text_encoder_target_name")
)
_NOT_STACKABLE = ("dropout", "rank_dropout", "module_dropout", "use_scalar", "train_norm", "dora_wd", "rs_lora")


class AdapterNetwork(Protocol):
    """The interface between the training loop and a network."""

    def rebuild(self) -> None:
        """Bring the weights of the model's layers up to the current parameters."""

    def saved(self) -> dict[str, Tensor]:
        """Return the tensors of the LoRA file, float32."""

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy the tensors of a LoRA file into the parameters."""

    def train(self, mode: bool = True) -> Any:
        """Switch dropout on or off."""

    def parameters(self) -> Any:
        """Return all trainable tensors."""

    def named_parameters(self) -> Any:
        """Return all trainable tensors by name."""


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """The network's arguments of one command line."""

    module: str
    dim: int
    alpha: float
    dropout: float | None
    args: dict[str, str]
    unet: bool
    text: bool
    full_precision: bool  # no mixed precision, so weights can be rebuilt without rounding small deltas away


@dataclass(frozen=True, slots=True)
class BuiltNetwork:
    """A network on a model, with its halves and their numbers of modules."""

    network: AdapterNetwork
    text: nn.ModuleList
    unet: nn.ModuleList
    text_modules: int
    unet_modules: int
    stacked: bool


def read(args: Any) -> NetworkSpec:
    """Read the ``--network_*`` arguments.

    Raises:
        RecipeError: a network argument without ``=``, or one that the module does not have.
    """
    pairs = [pair.partition("=") for pair in args.network_args]
    names = LORA_ARGS if args.network_module == "networks.lora" else LYCORIS_ARGS
    problems = [Problem("--network_args", f"{key!r} has no =") for key, equals, _ in pairs if not equals]
    problems += [
        Problem("--network_args", f"{key} is unknown to {args.network_module}{near_miss(key, names)}")
        for key, equals, _ in pairs
        if equals and key not in names
    ]
    if problems:
        raise RecipeError(problems)
    return NetworkSpec(
        module=args.network_module,
        dim=args.network_dim or 4,
        alpha=args.network_alpha,
        dropout=args.network_dropout,
        args={key: value for key, _, value in pairs},
        unet=not args.network_train_text_encoder_only,
        text=not args.network_train_unet_only,
        full_precision=args.mixed_precision == "no",
    )


def flag(text: str | None) -> bool:
    """Return whether a network argument is on, by LyCORIS' rule."""
    return (text or "").strip().lower() in {"true", "1", "yes", "on", "t", "y"}


def ranks(spec: NetworkSpec) -> AdapterRanks:
    """Return ranks and alphas with the defaults of the network module.

    Alpha 0 means the rank.
    """
    lora = spec.module == "networks.lora"
    conv_dim = int(spec.args.get("conv_dim", 0 if lora else spec.dim))
    conv_alpha = float(spec.args.get("conv_alpha", 1.0 if lora else spec.alpha))
    if not lora and not preset(spec).get("enable_conv", True):
        conv_dim = 0
    return AdapterRanks(spec.dim, spec.alpha or float(spec.dim), conv_dim, conv_alpha or float(conv_dim))


def selection(spec: NetworkSpec) -> LayerSelection:
    """Return the layers that the network adapts.

    They are sd-scripts' choice for networks.lora and the preset's for LyCORIS.
    """
    if spec.module == "networks.lora":
        convolutions = UNET_CONVOLUTION if "conv_dim" in spec.args else ()
        return LayerSelection(UNET_ATTENTION + convolutions)
    table = preset(spec)
    return LayerSelection(
        table.get("unet_target_module", UNET_ATTENTION + UNET_CONVOLUTION),
        table.get("unet_target_name", ("conv_in", "conv_out", "time_embedding.linear_1", "time_embedding.linear_2")),
        table.get("text_encoder_target_module", TEXT_ENCODER),
        table.get("text_encoder_target_name", ()),
    )


def preset(spec: NetworkSpec) -> dict[str, Any]:
    """Return the preset's table, from a TOML file or LyCORIS.

    That of ``full`` is empty.

    Raises:
        RecipeError: the file cannot be read, or LyCORIS has no preset of this name.
    """
    name = spec.args.get("preset", "full")
    if name == "full":
        return {}
    if Path(name).suffix == ".toml":
        try:
            return tomllib.loads(Path(name).read_text(encoding="utf-8"))
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise RecipeError(Problem(f"--network_args preset={name}", f"cannot be read: {error}")) from error
    if name not in PRESET:
        raise RecipeError(Problem("--network_args", f"preset {name} is unknown{near_miss(name, PRESET)}"))
    return dict(PRESET[name])


def algorithm(spec: NetworkSpec) -> str:
    """Return LyCORIS' algorithm, ``lora`` for networks.lora and LoCon."""
    name = spec.args.get("algo", "lora").lower()
    return "lora" if name == "locon" else name


def is_tucker(spec: NetworkSpec) -> bool:
    """Return whether larger kernels have a Tucker decomposition."""
    return any(flag(spec.args.get(key)) for key in ("use_tucker", "use_cp", "use_conv_cp"))


def is_stackable(spec: NetworkSpec) -> bool:
    """Return whether ``stacked_network`` can train this network."""
    extras = any(flag(value) or _is_positive(value) for key in _NOT_STACKABLE if (value := spec.args.get(key)))
    layers_only = spec.module == "networks.lora" or preset(spec).keys() <= _STACKABLE_PRESET
    return spec.full_precision and not spec.dropout and not extras and layers_only and algorithm(spec) in _STACKABLE_ALGORITHMS


def _is_positive(text: str) -> bool:
    try:
        return float(text) > 0
    except ValueError:
        return False
