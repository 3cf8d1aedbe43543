"""Merge and resize by sd-scripts' programs (``--with sd-scripts``)."""

from __future__ import annotations

import json
import re
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.engines.sdscripts import checkout, environment, lora_tools, parser_options
from orchestrator.errors import NotReady, Problem, RecipeError, StepFailed, counted, near_miss
from orchestrator.system import settings
from orchestrator.system.child import LOG, ChildCallbacks
from orchestrator.system.log_tail import last_lines
from orchestrator.system.process import Command, run
from orchestrator.weights.families import rank_selection
from orchestrator.weights.families.adapter import adapter
from orchestrator.weights.io import metadata
from orchestrator.weights.io.safetensors_io import check_output, read_header

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from orchestrator.recipe import Option, Scalar
    from orchestrator.system.child import Progress
    from orchestrator.weights.ingredient import Ingredient
    from orchestrator.weights.options import ResizeOptions

    Tick = Callable[[int, int, str], None]

_BAR = re.compile(r"\b(\d{1,18})/(\d{1,18}) \[")
# Options with a command-line option of their own (empty: set here).
_OWNED = {
    lora_tools.MERGE: {
        "models": "",
        "ratios": "",
        "lbws": "--block-weights",
        "save_to": "",
        "save_precision": "--save-precision",
    },
    lora_tools.RESIZE: lora_tools.OWNED[lora_tools.RESIZE]
    | {name: f"--{name.replace('_', '-')}" for name in ("new_rank", "new_conv_rank", "save_precision")}
    | dict.fromkeys(("dynamic_method", "dynamic_param"), "--sv-ratio, --sv-fro or --sv-cumulative"),
}


@dataclass(frozen=True, slots=True)
class ToolReport:
    """Result of a program of sd-scripts.

    ``ranks`` maps a rank to its number of modules.
    """

    program: str
    version: str
    modules: int
    ranks: dict[int, int]
    tensor_bytes: int
    model_hash: str
    seconds: float
    earlier: tuple[str, ...] = ()
    """Earlier resizes of the file by its metadata, oldest first."""

    def table(self) -> list[str]:
        """Return the report in lines."""
        lines = [f"{self.program} of sd-scripts {self.version[:12]}, {self.seconds:.1f} s"]
        lines.append(
            f"{counted(self.modules, 'module')}, {self.tensor_bytes:,} tensor bytes ({self.tensor_bytes / 2**20:.2f} MiB)"
        )
        lines += [f"rank {rank}: {counted(count, 'module')}" for rank, count in sorted(self.ranks.items())]
        return lines + metadata.explain_resizes(self.earlier)

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class ToolOptions:
    """Command-line options of both programs.

    ``options`` are further options of the program, as NAME=VALUE.
    """

    save_precision: str = "fp16"
    options: tuple[str, ...] = ()
    overwrite: bool = False


def merge(ingredients: Sequence[Ingredient], output: Path, options: ToolOptions, tick: Tick | None = None) -> ToolReport:
    """Run networks/svd_merge_lora.py --lbws on one or several files.

    Args:
        ingredients: the files, each with a list of block weights or none (see ``lora_tools.expand``).
        output: the file to write.
        options: precision and further options.
        tick: called with (done, total, note).

    Raises:
        NotReady: the checkout or its Python is missing.
        RecipeError: a file that the program would corrupt, an option that it does not have, files for different bases.
        StepFailed: the program failed, or wrote no whole file.
    """
    program_options = _parse_options(lora_tools.MERGE, options.options)
    paths = [each.path for each in ingredients]
    _check_files(paths, output, options, "svd_merge_lora.py")
    if len({len(each.block_weights) for each in ingredients if each.block_weights is not None}) > 1:
        raise RecipeError(Problem(str(paths[0]), "the files are for different base models, SD1 and SDXL"))
    ranks = [lora_tools.ranks(path) for path in paths]
    largest = (max(linear for linear, _ in ranks), max(convolution for _, convolution in ranks))

    def command(target: Path, work: Path) -> Command:
        return lora_tools.merge(ingredients, target, work, largest, _precision(options), program_options)

    return _run(lora_tools.MERGE, command, output, tick)


