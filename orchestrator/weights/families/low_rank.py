"""Convert low-rank families to thin matrices, and these to LoRA tensors."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from orchestrator.errors import Problem, RecipeError, counted
from orchestrator.models import names
from orchestrator.weights.families import deltas, svd
from orchestrator.weights.families.kinds import ModuleKind
from orchestrator.weights.io import dtypes, writer
from orchestrator.weights.io.safetensors_io import Entry

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from orchestrator.models.registry import ArchitectureName
    from orchestrator.weights.families.adapter import Adapter, AdapterModule
    from orchestrator.weights.families.deltas import Tensors
    from orchestrator.weights.io.dtypes import Floats
    from orchestrator.weights.io.safetensors_io import Body
    from orchestrator.weights.io.writer import Piece

INFINITE = "holds numbers that are not finite, or too large to be multiplied"


@dataclass(frozen=True, slots=True)
class LowRank:
    """A delta scale * up down, with up (out, r) and down (r, in*k*k).

    ``kernel`` is None for a linear layer.
    """

    up: Floats
    down: Floats
    scale: float
    kernel: tuple[int, ...] | None
    outputs: int
    inputs: int

    @property
    def finite(self) -> bool:
        """Return whether all numbers of the factors are finite."""
        return bool(np.isfinite(self.up).all() and np.isfinite(self.down).all())

    @property
    def full_rank(self) -> int:
        """Return the number of singular values of the whole matrix."""
        return min(self.outputs, self.inputs)

    def emptied(self) -> LowRank:
        """Return the product without its factors, with its sizes only."""
        empty = np.zeros((0, 0), np.float32)
        return replace(self, up=empty, down=empty)


def passed(lora: Adapter) -> int:
    """Return how many modules have a norm or a bias that no rank applies to."""
    return sum(module.vector or "diff_b" in module.keys for module in lora.modules)


def explain_passed(count: int) -> list[str]:
    """Return the line of a report about norms and biases."""
    return [f"{counted(count, 'module')} with norms or biases alone: without a rank, unchanged"] if count else []


def vectors(body: Body, module: AdapterModule, dtype: str, weight: float = 1.0) -> list[Piece]:
    """Return the deltas of norms and biases in another dtype, weighted."""
    made = []
    for part, key in module.keys.items():
        if module.vector or part == "diff_b":
            values = np.float32(weight) * dtypes.load(body, key)
            made.append(writer.raw(key, dtype, values.shape, dtypes.encode(values, dtype, key)))
    return made


def bundled(lora: Adapter, body: Body, dtype: str | None = None) -> list[Piece]:
    """Return the embeddings beside a LoRA, as another type or as they are."""
    made = []
    for key in lora.bundled:
        entry = lora.header.entries[key]
        if dtype is None or entry.dtype not in (*dtypes.FLOATING, *dtypes.NARROW):
            made.append(writer.copy(body, key))
        else:
            chunks = partial(dtypes.encoded, body, key, dtype)
            made.append(writer.Piece(Entry(key, dtype, entry.shape), chunks))
    return made


def vector_bytes(module: AdapterModule, dtype: str) -> int:
    """Return the bytes of :func:`vectors`."""
    sizes = (int(np.prod(shape)) for part, shape in module.shapes.items() if module.vector or part == "diff_b")
    return dtypes.width(dtype) * sum(sizes)


def refusals(lora: Adapter, verb: str, *, rebuilt: bool = False) -> Iterator[Problem]:
    """Yield a problem if any module is not a low-rank product.

    Norms and biases have no rank, and pass. With ``rebuilt``, so do modules whose delta depends on the base model.
    """
    ranked = [module for module in lora.modules if not module.vector]
    if not ranked:
        yield Problem(
            str(lora.header.path), f"holds norms and biases alone; {verb} needs low-rank products", "merge scales them"
        )
    others = [module for module in ranked if module.needs_base or not module.kind.low_rank]
    unsupported = [module for module in others if not (rebuilt and module.needs_base)]
    if unsupported:
        way = "convert --to lora --rank N makes a LoRA of it"
        if all(module.needs_base for module in unsupported):
            way = "resize IN OUT --base MODEL --sv-ratio 16 rebuilds them whole and makes a LoRA of them"
        titles = ", ".join(sorted({module.title for module in unsupported}))
        yield Problem(str(lora.header.path), f"holds {titles}; {verb} needs low-rank products", way)


def product(module: AdapterModule, tensors: Tensors, architecture: ArchitectureName | None) -> LowRank:
    """Return the delta of a low-rank module as a product of finite numbers.

    Raises:
        RecipeError: its numbers, or the products of its factors, are not finite in float32.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        result = unchecked(module, tensors, architecture)
    if not (result.finite and np.isfinite(result.scale)):
        raise RecipeError(Problem(module.name, INFINITE, "did the loss become NaN? an earlier checkpoint may be sound"))
    return result


