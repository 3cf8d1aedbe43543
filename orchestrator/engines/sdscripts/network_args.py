"""network_args and limits of each network family.

Limits: resume, continue, resize and merge by sd-scripts.

Sources: networks/lora.py of sd-scripts v0.10.1 and lycoris/kohya.py 3.4.0 (create_network). Whether a state dict loads back
into its own modules was measured with LyCORIS 3.4.0; the tests measure it again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.errors import near_miss
from orchestrator.models.bases.sd1 import ARCHITECTURE as SD1
from orchestrator.models.registry import ARCHITECTURES
from orchestrator.recipe import trainer_names
from orchestrator.weights.families import layer_ranks

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from orchestrator.models.architecture import Architecture
    from orchestrator.recipe import Family, Network, Option, Recipe, Scalar
    from orchestrator.recipe.base import Conflict

LYCORIS_VERSION = "3.4.0"
"""4.0.0 and 4.1.3 stop in sd-scripts with "duplicated lora name: lora_unet_time_embedding_linear_1" (default preset)."""

TRAINS_FULL = "3.2.0.post2"
"""Trains the family full, which 3.4.0 does not: its apply_to deletes the layer's weight, which forward needs."""

_BOTH = {
    "rank_dropout": "fraction",
    "module_dropout": "fraction",
    "loraplus_lr_ratio": "number",
    "loraplus_unet_lr_ratio": "number",
    "loraplus_text_encoder_lr_ratio": "number",
}
BLOCK_LISTS = ("block_dims", "block_alphas", "conv_block_dims", "conv_block_alphas")
_WEIGHTS = ("down_lr_weight", "mid_lr_weight", "up_lr_weight")
_LORA = _BOTH | dict.fromkeys((*BLOCK_LISTS, *_WEIGHTS), "text") | {"block_lr_zero_threshold": "number"}
_LYCORIS = _BOTH | {"train_norm": "flag"}
_SCALED = {"use_scalar": "flag", "rs_lora": "flag"}
_DORA = {"dora_wd": "flag", "wd_on_output": "flag"}
_LOKR = {"factor": "whole", "decompose_both": "flag", "full_matrix": "flag", "unbalanced_factorization": "flag"}
_OFT = {"constraint": "number", "rescaled": "flag"}
ARGS: dict[str, dict[str, str]] = {
    "lora": _LORA,
    "locon": _LYCORIS | _SCALED | _DORA,
    "loha": _LYCORIS | _SCALED | _DORA,
    "lokr": _LYCORIS | _SCALED | _DORA | _LOKR,
    "dylora": _LYCORIS | {"block_size": "whole"},
    "glora": _LYCORIS | _SCALED,
    "full": _LYCORIS,
    "diag-oft": _LYCORIS | _OFT,
    "boft": _LYCORIS | _OFT,
}
CHOICES = ("blocks", "layer_dims", "layer_lrs", "exclude", "include")
"""Keys of [network] that choose layers, ranks and rates."""
_KINDS = {
    "flag": "true or false",
    "whole": "a whole number",
    "number": "a number of at least 0",
    "fraction": "a number from 0 to 1",
    "text": "text",
}
# dylora, diag-oft and boft have a bypass in LyCORIS 3.4.0 too, which fails at the first step with a matrix of another shape.
_BYPASS = ("locon", "loha", "lokr", "glora")


def module(recipe: Recipe) -> str:
    """Return --network_module of a recipe."""
    own = ARCHITECTURES[recipe.base.architecture].network_module
    return own if recipe.network.family == "lora" else "lycoris.kohya"


def taken(family: Family, entry: Architecture) -> dict[str, str]:
    """Return a family's network arguments on an architecture, with types."""
    kinds = ARGS[family]
    if family == "lora":
        without = () if entry.block_lists else (*BLOCK_LISTS, *_WEIGHTS, "block_lr_zero_threshold")
        kinds = {name: kind for name, kind in kinds.items() if name not in without}
        of_text = {encoder.argument for encoder in entry.model.text_encoders}
        kinds |= dict.fromkeys(entry.model.targets.optional.keys() - of_text, "flag")
        kinds |= dict.fromkeys(entry.layer_choice.dims, "whole") | dict.fromkeys(entry.layer_choice.numbers, "number")
    return kinds


