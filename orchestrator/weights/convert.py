"""Convert LoRA files between families, precisions and namings."""

from __future__ import annotations

import contextlib
from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from orchestrator.errors import Problem, RecipeError, counted
from orchestrator.models import conventions
from orchestrator.system import files
from orchestrator.weights import convert_forms, convert_names, loaders
from orchestrator.weights.convert_forms import Form, Task
from orchestrator.weights.families import low_rank, svd
from orchestrator.weights.families.adapter import Adapter, adapter
from orchestrator.weights.families.base_model import BaseModel
from orchestrator.weights.families.kinds import ModuleKind
from orchestrator.weights.io import dtypes, metadata, peft, stored_ranks, writer
from orchestrator.weights.io.non_finite import explain_non_finite
from orchestrator.weights.io.safetensors_io import check_output, read_header, same_forms
from orchestrator.weights.io.scan import ScannedBody
from orchestrator.weights.io.spool import Spool

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.weights.convert_names import Renamed
    from orchestrator.weights.io.writer import Hashes, Piece


_TARGETS: dict[str, conventions.Target] = {target: target for target in get_args(conventions.Target)}


@dataclass(frozen=True, slots=True)
class ConvertReport:
    """Result of a conversion: modules by kind, tensor bytes, relative error."""

    to: Form
    kinds: dict[str, int]
    bytes_before: int
    bytes_after: int
    relative_error: float
    passed: int
    non_finite: tuple[str, ...]
    unchanged: bool
    """No tensor has another name, type or shape than before."""
    hashes: Hashes
    renamed: Renamed | None = None
    """Result of new names."""
    lacks_scales: bool = False
    """The alphas of a file of PEFT are not known, and count as its ranks."""
    lost_readers: tuple[str, ...] = ()
    """Programs that open the source, and not the output."""

    def table(self) -> list[str]:
        """Return the summary in lines."""
        exact = "exact but for rounding" if self.relative_error == 0 else f"relative error {self.relative_error:.3g}"
        return [
            *(f"{counted(count, 'module')} of {kind}" for kind, count in self.kinds.items()),
            f"{self.bytes_before:,} -> {self.bytes_after:,} tensor bytes",
            exact,
            *(["every tensor was in this form already: nothing is changed"] if self.unchanged else []),
            *(self.renamed.explain() if self.renamed else ()),
            *low_rank.explain_passed(self.passed),
            *explain_non_finite(self.non_finite),
            *([f"its alphas are not known without {peft.CONFIG}: each counts as its rank"] if self.lacks_scales else []),
        ]

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain JSON."""
        return {
            "to": self.to,
            "kinds": self.kinds,
            "bytes_before": self.bytes_before,
            "bytes_after": self.bytes_after,
            "relative_error": self.relative_error,
            "passed": self.passed,
            "non_finite": self.non_finite,
            "unchanged": self.unchanged,
            "lacks_scales": self.lacks_scales,
            "model_hash": self.hashes.model,
            **({} if self.renamed is None else self.renamed.to_json()),
            "lost_readers": self.lost_readers,
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
    copy_unchanged: bool = True,
) -> ConvertReport:
    """Write ``source`` in another form to ``output``.

    Args:
        source: a LoRA file.
        output: the file to write.
        to: ``plain`` folds Tucker cores, exactly. ``full`` stores every delta whole. ``lora`` is the best LoRA of ``rank`` or
            ``max_error``. A convention of :mod:`orchestrator.models.conventions` changes names, and splits or joins
            layers where it has other ones. ``same`` changes the precision only.
        rank: rank of every module.
        max_error: largest relative error of a module.
        save_precision: type of the tensors. None: each tensor's own.
        base_model: a safetensors checkpoint, for ``full`` from ia3, glora, oft and dora_scale.
        overwrite: whether ``output`` may be ``source``.
        copy_unchanged: whether a file that is in this form already is copied.

    Raises:
        RecipeError: nothing is written. The conversion is impossible, not exact, or changes nothing.
    """
    check_output(output, [source, *([base_model] if base_model else [])], overwrite=overwrite)
    if _is_peft_folder(to, output) and output.with_name(peft.CONFIG).exists() and not overwrite:
        raise RecipeError(Problem(str(output.with_name(peft.CONFIG)), "exists", "choose another folder, or --overwrite"))
    lora = adapter(read_header(source))
    dtype = dtypes.dtype_of(save_precision) if save_precision else None
    with contextlib.ExitStack() as stack:
        if base_model or to == "full" or to in _TARGETS or (to == "lora" and lora.flat):
            convert_names.grouped_layers(lora, lora.known_architecture(f"convert --to {to}"))
        base = BaseModel(base_model, lora.known_architecture("convert --base")) if base_model else None
        if base:
            stack.callback(base.close)
        _check(lora, to, rank, max_error, base)
        task = Task(to, lora, stack.enter_context(body := ScannedBody(lora.header)), base, rank, max_error, dtype)
        pieces: list[Piece] = []
        lost = energy = 0.0
        named = convert_names.renamed(lora, task.body, target, dtype) if (target := _TARGETS.get(to)) else None
        if named:
            pieces = named.pieces
        elif to == "full":
            pieces = stack.enter_context(convert_forms.whole(task))
        else:
            spool = stack.enter_context(Spool(output))
            for made, module_lost, module_energy in svd.each(partial(convert_forms.changed, task), lora.modules):
                pieces += made if to == "same" else spool.keep(made)
                lost, energy = lost + module_lost, energy + module_energy
        pieces += low_rank.bundled(lora, task.body, dtype)
        made_entries = [piece.entry for piece in pieces]
        unchanged = same_forms(lora.header.entries.values(), made_entries)
        if unchanged and not copy_unchanged:
            what = "is in this form already: no tensor would get another name, type or shape"
            raise RecipeError(Problem(str(source), what, "use it as it is"))
        size = sum(entry.size for entry in made_entries)
        hashes = writer.write_safetensors(output, pieces, _metadata(task, pieces, named), writer.Stated(dtype, size))
        if named and _is_peft_folder(to, output):
            files.write_json(output.with_name(peft.CONFIG), convert_names.adapter_config(named))
        broken = body.non_finite()
    error = float(np.sqrt(lost / energy)) if energy else 0.0
    counted = dict(Counter(str(module.kind) for module in lora.modules))
    passed = low_rank.passed(lora) if to in {"lora", "full"} else 0
    sizes = (lora.header.tensor_bytes, size)
    scales = to != "same" and peft.lacks_scales(lora.header)
    lost_readers = tuple(loaders.lost(loaders.of_file(lora), loaders.of_path(output)))
    return ConvertReport(to, counted, *sizes, error, passed, broken, unchanged, hashes, named, scales, lost_readers)


def _is_peft_folder(to: Form, output: Path) -> bool:
    """Return whether the folder of an output needs PEFT's configuration."""
    return to == "peft" and output.name == peft.MODEL