def resize(
    source: Path, output: Path, resize_options: ResizeOptions, options: ToolOptions, tick: Tick | None = None
) -> ToolReport:
    """Run networks/resize_lora.py.

    Args:
        source: the input file.
        output: the file to write.
        resize_options: method and ranks.
        options: precision and further options.
        tick: called with (done, total, note).

    Raises: as ``merge``.
    """
    program_options = _parse_options(lora_tools.RESIZE, options.options)
    rule = lora_tools.rank_rule(settings.sd_scripts())
    if resize_options.rank_rule != rule:
        raise RecipeError(Problem("--rank-rule", f"is {resize_options.rank_rule!r}; this resize_lora.py has {rule!r}"))
    if problems := list(resize_options.problems()):
        raise RecipeError(problems)
    _check_files([source], output, options, "resize_lora.py")
    resize_options = replace(resize_options, save_precision=_precision(options))
    header = read_header(source)
    if nothing := rank_selection.nothing_to_cut(adapter(header), resize_options):
        raise RecipeError(nothing)
    ranks = lora_tools.ranks(source)

    def command(target: Path, work: Path) -> Command:
        return lora_tools.resize(source.absolute(), target, work, resize_options, ranks, program_options)

    return replace(_run(lora_tools.RESIZE, command, output, tick), earlier=tuple(metadata.resizes(header.metadata)))


def _check_files(inputs: Sequence[Path], output: Path, options: ToolOptions, program: str) -> None:
    """Raise RecipeError for inputs or an output that cannot be used.

    The program would corrupt an input, or the output is an input.
    """
    check_output(output, inputs, overwrite=options.overwrite)
    problems = [problem for path in inputs for problem in lora_tools.unsupported(path, program)]
    if problems:
        raise RecipeError(problems)


def _precision(options: ToolOptions) -> str:
    """Return sd-scripts' name of the precision."""
    text = options.save_precision
    names = {"fp32": "float", "float": "float", "fp16": "fp16", "bf16": "bf16"}
    if text not in names:
        raise RecipeError(Problem("--save-precision", f"{text!r} is none of fp16, bf16, fp32{near_miss(text, names)}"))
    return names[text]


def _parse_options(program: str, texts: Sequence[str]) -> dict[str, Option]:
    """Return ``NAME=VALUE`` options as values of their types.

    They are checked against the program's own parser.
    """
    missing = environment.missing("the orchestrator's own does without it: leave out --with sd-scripts")
    if missing:
        raise NotReady(missing)
    options = parser_options.of(program)
    values: dict[str, Option] = {}
    for text in texts:
        word, equals, value = text.partition("=")
        name = word.strip().removeprefix("--").replace("-", "_")
        kind = options[name].type if name in options else "str"
        values[name] = _value(value, kind) if equals else True
    wrong = list(parser_options.problems(options, values, "--option", _OWNED[program]))
    if wrong:
        raise RecipeError([Problem(where.replace("option.", "option "), what) for where, what in wrong])
    return values


def _value(text: str, kind: str) -> Scalar:
    """Return an option's value: text, or JSON (16, 0.5, true)."""
    if kind == "str":
        return text
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, bool | int | float) else text


def _run(program: str, command: Callable[[Path, Path], Command], output: Path, tick: Tick | None) -> ToolReport:
    """Run a program and replace the output by its whole result.

    The program writes into a folder beside the output.
    """
    start = time.monotonic()

    def read(piece: str) -> Progress | None:
        if tick is not None and (bar := _BAR.search(piece)):
            tick(int(bar[1]), int(bar[2]), "")
        return None

    with tempfile.TemporaryDirectory(dir=output.absolute().parent, prefix=f".{output.stem}-") as name:
        work = Path(name)
        target = work / output.name  # the program takes a title from it
        end = run(command(target, work), work, ChildCallbacks(read), leash=True)
        lines = "\n    ".join(last_lines(work / LOG, 6))
        if not end.ok:
            raise StepFailed(Problem(program, f"ended with {end.code}", lines))
        try:
            header = read_header(target)
        except RecipeError as error:
            raise StepFailed(Problem(program, f"wrote no whole file: {error.problems[0].what}", lines)) from error
        target.replace(output)
    ranks = [entry.shape[0] for name, entry in header.entries.items() if name.endswith(".lora_down.weight")]
    return ToolReport(
        program,
        checkout.version(settings.sd_scripts()),
        len(ranks),
        dict(Counter(ranks)),
        header.tensor_bytes,
        header.metadata.get("sshs_model_hash", ""),
        round(time.monotonic() - start, 3),
    )