def problems(network: Network, entry: Architecture = SD1) -> Iterator[Conflict]:
    """Yield (dotted key, problem) for a recipe's network arguments."""
    kinds = taken(network.family, entry)
    for name, value in network.args.items():
        where = f"network.args.{name}"
        if name not in kinds:
            key = trainer_names.recipe_key(name)
            if key and not key.startswith("network.args."):
                yield where, f"set {key} instead"
                continue
            others = [family for family, args in ARGS.items() if name in args and family != network.family]
            for_others = f" ({', '.join(others)} does)" if others else near_miss(name, kinds)
            yield where, f"{network.family} takes no such argument{for_others}"
        elif not _fits(kinds[name], value):
            yield where, f"is {value!r}; takes {_KINDS[kinds[name]]}"
    if network.weights and (why := no_continue(network)):
        yield "network.weights", why
    if network.bypass and network.family not in _BYPASS:
        yield "network.bypass", f"{network.family} has no bypass mode that works"
    # Before what bypass mode ignores: without it, nothing is ignored.
    if network.args.get("dora_wd") and network.bypass:
        yield "network.bypass", "dora_wd normalizes the rebuilt weight, which bypass mode does not build"
    yield from _ignored(network)
    if network.family == "dylora":
        block = network.args.get("block_size", 4)  # LyCORIS's own default
        for key, rank in (("network.dim", network.dim), ("network.conv_dim", network.conv_dim)):
            if isinstance(block, int) and block > 0 and rank is not None and rank % block:
                yield key, f"is {rank}; dylora takes a multiple of its block_size, {block}"


def _ignored(network: Network) -> Iterator[Conflict]:
    """Yield arguments that LyCORIS and networks.lora accept but ignore.

    Measured: the tests train with each.
    """
    family, args = network.family, network.args
    if network.dropout and family != "lora" and not network.bypass:
        instead = "set network.bypass = true" if family in _BYPASS else f"{family} has none; leave it out"
        yield "network.dropout", f"is {network.dropout}; LyCORIS drops nothing out when it rebuilds weights: {instead}"
    ignored = {
        "boft": (False, ""),
        "dylora": (False, ""),
        "glora": (False, " without bypass"),
        "lokr": (True, " with bypass"),
    }
    bypass, condition = ignored.get(family, (None, ""))
    if args.get("rank_dropout") and network.bypass is bypass:
        yield "network.args.rank_dropout", f"is {args['rank_dropout']}; {family}{condition} ignores it"
    if family == "lora" and not any(name in args for name in ("block_dims", *_WEIGHTS)):
        for name in BLOCK_LISTS[1:]:
            if name in args:
                yield f"network.args.{name}", "is ignored without network.args.block_dims"


def _fits(kind: str, value: Scalar) -> bool:
    match kind:
        case "flag":
            return isinstance(value, bool)
        case "whole":
            return isinstance(value, int) and not isinstance(value, bool)
        case "text":
            return isinstance(value, str)
        case _:
            number = isinstance(value, int | float) and not isinstance(value, bool)
            return number and 0 <= float(value) <= (1 if kind == "fraction" else float("inf"))


