"""Compute the deltas of rotations (diag-oft, boft) and of DoRA.

Source: LyCORIS 3.4.0 modules/diag_oft.py, boft.py and locon.py apply_weight_decompose. diag-oft's own delta with `rescale`
fails on its shapes there. Here it is the merged weight minus the base.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.weights.io.dtypes import Floats


def rotations(tensors: Mapping[str, Floats], outputs: int) -> Floats:
    """Return the Cayley transforms R = (I + Q)(I - Q)^-1, with Q = B - B^T.

    ``alpha`` holds the constraint: the norm of all Q together is at most alpha * outputs, where alpha > 0.
    """
    blocks = tensors["oft_blocks"].astype(np.float64)
    skew = blocks - np.swapaxes(blocks, -1, -2)
    limit = float(tensors["alpha"].reshape(-1)[0]) * outputs if "alpha" in tensors else 0.0
    norm = float(np.linalg.norm(skew)) + 1e-8
    if limit > 0 and norm > limit:
        skew = skew * (limit / norm)
    identity = np.eye(blocks.shape[-1])
    result: Floats = np.matmul(identity + skew, np.linalg.inv(identity - skew)).astype(np.float32)
    return result


def diag_oft_delta(tensors: Mapping[str, Floats], base: Floats) -> Floats:
    """Return rescale * (R - I) W + (rescale - 1) W, R block-diagonal."""
    rotation = rotations(tensors, base.shape[0])
    count, size, _ = rotation.shape
    grouped = base.reshape(count, size, -1)
    change = np.einsum("knm,knr->kmr", rotation - np.eye(size, dtype=np.float32), grouped, optimize=True).reshape(base.shape)
    if "rescale" in tensors:
        rescale = tensors["rescale"].reshape(-1, *(1,) * (base.ndim - 1))
        change = rescale * (change + base) - base
    return np.asarray(change, dtype=np.float32)


def boft_delta(tensors: Mapping[str, Floats], base: Floats) -> Floats:
    """Return rescale * (R_m … R_1 W) - W, each R in a butterfly permutation."""
    rotation = rotations(tensors, base.shape[0])
    levels, _, size, _ = rotation.shape
    rotated: Floats = base.reshape(base.shape[0], -1)
    for level in range(levels):
        reach = 2**level * (size // 2)
        mixed = rotated.reshape(-1, 2, reach, rotated.shape[1]).swapaxes(1, 2).reshape(-1, size, rotated.shape[1])
        mixed = np.matmul(rotation[level], mixed)
        rotated = mixed.reshape(-1, reach, 2, rotated.shape[1]).swapaxes(1, 2).reshape(rotated.shape)
    rotated = rotated.reshape(base.shape)
    if "rescale" in tensors:
        rotated = rotated * tensors["rescale"].reshape(-1, *(1,) * (base.ndim - 1))
    return np.asarray(rotated - base, dtype=np.float32)


def dora(base: Floats, change: Floats, magnitude: Floats) -> Floats:
    """Return dora_scale * (W + change) / norm(W + change) - W.

    The norms are per output or per input, by dora_scale's shape.
    """
    total = base + change.reshape(base.shape)
    tail = (1,) * (base.ndim - 2)
    per_output = magnitude.ndim < 2 or magnitude.shape[1] == 1
    axes = tuple(axis for axis in range(base.ndim) if axis != (0 if per_output else 1))
    norm = np.sqrt(np.sum(np.square(total), axis=axes, keepdims=True)) + np.finfo(np.float32).eps
    shaped = magnitude.reshape(-1, 1, *tail) if per_output else magnitude.reshape(1, -1, *tail)
    return np.asarray(total * (shaped / norm) - base, dtype=np.float32)
