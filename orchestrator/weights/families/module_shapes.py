"""Shapes of a module's tensors, by the family of its network. No numpy.

They follow networks/lora.py of sd-scripts v0.10.1 and the modules of LyCORIS 3.4.0. Tests build LyCORIS' real modules and
compare.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.models.layers import ModelLayer
    from orchestrator.recipe import Network

Shapes = dict[str, tuple[int, ...]]


def of(network: Network, module: ModelLayer) -> Shapes | None:
    """Return a module's tensors (suffix -> shape). None: the layer is unfit."""
    large = module.kernel > 1
    rank = (network.conv_dim or network.dim) if large else network.dim
    square = (module.kernel, module.kernel) if module.conv else ()
    plain = module.in_ * module.kernel**2
    tucker = network.tucker and large
    shapes: Shapes | None
    match network.family:
        case "lora" | "locon" | "dylora":
            down, up = (rank, module.in_, *square), (module.out, rank, *((1, 1) if module.conv else ()))
            if network.family == "dylora":
                up = (module.out, rank)
            shapes = {"lora_down.weight": down, "lora_up.weight": up, "alpha": ()}
            if tucker:
                shapes |= {"lora_mid.weight": (rank, rank, *square), "lora_down.weight": (rank, module.in_, 1, 1)}
        case "loha":
            if tucker:
                factors: Shapes = {"a": (rank, module.out), "b": (rank, module.in_)}
                shapes = {f"hada_t{number}": (rank, rank, *square) for number in (1, 2)}
            else:
                factors, shapes = {"a": (module.out, rank), "b": (rank, plain)}, {}
            shapes |= {f"hada_w{number}_{name}": shape for number in (1, 2) for name, shape in factors.items()}
            shapes |= {"alpha": ()}
        case "lokr":
            shapes = _lokr(network, module, rank)
        case "glora":
            ones = (1, 1) if module.conv else ()
            shapes = {"a1.weight": (module.in_, rank, *ones), "a2.weight": (rank, module.in_, *ones)}
            shapes |= {"b1.weight": (module.out, rank, *ones), "b2.weight": (rank, module.in_, *square), "alpha": ()}
        case "full":
            shapes = {"diff": (module.out, module.in_, *square)}
            if module.bias:
                shapes["diff_b"] = (module.out,)
        case "diag-oft" | "boft":
            shapes = _oft(network, module, rank)
    return _decomposed(network, module, shapes)


def _decomposed(network: Network, module: ModelLayer, shapes: Shapes | None) -> Shapes | None:
    """Add DoRA's magnitudes where the network has them."""
    if shapes is not None and network.args.get("dora_wd") and network.family in {"locon", "loha", "lokr"}:
        ones = (1, 1) if module.conv else ()
        on_output = network.args.get("wd_on_output", True)
        shapes = shapes | {"dora_scale": (module.out, 1, *ones) if on_output else (1, module.in_, *ones)}
    return shapes


def factorization(dimension: int, factor: int) -> tuple[int, int]:
    """Return the nearest two factors of a dimension, as LyCORIS splits it.

    The first is at most ``factor``.
    """
    if factor > 0 and dimension % factor == 0:
        return min(factor, dimension // factor), max(factor, dimension // factor)
    limit = factor if factor > 0 else dimension
    best = (1, dimension)
    for small in range(2, dimension + 1):
        if best[0] >= best[1] or small > limit:
            break
        if dimension % small == 0:
            if small + dimension // small > sum(best):
                break
            best = (small, dimension // small)
    return min(best), max(best)


def _lokr(network: Network, module: ModelLayer, rank: int) -> Shapes:
    factor = int(network.args.get("factor", -1))
    full = bool(network.args.get("full_matrix"))
    (in_m, in_n), (out_l, out_k) = factorization(module.in_, factor), factorization(module.out, factor)
    if network.args.get("unbalanced_factorization"):
        out_l, out_k = out_k, out_l
    square = (module.kernel, module.kernel) if module.conv else ()
    shapes: Shapes = {"alpha": ()}
    if network.args.get("decompose_both") and rank < max(out_l, in_m) / 2 and not full:
        shapes |= {"lokr_w1_a": (out_l, rank), "lokr_w1_b": (rank, in_m)}
    else:
        shapes["lokr_w1"] = (out_l, in_m)
    if rank >= max(out_k, in_n) / 2 or full:
        shapes["lokr_w2"] = (out_k, in_n, *square)
    elif network.tucker and module.kernel > 1:
        shapes |= {"lokr_t2": (rank, rank, *square), "lokr_w2_a": (rank, out_k), "lokr_w2_b": (rank, in_n)}
    else:
        shapes |= {"lokr_w2_a": (out_k, rank), "lokr_w2_b": (rank, in_n * module.kernel**2)}
    return shapes


def _power2(dimension: int, factor: int) -> tuple[int, int] | None:
    """Return the largest even block up to ``factor``, and the power of two."""
    split = None
    for block in range(2, min(factor, dimension) + 1, 2):
        if dimension % block == 0 and (dimension // block).bit_count() == 1:
            split = (block, dimension // block)
    return split


def _oft(network: Network, module: ModelLayer, rank: int) -> Shapes | None:
    if network.family == "diag-oft":
        size, count = factorization(module.out, rank)
        shapes: Shapes = {"oft_blocks": (count, size, size), "alpha": ()}
    else:
        split = _power2(module.out, rank)
        if split is None:
            return None
        size, count = split
        shapes = {"oft_blocks": ((count - 1).bit_count() + 1, count, size, size), "alpha": ()}
    if network.args.get("rescaled"):
        shapes["rescale"] = (module.out, *((1, 1, 1) if module.conv else (1,)))
    return shapes