def unchecked(module: AdapterModule, tensors: Tensors, architecture: ArchitectureName | None) -> LowRank:
    """Return the delta of a low-rank module as one product, finite or not.

    LoRA stays as it is, and Tucker's core is folded into down. LoHa becomes the column-wise and row-wise Kronecker products
    of its factors, of rank r^2, or the whole matrix where that is smaller. LoKr and ``full`` become the whole matrix.
    """
    match module.kind:
        case ModuleKind.LORA | ModuleKind.TUCKER:
            down = deltas.fold_tucker(tensors) if module.kind is ModuleKind.TUCKER else tensors["lora_down.weight"]
            up = tensors["lora_up.weight"].reshape(tensors["lora_up.weight"].shape[0], -1)
            size = down.shape[2:] if down.ndim > 2 else None
            return _made(up, down.reshape(down.shape[0], -1), deltas.scale(module.kind, tensors), size)
        case ModuleKind.LOHA | ModuleKind.LOHA_TUCKER:
            a1, b1, a2, b2 = deltas.loha_pairs(tensors, tucker=module.kind is ModuleKind.LOHA_TUCKER)
            up_rank = a1.shape[1] * a2.shape[1]
            scale = deltas.scale(module.kind, tensors)
            size = kernel(module, b1.shape[1], architecture)
            if up_rank >= min(a1.shape[0], b1.shape[1]):
                return _made(*svd.dense_factors((a1 @ b1) * (a2 @ b2)), scale, size)
            up = (a1[:, :, None] * a2[:, None, :]).reshape(a1.shape[0], up_rank)
            return _made(up, (b1[:, None, :] * b2[None, :, :]).reshape(up_rank, -1), scale, size)
        case ModuleKind.LOKR | ModuleKind.FULL:
            whole = deltas.delta(module.kind, tensors)
            flat = np.ascontiguousarray(whole.reshape(whole.shape[0], -1))
            size = whole.shape[2:] if whole.ndim > 2 else kernel(module, flat.shape[1], architecture)
            return _made(*svd.dense_factors(flat), 1.0, size)
        case _:
            message = f"{module.kind} is not a low-rank product"
            raise ValueError(message)


def _made(up: Floats, down: Floats, scale: float, kernel: Sequence[int] | None) -> LowRank:
    return LowRank(up, down, scale, None if kernel is None else tuple(kernel), up.shape[0], down.shape[1])


def kernel(module: AdapterModule, inputs: int, architecture: ArchitectureName | None) -> tuple[int, ...] | None:
    """Return the kernel of a layer with flat tensors. None: linear.

    Args:
        module: the module.
        inputs: columns of its flat weight.
        architecture: decides about names.

    Raises:
        RecipeError: ``inputs`` is not a multiple of the kernel's size.
    """
    if "hada_t1" in module.shapes:
        shape: tuple[int, ...] | None = module.shapes["hada_t1"][2:]
    else:
        size = names.kernel(module.kohya, architecture)
        shape = None if size is None else (size, size)
    if inputs % int(np.prod(shape or (), dtype=int)):
        shown = "x".join(map(str, shape or ()))
        raise RecipeError(
            Problem(module.name, f"has {inputs} inputs, not a multiple of a {shown} kernel", "is the file damaged?")
        )
    return shape


def pieces(
    module: AdapterModule, up: Floats, down: Floats, kernel: tuple[int, ...] | None, *, alpha: float, dtype: str
) -> list[Piece]:
    """Return up (out, r) and down (r, in*k*k) as tensors of a LoRA module.

    A zero product becomes zeros in both factors. PEFT's naming has no alpha, so alpha / rank is multiplied into up.

    Raises:
        RecipeError: a number is not finite, or does not fit ``dtype``.
    """
    if not (np.isfinite(up).all() and np.isfinite(down).all()):
        raise RecipeError(Problem(module.name, INFINITE))
    rank = up.shape[1]
    tail = () if kernel is None else kernel
    down_shape = (rank, down.shape[1] // int(np.prod(tail, dtype=int)), *tail)
    up_shape = (up.shape[0], rank, *(1 for _ in tail))
    peft = names.naming_of(module.name) == "peft"
    keys = ("lora_B.weight", "lora_A.weight") if peft else ("lora_up.weight", "lora_down.weight")
    up_key = module.keys.get("lora_up.weight", f"{module.name}.{keys[0]}")
    down_key = module.keys.get("lora_down.weight", f"{module.name}.{keys[1]}")
    alpha_key = module.keys.get("alpha", f"{module.name}.alpha")
    folded = peft and "alpha" not in module.keys
    if folded:
        up = up * np.float32(alpha / rank)
    made = [
        writer.raw(up_key, dtype, up_shape, dtypes.encode(up, dtype, up_key)),
        writer.raw(down_key, dtype, down_shape, dtypes.encode(down, dtype, down_key)),
    ]
    if not folded:
        made.append(writer.raw(alpha_key, dtype, (), dtypes.encode(np.array(alpha, np.float32), dtype, alpha_key)))
    return made


def size(module: AdapterModule, product: LowRank, rank: int, dtype: str) -> int:
    """Return the bytes of the :func:`pieces` of a product at a rank."""
    alpha = int("alpha" in module.keys or names.naming_of(module.name) == "kohya")
    return dtypes.width(dtype) * (rank * (product.outputs + product.inputs) + alpha)


def stated_alpha(made: Sequence[Piece]) -> float | None:
    """Return the alpha among the pieces of a module."""
    for piece in made:
        if piece.entry.name.endswith(".alpha"):
            return float(dtypes.decode(b"".join(piece.chunks()), piece.entry.dtype)[0])
    return None
