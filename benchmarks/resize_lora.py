"""Our resize beside sd-scripts' own resize_lora.py on the same file of 311,476,924 bytes: time, and the ranks of all modules.

Ours runs before and after theirs, so that a machine whose load changes is unfair to both alike. Theirs takes nine minutes on
two quiet cores.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from benchmarks import NotHereError, Row, weights
from orchestrator import settings
from orchestrator.weights import adapter, compare, read_header, resize

if TYPE_CHECKING:
    from pathlib import Path

TIMES = 200
_FP16 = 2.0  # thousandths: singular vectors rounded to half precision, in both files


def theirs(source: Path, output: Path) -> weights.Took:
    """Time sd-scripts' own tool."""
    place = settings.sd_scripts()
    argv = [str(settings.sd_scripts_python()), str(place / "networks" / "resize_lora.py"), "--model", str(source)]
    argv += ["--save_to", str(output), "--save_precision", "fp16", "--new_rank", "128"]
    return weights.run([*argv, "--dynamic_method", "sv_ratio", "--dynamic_param", "16"], {"PYTHONPATH": str(place)})


def agreement(source: Path, other: Path, ours: Path) -> list[Row]:
    """Return how many modules have another rank than theirs under their rule, and how far the changes are apart."""
    resize(source, ours, param=16, new_rank=128, rank_rule="sd-scripts-0.10")
    ranks, own = ({module.name: module.rank for module in adapter(read_header(path)).modules} for path in (other, ours))
    found = compare(other, ours)
    squares = [(pair.first - 2 * pair.product + pair.second) / pair.first for pair in found.modules if pair.first]
    return [
        Row("modules whose rank is not sd-scripts'", sum(ranks.get(name) != own[name] for name in own), 0, f"of {len(own)}"),
        Row("largest distance of a module from sd-scripts'", 1000 * max(0.0, *squares) ** 0.5, _FP16, "per mille of its norm"),
    ]


def rows() -> list[Row]:
    """Measure."""
    if not (settings.sd_scripts() / "networks" / "resize_lora.py").is_file() or not settings.sd_scripts_python().is_file():
        raise NotHereError("sd-scripts and its Python are not here: make setup, or SD_SCRIPTS_DIR and SD_SCRIPTS_PYTHON")
    source, output = weights.source(), weights.FOLDER / "theirs.safetensors"
    argv = weights.commands(source, weights.FOLDER)["resize, sv_ratio 16"]
    before = [weights.run(argv) for _ in range(3)]
    other = theirs(source, output)
    own = [*before[1:], *(weights.run(argv) for _ in range(2))]  # the first only fills the caches
    seconds, processor = (statistics.median(getattr(took, of) for took in own) for of in ("seconds", "processor"))
    beside = f"resize_lora.py {other.seconds:.0f} s ({other.processor:.0f} s of processor time)"
    return [
        Row(
            "resize, sv_ratio 16, against sd-scripts' own / 200",
            seconds,
            other.seconds / TIMES,
            beside=beside,
            processor=processor,
        ),
        Row("sd-scripts' time over ours", other.seconds / seconds, unit="times"),
        *agreement(source, output, weights.FOLDER / "ours.safetensors"),
    ]