def text(value: Scalar) -> str:
    """Return a value in sd-scripts' form: True, 64, 4.4e-05."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    return str(value)


def of(recipe: Recipe, preset: str) -> list[str]:
    """Return a recipe's network_args (``key=value``).

    Args:
        recipe: what to train.
        preset: path of the preset file, if the network has one.
    """
    more: dict[str, Scalar] = (
        {**layer_ranks.text_arguments(recipe), **_layers(recipe)} if recipe.network.family == "lora" else {}
    )
    return [*arguments(recipe.network, preset), *(f"{name}={text(value)}" for name, value in more.items())]


def arguments(network: Network, preset: str) -> list[str]:
    """Return network_args (``key=value``) of a network's family.

    Args:
        network: the recipe's table.
        preset: path of the preset file, if the network has one.
    """
    args: dict[str, Scalar] = {}
    if network.family == "lora":
        # Without conv_dim, networks.lora trains no 3x3 convolution.
        args |= {} if network.conv_dim is None else {"conv_dim": network.conv_dim}
    elif network.family != "full":
        # Without conv_dim, LyCORIS uses network_dim: only 0 excludes the convolutions.
        args["conv_dim"] = network.conv_dim or 0
    if network.conv_alpha is not None:
        args["conv_alpha"] = network.conv_alpha
    if network.family != "lora":
        args["algo"] = network.family
        args |= {"use_tucker": True} if network.tucker else {}
        args |= {"bypass_mode": True} if network.bypass else {}
        args |= {"preset": preset} if preset else {}
    # kohya.py passes decompose_both on as text, and "False" is true there: leave it out when it is off.
    args |= {name: value for name, value in network.args.items() if not (name == "decompose_both" and value is False)}
    return [f"{name}={text(value)}" for name, value in args.items()]


def _layers(recipe: Recipe) -> dict[str, str]:
    """Return the arguments that choose layers, ranks and rates."""
    network = recipe.network
    args, patterns = layer_ranks.arguments(recipe)
    pairs: dict[str, Mapping[str, float]] = {"network_reg_dims": patterns, "network_reg_lrs": network.layer_lrs}
    args |= {name: ",".join(f"{key}={text(value)}" for key, value in table.items()) for name, table in pairs.items() if table}
    lists = {"exclude_patterns": network.exclude, "include_patterns": network.include}
    return args | {name: repr(list(patterns)) for name, patterns in lists.items() if patterns}


def no_resume(network: Network) -> str:
    """Return why a state of this network cannot be resumed, or "" if it can.

    accelerate saves ``state_dict()`` and loads it into the parameters. Some modules of LyCORIS 3.4.0 save themselves under
    other names, or folded.
    """
    if network.family == "dylora":
        return "LyCORIS saves a DyLoRA joined and cannot load it back into its blocks"
    if network.args.get("use_scalar") and "use_scalar" in ARGS[network.family]:
        return "use_scalar is folded into the weights of a state; the optimizer's moments would belong to other numbers"
    return ""


def no_continue(network: Network) -> str:
    """Return why network.weights cannot be of this network, or ""."""
    if network.family == "dylora":
        return "LyCORIS loads nothing of a DyLoRA file, without a message"
    return ""


def no_resize(network: Network) -> str:
    """Return why resize_lora.py would corrupt this network, or ""."""
    if network.family not in ("lora", "locon"):
        return f"resize_lora.py does not resize {network.family}, but its metadata claims that it did"
    if network.tucker:
        return "resize_lora.py resizes lora_up and lora_down of a Tucker LoCon but not lora_mid: the file is corrupt"
    if network.args.get("dora_wd"):
        return "resize_lora.py copies dora_scale, which belongs to the unresized weight"
    return ""


def no_merge(network: Network) -> str:
    """Return why svd_merge_lora.py --lbws would corrupt it, or ""."""
    if network.family not in ("lora", "locon") or network.args.get("dora_wd"):
        return f"svd_merge_lora.py reads only lora_up and lora_down; it drops the other tensors of a {network.family}"
    if network.tucker:
        return "svd_merge_lora.py drops lora_mid of a Tucker LoCon"
    return ""


def option(name: str, value: Option) -> list[str]:
    """Return ``--name`` and its values, or nothing for a false switch.

    sd-scripts' switches can only be set.
    """
    if isinstance(value, bool):
        return [f"--{name}"] if value else []
    values = value if isinstance(value, tuple) else (value,)
    return [f"--{name}", *(text(item) for item in values)]
