"""Compute the delta of a layer's weight, by one function per family.

``delta`` functions take float32 tensors by part name and return the change of the layer's weight, (out, in) or
(out, in, k, k), or a flat (out, in*k*k) where the file does not contain the kernel's size. Scale is alpha / rank, 1 without
alpha. Source of every formula: LyCORIS 3.4.0 modules and functional, without their defects (alpha / rank is applied once).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, assert_never

import numpy as np

from orchestrator.weights.families import orthogonal
from orchestrator.weights.families.kinds import ModuleKind, rank

if TYPE_CHECKING:
    from orchestrator.weights.io.dtypes import Floats

Tensors = Mapping[str, "Floats"]


def scale(kind: ModuleKind, tensors: Tensors) -> float:
    """Return alpha / rank, or 1 without alpha or with alpha 0.

    Source: LyCORIS, sd-scripts networks/lora.py:69-73.
    """
    dim = rank(kind, {part: tensor.shape for part, tensor in tensors.items()})
    return alpha_scale(float(tensors["alpha"].reshape(-1)[0]) if "alpha" in tensors else None, dim)


def alpha_scale(alpha: float | None, dim: int | None) -> float:
    """Return alpha / rank, or 1 without either, or with alpha 0."""
    return alpha / dim if alpha and dim else 1.0


def _einsum(formula: str, *tensors: Floats) -> Floats:
    return np.asarray(np.einsum(formula, *tensors, optimize=True), dtype=np.float32)


def _flat(tensor: Floats) -> Floats:
    return tensor.reshape(tensor.shape[0], -1)


def fold_tucker(tensors: Tensors) -> Floats:
    """Return ``lora_mid`` folded into ``lora_down``, (r, in, k, k)."""
    return _einsum("mnhw,ni->mihw", tensors["lora_mid.weight"], _flat(tensors["lora_down.weight"]))


def lora_factors(tensors: Tensors) -> tuple[Floats, Floats]:
    """Return up (out, r) and down (r, in*k*k) of LoRA, LoCon and DyLoRA."""
    return _flat(tensors["lora_up.weight"]), _flat(tensors["lora_down.weight"])


def loha_pairs(tensors: Tensors, *, tucker: bool) -> tuple[Floats, Floats, Floats, Floats]:
    """Return LoHa's factors a1 (out, r), b1 (r, in*k*k), a2, b2.

    The delta is scale * (a1 b1) o (a2 b2).

    Tucker: a is stored (r, out), b (r, in), and t (r, r, k, k) is folded into b: sum_j t[i, j] b[j] (functional/loha.py).
    """
    pairs = []
    for number in ("1", "2"):
        first, second = tensors[f"hada_w{number}_a"], tensors[f"hada_w{number}_b"]
        if tucker:
            core = tensors[f"hada_t{number}"]
            second = _flat(_einsum("ijhw,jr->irhw", core, second))
            first = first.T
        pairs += [first, _flat(second)]
    return pairs[0], pairs[1], pairs[2], pairs[3]


def lokr_pair(tensors: Tensors) -> tuple[Floats, Floats, tuple[int, ...]]:
    """Return LoKr's factors w1 (a, c) and w2 (b, d, *kernel), and the kernel."""
    first = tensors["lokr_w1"] if "lokr_w1" in tensors else tensors["lokr_w1_a"] @ tensors["lokr_w1_b"]
    if "lokr_w2" in tensors:
        second = tensors["lokr_w2"]
    elif "lokr_t2" in tensors:
        second = _einsum("ijhw,ip,jr->prhw", tensors["lokr_t2"], tensors["lokr_w2_a"], tensors["lokr_w2_b"])
    else:
        tail = tensors["lokr_w2_b"]
        second = (tensors["lokr_w2_a"] @ _flat(tail)).reshape(-1, *tail.shape[1:])
    return first, second, second.shape[2:]


def fold_lokr(tensors: Tensors) -> tuple[Floats, Floats]:
    """Return w2_a (b, r) and w2_b (r, d*k*k) with ``lokr_t2`` folded in."""
    return tensors["lokr_w2_a"].T, _flat(_einsum("ijhw,jr->irhw", tensors["lokr_t2"], tensors["lokr_w2_b"]))


def lora_delta(tensors: Tensors) -> Floats:
    """Return scale * up down. LyCORIS modules/locon.py, networks/lora.py."""
    up, down = lora_factors(tensors)
    return (scale(ModuleKind.LORA, tensors) * (up @ down)).reshape(up.shape[0], *tensors["lora_down.weight"].shape[1:])


def tucker_delta(tensors: Tensors) -> Floats:
    """Return scale * up mid down. LyCORIS functional/general.py."""
    folded = fold_tucker(tensors)
    up = _flat(tensors["lora_up.weight"])
    return (scale(ModuleKind.TUCKER, tensors) * (up @ _flat(folded))).reshape(up.shape[0], *folded.shape[1:])


