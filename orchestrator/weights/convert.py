"""From one form of LoRA file to another: Tucker to plain, any family to full or LoRA, names of kohya and diffusers."""

from __future__ import annotations

import contextlib
from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from orchestrator.errors import Problem, RecipeError
from orchestrator.weights import convert_forms
from orchestrator.weights.convert_forms import Form, Task
from orchestrator.weights.families import low_rank, svd
from orchestrator.weights.families.adapter import Adapter, adapter
from orchestrator.weights.families.base_model import BaseModel
from orchestrator.weights.families.kinds import ModuleKind
from orchestrator.weights.io import dtypes, metadata, peft, writer
from orchestrator.weights.io.safetensors_io import Body, check_output, read_header

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.weights.io.writer import Hashes, Piece


@dataclass(frozen=True, slots=True)
class ConvertReport:
    """What a conversion did: how many modules of which kind, tensor bytes, and for approximations the relative error."""

    to: Form
    kinds: dict[str, int]
    bytes_before: int
    bytes_after: int
    relative_error: float
    hashes: Hashes

    def table(self) -> list[str]:
        """Return the summary in lines."""
        exact = "exact but for rounding" if self.relative_error == 0 else f"relative error {self.relative_error:.3g}"
        return [
            *(f"{count} modules of {kind}" for kind, count in self.kinds.items()),
            f"{self.bytes_before:,} -> {self.bytes_after:,} tensor bytes",
            exact,
        ]

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain JSON."""
        return {
            "to": self.to,
            "kinds": self.kinds,
            "bytes_before": self.bytes_before,
            "bytes_after": self.bytes_after,
            "relative_error": self.relative_error,
            "model_hash": self.hashes.model,
        }


def convert(
    source: Path,
    output: Path,
    to: Form = "same",
    *,
    rank: int | None = None,
    max_error: float | None = None,
    save_precision: str | None = None,
    base_model: Path | None = None,
    overwrite: bool = False,
) -> ConvertReport:
    """Write ``source`` in another form to ``output``.

    ``plain`` folds Tucker cores, exactly; ``full`` stores every change whole (ia3, glora, oft and dora_scale need
    ``base_model``, a safetensors checkpoint); ``lora`` is the best LoRA of ``rank``, or with at most the relative
    ``max_error`` per module; ``diffusers`` and ``kohya`` change names (diffusers has no alpha: it is folded); ``same``
    changes only the precision, as ``save_precision`` does everywhere (default: each tensor's own).

    Raises RecipeError, and nothing is written, for anything that cannot be done exactly as asked.
    """
    check_output(output, [source, *([base_model] if base_model else [])], overwrite=overwrite)
    found = adapter(read_header(source))
    dtype = dtypes.dtype_of(save_precision) if save_precision else None
    with contextlib.ExitStack() as stack:
        opened = BaseModel(base_model, found.architecture) if base_model else None
        if opened:
            stack.callback(opened.close)
        _check(found, to, rank, max_error, opened)
        task = Task(to, found, stack.enter_context(Body(found.header)), opened, rank, max_error, dtype)
        pieces: list[Piece] = []
        lost = energy = 0.0
        if to == "full":
            pieces = stack.enter_context(convert_forms.whole(task))
        else:
            for made, gone, whole in svd.each(partial(convert_forms.changed, task), found.modules):
                pieces += made
                lost, energy = lost + gone, energy + whole
        size = sum(piece.entry.size for piece in pieces)
        hashes = writer.write_safetensors(output, pieces, _metadata(task, pieces))
    error = float(np.sqrt(lost / energy)) if energy else 0.0
    counted = dict(Counter(str(module.kind) for module in found.modules))
    return ConvertReport(to, counted, found.header.tensor_bytes, size, error, hashes)


def _check(found: Adapter, to: Form, rank: int | None, max_error: float | None, opened: BaseModel | None) -> None:
    problems = []
    where = str(found.header.path)
    if to == "lora":
        if (rank is None) == (max_error is None):
            problems.append(Problem("--to lora", "needs either a rank or a largest error", "--rank 16, or --max-error 0.05"))
        if rank is not None and rank < 1:
            problems.append(Problem("--rank", f"is {rank}", "use at least 1"))
        if max_error is not None and not 0 < max_error < 1:
            problems.append(Problem("--max-error", f"is {max_error}", "use a fraction between 0 and 1"))
    elif rank is not None or max_error is not None:
        problems.append(Problem(f"--to {to}", "takes no rank and no error", "use --to lora"))
    dependent = sorted({module.title for module in found.modules if module.needs_base})
    if dependent and to == "full" and opened is None:
        problems.append(
            Problem(where, f"the change of {', '.join(dependent)} depends on the base model", "name it with --base")
        )
    if dependent and to in {"lora", "diffusers"}:
        problems.append(
            Problem(where, f"{', '.join(dependent)} cannot become a LoRA by itself", "convert --to full --base MODEL first")
        )
    if to == "lora" and any(module.kind is ModuleKind.NORM for module in found.modules):
        problems.append(
            Problem(where, "holds trained norms, which are no matrices", "train without train_norm, or keep the family")
        )
    other = sorted({str(m.kind) for m in found.modules if m.kind not in (ModuleKind.LORA, ModuleKind.TUCKER)})
    if to == "diffusers" and other:
        problems.append(
            Problem(where, f"diffusers' names have no place for {', '.join(other)}", "convert --to lora --rank N first")
        )
    if to == "plain" and peft.KEY in found.header.metadata and found.naming == "peft" and found.tucker:
        problems.append(Problem(where, f"folding would count the alphas of {peft.KEY} twice", "convert --to kohya first"))
    if opened:
        problems += opened.missing(module for module in found.modules if module.needs_base)
    if problems:
        raise RecipeError(problems)


def _metadata(task: Task, pieces: list[Piece]) -> dict[str, str]:
    kept = dict(task.found.header.metadata)
    if task.to not in {"same", "plain"}:  # those keep the modules that its alphas are for
        kept = peft.without(kept, renamed=task.to != "lora")
    if task.to in {"plain", "full", "lora", "diffusers"}:
        kept = metadata.with_algo(kept, {"full": "full", "lora": "locon"}.get(task.to))
    if task.to == "lora":
        kept["ss_network_dim"] = str(task.rank) if task.rank else "Dynamic"
        alphas = {low_rank.stated_alpha([piece]) for piece in pieces if piece.entry.name.endswith(".alpha")}
        kept["ss_network_alpha"] = str(alphas.pop()) if len(alphas) == 1 else "Dynamic"
    details = {"to": task.to, "rank": task.rank, "max_error": task.max_error, "save_precision": task.dtype}
    return metadata.with_provenance(kept, "convert", {key: value for key, value in details.items() if value is not None})
