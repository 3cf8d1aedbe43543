"""``merge`` and ``resize`` with ``--with sd-scripts``: its own programs on any plain LoRA, and what they made of it."""

from __future__ import annotations

import json
import re
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.engines.sdscripts import checkout, environment, lora_tools
from orchestrator.engines.sdscripts import parser_options as options
from orchestrator.errors import NotReady, Problem, RecipeError, StepFailed, near_miss
from orchestrator.recipe import Resize
from orchestrator.system import settings
from orchestrator.system.log_tail import last_lines
from orchestrator.system.process import LOG, ChildCallbacks, Command, run
from orchestrator.weights.io.safetensors_io import check_output, read_header

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from orchestrator.recipe import Option, Scalar
    from orchestrator.system.process import Progress

    Told = Callable[[int, int, str], None]

_BAR = re.compile(r"(\d+)/(\d+) \[")
# The words of a command line for options that have a place of their own there.
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
class Report:
    """What a program of sd-scripts wrote: how many modules, their ranks with counts, bytes of the tensors, seconds it took."""

    program: str
    version: str
    modules: int
    ranks: dict[int, int]
    tensor_bytes: int
    model_hash: str
    seconds: float

    def table(self) -> list[str]:
        """Return the report in lines."""
        lines = [f"{self.program} of sd-scripts {self.version[:12]}, {self.seconds:.1f} s"]
        lines.append(f"{self.modules} modules, {self.tensor_bytes:,} tensor bytes ({self.tensor_bytes / 2**20:.2f} MiB)")
        return lines + [f"rank {rank}: {count} modules" for rank, count in sorted(self.ranks.items())]

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line says of either program: precision of the file, further options as NAME=VALUE."""

    save_precision: str = "fp16"
    options: tuple[str, ...] = ()
    overwrite: bool = False


def merge(shares: Sequence[lora_tools.Share], output: Path, asked: Asked, told: Told | None = None) -> Report:
    """Run networks/svd_merge_lora.py --lbws on one or several files.

    Raises:
        NotReady: no checkout, or no Python of it.
        RecipeError: a file that it would spoil, an option that it has not, files for different bases.
        StepFailed: it wrote no whole file.
    """
    more = _checked(lora_tools.MERGE, asked.options)
    paths = [one.path for one in shares]
    _judge(paths, output, asked, "svd_merge_lora.py")
    if len({len(one.weights) for one in shares if one.weights is not None}) > 1:
        raise RecipeError(Problem(str(paths[0]), "the files are for different base models, SD1 and SDXL"))
    ranks = [lora_tools.ranks(path) for path in paths]
    known = (max(linear for linear, _ in ranks), max(conv for _, conv in ranks))

    def command(target: Path, work: Path) -> Command:
        return lora_tools.merge(shares, target, work, known, _precision(asked), more)

    return _carry_out(lora_tools.MERGE, command, output, told)


def resize(source: Path, output: Path, how: Mapping[str, Any], asked: Asked, told: Told | None = None) -> Report:
    """Run networks/resize_lora.py.

    Args:
        source: the file.
        output: where to write.
        how: new_rank, new_conv_rank, one of sv_ratio, sv_fro, sv_cumulative; rank_rule, if one was asked for.
        asked: precision and further options.
        told: called with (done, total, note).

    Raises: as ``merge``.
    """
    more = _checked(lora_tools.RESIZE, asked.options)
    rule = lora_tools.rank_rule(settings.sd_scripts())
    if how.get("rank_rule") not in (None, rule):
        raise RecipeError(Problem("--rank-rule", f"{how['rank_rule']!r} is not what this resize_lora.py does: {rule}"))
    _judge([source], output, asked, "resize_lora.py")
    said = {name: value for name, value in how.items() if value is not None} | {"rank_rule": rule, "options": more}
    table = Resize.model_validate_json(json.dumps(said | {"save_precision": _precision(asked)}))
    known = lora_tools.ranks(source)

    def command(target: Path, work: Path) -> Command:
        return lora_tools.resize(source.absolute(), target, work, table, known)

    return _carry_out(lora_tools.RESIZE, command, output, told)


def _judge(inputs: Sequence[Path], output: Path, asked: Asked, program: str) -> None:
    """Raise RecipeError for files that the program would spoil, and for an output that stands in an input's place."""
    check_output(output, inputs, overwrite=asked.overwrite)
    spoilt = [problem for path in inputs for problem in lora_tools.refusals(path, program)]
    if spoilt:
        raise RecipeError(spoilt)


def _precision(asked: Asked) -> str:
    """Return sd-scripts' name of the precision that is asked for."""
    text = asked.save_precision
    names = {"fp32": "float", "float": "float", "fp16": "fp16", "bf16": "bf16"}
    if text not in names:
        raise RecipeError(Problem("--save-precision", f"{text!r} is none of fp16, bf16, fp32{near_miss(text, names)}"))
    return names[text]


def _checked(program: str, given: Sequence[str]) -> dict[str, Option]:
    """Return ``NAME=VALUE`` options as values of their types, checked against the program's own parser."""
    missing = environment.missing("ours does without it: leave out --with sd-scripts")
    if missing:
        raise NotReady(missing)
    known = options.of(program)
    said: dict[str, Option] = {}
    for text in given:
        word, equals, value = text.partition("=")
        name = word.strip().removeprefix("--").replace("-", "_")
        said[name] = _value(value, known[name].type if name in known else "str") if equals else True
    wrong = list(options.problems(known, said, "--option", _OWNED[program]))
    if wrong:
        raise RecipeError([Problem(where.replace("option.", "option "), what) for where, what in wrong])
    return said


def _value(text: str, kind: str) -> Scalar:
    """Return the value of an option's text: what is no text is read as JSON (16, 0.5, true)."""
    if kind == "str":
        return text
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, bool | int | float) else text


def _carry_out(program: str, command: Callable[[Path, Path], Command], output: Path, told: Told | None) -> Report:
    """Run a program in a folder beside the output, and put what it made in its place when it is whole."""
    begun = time.monotonic()

    def read(piece: str) -> Progress | None:
        if told is not None and (bar := _BAR.search(piece)):
            told(int(bar[1]), int(bar[2]), "")
        return None

    with tempfile.TemporaryDirectory(dir=output.absolute().parent, prefix=f".{output.stem}-") as name:
        work = Path(name)
        target = work / output.name  # the program takes a title from it
        end = run(command(target, work), work, ChildCallbacks(read), leash=True)
        if not end.ok:
            raise StepFailed(Problem(program, f"ended with {end.code}", "\n    ".join(last_lines(work / LOG, 6))))
        try:
            header = read_header(target)
        except RecipeError as error:
            lines = "\n    ".join(last_lines(work / LOG, 6))
            raise StepFailed(Problem(program, f"wrote no whole file: {error.problems[0].what}", lines)) from error
        target.replace(output)
    downs = [entry.shape[0] for key, entry in header.entries.items() if key.endswith(".lora_down.weight")]
    model_hash = header.metadata.get("sshs_model_hash", "")
    seconds = round(time.monotonic() - begun, 3)
    version = checkout.version(settings.sd_scripts())
    return Report(program, version, len(downs), dict(Counter(downs)), header.tensor_bytes, model_hash, seconds)
