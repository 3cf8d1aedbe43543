"""Convert one module of a file to another form.

Whole differences are six times as large as their LoRA, so they are computed while they are written.
"""

from __future__ import annotations

import contextlib
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Literal, assert_never

import numpy as np

from orchestrator.errors import Problem, RecipeError
from orchestrator.models.conventions import Target
from orchestrator.weights.families import deltas, kinds, low_rank, svd
from orchestrator.weights.families.kinds import ModuleKind
from orchestrator.weights.io import dtypes, writer
from orchestrator.weights.io.safetensors_io import CHUNK, Entry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Future

    from orchestrator.weights.families.adapter import Adapter, AdapterModule
    from orchestrator.weights.families.base_model import BaseModel
    from orchestrator.weights.io.safetensors_io import Body
    from orchestrator.weights.io.writer import Piece

Form = Literal["same", "plain", "full", "lora", Target]


@dataclass(frozen=True, slots=True)
class Task:
    """Task of every module: target, source, base model, rank or error, type."""

    to: Form
    lora: Adapter
    body: Body
    base: BaseModel | None
    rank: int | None
    max_error: float | None
    dtype: str | None


@contextlib.contextmanager
def whole(task: Task) -> Iterator[list[Piece]]:
    """Yield the pieces of a file of whole differences, computed when written.

    At most one per core is in memory, and the one that is being written.
    """
    copied = [module for module in task.lora.modules if module.kind is ModuleKind.FULL or module.vector]
    computed = [module for module in task.lora.modules if module not in copied]
    with svd.one_blas_thread(), ThreadPoolExecutor(svd.cores()) as pool:
        ahead = _Ahead(partial(_difference, task), computed, pool)
        try:
            made = [writer.Piece(_entry(task, module), partial(ahead.chunks, index)) for index, module in enumerate(computed)]
            biases = [piece for module in computed for piece in _bias(task, module, rename=module.kohya)]
            yield [*made, *biases, *(piece for module in copied for piece in _copied(task, module))]
        finally:
            pool.shutdown(cancel_futures=True)


class _Ahead:
    """Tensors of modules in order. Reading one starts computing the next."""

    def __init__(
        self, compute: Callable[[AdapterModule], bytes], modules: Sequence[AdapterModule], pool: ThreadPoolExecutor
    ) -> None:
        self._compute, self._modules, self._pool = compute, modules, pool
        self._started: dict[int, Future[bytes]] = {}

    def chunks(self, index: int) -> Iterator[memoryview]:
        for next_ in range(index, min(index + svd.cores(), len(self._modules))):
            if next_ not in self._started:
                self._started[next_] = self._pool.submit(self._compute, self._modules[next_])
        view = memoryview(self._started.pop(index).result())
        for begin in range(0, len(view), CHUNK):
            yield view[begin : begin + CHUNK]