def loha_delta(tensors: Tensors) -> Floats:
    """Return scale * (w1_a w1_b) o (w2_a w2_b). LyCORIS functional/loha.py."""
    a1, b1, a2, b2 = loha_pairs(tensors, tucker=False)
    return scale(ModuleKind.LOHA, tensors) * (a1 @ b1) * (a2 @ b2)


def loha_tucker_delta(tensors: Tensors) -> Floats:
    """Return LoHa with the cores t1 and t2. LyCORIS 0.1 used t1 for both."""
    a1, b1, a2, b2 = loha_pairs(tensors, tucker=True)
    flat = scale(ModuleKind.LOHA_TUCKER, tensors) * (a1 @ b1) * (a2 @ b2)
    return flat.reshape(a1.shape[0], -1, *tensors["hada_t1"].shape[2:])


def lokr_delta(tensors: Tensors) -> Floats:
    """Return scale * kron(w1, w2). LyCORIS functional/lokr.py.

    The shape is (out, in), (out, in, k, k) or (out, in*k*k).
    """
    first, second, kernel = lokr_pair(tensors)
    product = np.kron(first.reshape(*first.shape, *(1 for _ in kernel)), second)
    return scale(ModuleKind.LOKR, tensors) * product


def full_delta(tensors: Tensors) -> Floats:
    """Return the stored difference. LyCORIS modules/full.py."""
    return tensors["diff"]


def norm_delta(tensors: Tensors) -> Floats:
    """Return the stored difference of a norm's weight, (n,)."""
    return tensors["w_norm"]


def ia3_delta(tensors: Tensors, base: Floats) -> Floats:
    """Return ``base`` times the weight, by input or output. modules/ia3.py."""
    factor = tensors["weight"].reshape(-1)
    on_input = bool(tensors["on_input"].reshape(-1)[0])
    tail = (1,) * (base.ndim - 2)
    return base * (factor.reshape(1, -1, *tail) if on_input else factor.reshape(-1, 1, *tail))


def glora_delta(tensors: Tensors, base: Floats) -> Floats:
    """Return scale * (W a1 a2 + b1 b2). LyCORIS modules/glora.py."""
    a1, a2, b1 = (_flat(tensors[part]) for part in ("a1.weight", "a2.weight", "b1.weight"))
    if "bm.weight" in tensors:
        b2 = _flat(_einsum("mnhw,ni->mihw", tensors["bm.weight"], _flat(tensors["b2.weight"])))
    else:
        b2 = _flat(tensors["b2.weight"])
    product = _einsum("oi...,ij->oj...", base, a1 @ a2)
    return np.asarray(scale(ModuleKind.GLORA, tensors) * ((b1 @ b2).reshape(base.shape) + product), dtype=np.float32)


def delta(kind: ModuleKind, tensors: Tensors, base: Floats | None = None) -> Floats:
    """Return the change of a layer's weight.

    Args:
        kind: the module's kind.
        tensors: its tensors by part.
        base: the layer's own weight. Needed by some kinds, and with dora_scale (either axis), which normalizes the sum of
            base and change.

    Raises:
        ValueError: ``base`` is needed and missing.
    """
    if kind.needs_base or "dora_scale" in tensors:
        if base is None:
            message = (
                f"the change of a {kind}{' with dora_scale' if 'dora_scale' in tensors else ''} depends on the base model"
            )
            raise ValueError(message)
        change = _based(kind, tensors, base)
        return orthogonal.dora(base, change, tensors["dora_scale"]) if "dora_scale" in tensors else change
    return _own(kind, tensors)


def _based(kind: ModuleKind, tensors: Tensors, base: Floats) -> Floats:
    match kind:
        case ModuleKind.IA3:
            return ia3_delta(tensors, base)
        case ModuleKind.GLORA:
            return glora_delta(tensors, base)
        case ModuleKind.DIAG_OFT:
            return orthogonal.diag_oft_delta(tensors, base)
        case ModuleKind.BOFT:
            return orthogonal.boft_delta(tensors, base)
        case _:
            return _own(kind, tensors).reshape(base.shape)


def _own(kind: ModuleKind, tensors: Tensors) -> Floats:
    match kind:
        case ModuleKind.LORA:
            return lora_delta(tensors)
        case ModuleKind.TUCKER:
            return tucker_delta(tensors)
        case ModuleKind.LOHA:
            return loha_delta(tensors)
        case ModuleKind.LOHA_TUCKER:
            return loha_tucker_delta(tensors)
        case ModuleKind.LOKR:
            return lokr_delta(tensors)
        case ModuleKind.FULL:
            return full_delta(tensors)
        case ModuleKind.NORM:
            return norm_delta(tensors)
        case ModuleKind.BIAS:
            return tensors["diff_b"]
        case ModuleKind.IA3 | ModuleKind.GLORA | ModuleKind.DIAG_OFT | ModuleKind.BOFT:
            raise ValueError(kind)
    assert_never(kind)