def _check(lora: Adapter, to: Form, rank: int | None, max_error: float | None, base: BaseModel | None) -> None:
    problems: list[Problem] = []
    where = str(lora.header.path)
    if (target := _TARGETS.get(to)) is not None:
        problems += convert_names.problems(lora, lora.known_architecture(f"convert --to {to}"), target)
    if to == "lora":
        if (rank is None) == (max_error is None):
            problems.append(Problem("--to lora", "needs either a rank or a largest error", "--rank 16, or --max-error 0.05"))
        if rank is not None and rank < 1:
            problems.append(Problem("--rank", f"is {rank}", "use at least 1"))
        if max_error is not None and not 0 < max_error < 1:
            problems.append(Problem("--max-error", f"is {max_error}", "use a fraction between 0 and 1"))
    elif rank is not None or max_error is not None:
        problems.append(Problem(f"--to {to}", "takes no rank and no error", "use --to lora"))
    dependent = lora.needing_base
    if dependent and to == "full" and base is None:
        problems.append(
            Problem(where, f"the delta of {', '.join(dependent)} depends on the base model", "name it with --base")
        )
    if to == "full" and any(module.part is not None for module in lora.modules):
        what = "holds parts of joined layers, whose difference is one tensor"
        problems.append(Problem(where, what, "convert --to kohya first"))
    if dependent and to in {"lora", "diffusers", "peft"}:
        problems.append(
            Problem(where, f"{', '.join(dependent)} cannot become a LoRA by itself", "convert --to full --base MODEL first")
        )
    others = {str(m.kind) for m in lora.modules if m.kind not in (ModuleKind.LORA, ModuleKind.TUCKER)}
    if to in {"diffusers", "peft"} and others:
        ranked = any(m.kind not in (ModuleKind.LORA, ModuleKind.TUCKER) and not m.vector for m in lora.modules)
        hint = (
            "convert --to lora --rank N first" if ranked else "keep kohya's names; other programs read norms and biases there"
        )
        problems.append(Problem(where, f"{to}'s naming has no keys for {', '.join(sorted(others))}", hint))
    if to == "plain" and peft.KEY in lora.header.metadata and lora.dotted and lora.tucker:
        problems.append(Problem(where, f"folding would count the alphas of {peft.KEY} twice", "convert --to kohya first"))
    if base:
        problems += base.missing(module for module in lora.modules if module.needs_base)
    if problems:
        raise RecipeError(problems)


def _metadata(task: Task, pieces: list[Piece], named: Renamed | None) -> dict[str, str]:
    kept = dict(task.lora.header.metadata)
    if task.to not in {"same", "plain"}:
        kept.pop(stored_ranks.KEY, None)
    if named and named.layers:
        kept[stored_ranks.KEY] = stored_ranks.encode(named.layers)
    if task.to not in {"same", "plain"}:  # those keep the modules of its alphas
        kept = peft.without(kept, renamed=task.to != "lora")
    if task.to == "diffusers" and named:
        kept[peft.KEY] = convert_names.adapter_metadata(named)
    if task.to in {"plain", "full", "lora", "diffusers", "peft"}:
        kept = metadata.with_algo(kept, {"full": "full", "lora": "locon"}.get(task.to))
    if task.to == "lora":
        kept["ss_network_dim"] = str(task.rank) if task.rank else "Dynamic"
        alphas = {low_rank.stated_alpha([piece]) for piece in pieces if piece.entry.name.endswith(".alpha")}
        kept["ss_network_alpha"] = str(alphas.pop()) if len(alphas) == 1 else "Dynamic"
    architecture = task.lora.architecture if named else None
    details = {
        "to": task.to,
        "architecture": architecture,
        "rank": task.rank,
        "max_error": task.max_error,
        "save_precision": task.dtype,
    }
    return metadata.with_provenance(kept, "convert", {key: value for key, value in details.items() if value is not None})