def _entry(task: Task, module: AdapterModule) -> Entry:
    """Return name, type and shape of a module's whole difference."""
    base = task.base if module.needs_base else None
    if base:
        shape = base.shape(module)
    else:
        size = kinds.extent(module.kind, module.shapes)
        if size is None:
            message = f"{module.kind} has no shape without a base"
            raise ValueError(message)
        kernel = kinds.kernel(module.shapes) or low_rank.kernel(module, size[1], task.lora.architecture) or ()
        shape = (size[0], size[1] // math.prod(kernel), *kernel)
    return Entry(f"{module.kohya}.diff", _dtype(task, module), shape)


def _difference(task: Task, module: AdapterModule) -> bytes:
    base, entry = task.base if module.needs_base else None, _entry(task, module)
    weight = base.weight(module) if base else None
    with np.errstate(over="ignore", invalid="ignore"):
        difference = deltas.delta(module.kind, dtypes.load_module(task.body, module), weight)
    if not np.isfinite(difference).all():
        raise RecipeError(Problem(module.name, low_rank.INFINITE))
    return dtypes.encode(difference, entry.dtype, entry.name)


def changed(task: Task, module: AdapterModule) -> tuple[list[Piece], float, float]:
    """Return a module's new pieces, and its lost and whole squared norm."""
    match task.to:
        case "same":
            return _copied(task, module), 0.0, 0.0
        case "plain":
            if module.kind is ModuleKind.TUCKER and not module.dora:
                return _plain(task, module), 0.0, 0.0
            return _folded(task, module) if module.tucker else _shaped(task, module), 0.0, 0.0
        case "lora":
            return _lora(task, module)
        case "full" | "diffusers" | "kohya" | "peft" | "comfy" | "original":
            message = f"modules do not become {task.to} one by one"
            raise ValueError(message)
    assert_never(task.to)


def _dtype(task: Task, module: AdapterModule) -> str:
    own = {task.lora.header.entries[key].dtype for part, key in module.keys.items() if part != "alpha"} & set(dtypes.FLOATING)
    return task.dtype or ("F32" if "F32" in own or "F64" in own else min(own, default="F16"))


def _copied(task: Task, module: AdapterModule, rename: str | None = None) -> list[Piece]:
    made = []
    for part, key in module.keys.items():
        entry = task.lora.header.entries[key]
        name = f"{rename}.{part}" if rename else key
        floating = entry.dtype in (*dtypes.FLOATING, *dtypes.NARROW)
        if task.dtype is None or entry.dtype == task.dtype or not floating:
            made.append(writer.Piece(Entry(name, entry.dtype, entry.shape), partial(task.body.chunks, key)))
        else:
            chunks = partial(dtypes.encoded, task.body, key, task.dtype)
            made.append(writer.Piece(Entry(name, task.dtype, entry.shape), chunks))
    return made


def _plain(task: Task, module: AdapterModule) -> list[Piece]:
    product = low_rank.product(module, dtypes.load_module(task.body, module), task.lora.architecture)
    rank = product.up.shape[1]
    made = low_rank.pieces(
        module, product.up, product.down, product.kernel, alpha=product.scale * rank, dtype=_dtype(task, module)
    )
    return [*made, *_bias(task, module)]


def _shaped(task: Task, module: AdapterModule) -> list[Piece]:
    """Return a module whose up has the axes of its down.

    LyCORIS' DyLoRA saves that of a convolution as (out, rank), which sd-scripts and diffusers do not load.
    """
    up, down = (module.shapes.get(part, ()) for part in ("lora_up.weight", "lora_down.weight"))
    pieces = _copied(task, module)
    if len(up) >= len(down):
        return pieces
    key, shape = module.keys["lora_up.weight"], (*up, *(1 for _ in down[len(up) :]))
    return [replace(piece, entry=replace(piece.entry, shape=shape)) if piece.entry.name == key else piece for piece in pieces]


def _folded(task: Task, module: AdapterModule) -> list[Piece]:
    """Return a module with its core folded into the input factor."""
    if module.kind is ModuleKind.TUCKER:
        what = "a Tucker core beside dora_scale is not folded"
        raise RecipeError(Problem(module.name, what, "convert --to full --base MODEL"))
    tensors = dtypes.load_module(task.body, module)
    if module.kind is ModuleKind.LOKR:
        made = dict(zip(("lokr_w2_a", "lokr_w2_b"), deltas.fold_lokr(tensors), strict=True))
    else:
        made = dict(
            zip(("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"), deltas.loha_pairs(tensors, tucker=True), strict=True)
        )
    dtype, cores = _dtype(task, module), ("lokr_t2", "hada_t1", "hada_t2")
    replaced = {module.keys[part]: value for part, value in made.items()}
    dropped = {*replaced, *(module.keys[part] for part in cores if part in module.keys)}
    pieces = [writer.raw(key, dtype, value.shape, dtypes.encode(value, dtype, key)) for key, value in replaced.items()]
    return [*pieces, *(piece for piece in _copied(task, module) if piece.entry.name not in dropped)]


def _bias(task: Task, module: AdapterModule, rename: str | None = None) -> list[Piece]:
    """Return the difference of a module's bias, which every form keeps."""
    return [piece for piece in _copied(task, module, rename) if piece.entry.name.endswith(".diff_b")]


def _lora(task: Task, module: AdapterModule) -> tuple[list[Piece], float, float]:
    if module.vector:
        return _copied(task, module), 0.0, 0.0
    product = low_rank.product(module, dtypes.load_module(task.body, module), task.lora.architecture)
    factored = svd.factorize(product.up, product.down)
    squares = (factored.values * product.scale) ** 2
    whole = float(squares.sum())
    if task.max_error is not None:
        left = whole - np.cumsum(squares)
        rank = int(np.searchsorted(-left, -(task.max_error**2) * whole)) + 1
    else:
        rank = task.rank or 1
    rank = max(1, min(rank, product.full_rank))
    up, down = svd.truncate(factored, product.up, product.down, rank)
    made = low_rank.pieces(module, up, down, product.kernel, alpha=product.scale * rank, dtype=_dtype(task, module))
    return [*made, *_bias(task, module)], float(squares[rank:].sum()), whole
