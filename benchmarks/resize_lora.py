"""Our resize beside sd-scripts' resize_lora.py: time and ranks.

Both read the same file of 311,476,924 bytes. The ranks of all modules are compared.

Ours runs before and after theirs, so that a machine whose load changes is unfair to both alike. Theirs takes nine minutes on
two quiet cores.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from benchmarks import NotHereError, Row, weights
from orchestrator.system import settings
from orchestrator.weights.families.adapter import adapter
from orchestrator.weights.io.safetensors_io import read_header
from orchestrator.weights.options import ResizeOptions
from orchestrator.weights.resize import resize

if TYPE_CHECKING:
    from pathlib import Path

TIMES = 200
_ABOVE = 1.5  # what rounding the singular vectors to half precision costs


def theirs(source: Path, output: Path) -> weights.Took:
    """Time sd-scripts' own tool."""
    checkout = settings.sd_scripts()
    argv = [str(settings.sd_scripts_python()), str(checkout / "networks" / "resize_lora.py"), "--model", str(source)]
    argv += ["--save_to", str(output), "--save_precision", "fp16", "--new_rank", "128"]
    return weights.run([*argv, "--dynamic_method", "sv_ratio", "--dynamic_param", "16"], {"PYTHONPATH": str(checkout)})


def agreement(source: Path, other: Path, ours: Path) -> list[Row]:
    """Return the differences in rank and in loss between the two files.

    Ranks are compared under sd-scripts' rule, and each file's loss with the optimum.
    """
    resize(source, ours, ResizeOptions(param=16, new_rank=128, rank_rule="sd-scripts-0.10"))
    ranks, own = ({module.name: module.rank for module in adapter(read_header(path)).modules} for path in (other, ours))
    losses = [excess(source, path) for path in (other, ours)]
    return [
        Row("modules whose rank is not sd-scripts'", sum(ranks.get(name) != own[name] for name in own), 0, f"of {len(own)}"),
        Row(
            "error of a module above the optimum", losses[1], _ABOVE, "millionths of its norm", f"sd-scripts' {losses[0]:.2f}"
        ),
    ]


def excess(source: Path, resized: Path) -> float:
    """Return the largest error above the optimum, in millionths.

    The optimum is the best matrix of the same rank, and the unit the module's norm.
    """
    import numpy as np  # noqa: PLC0415 - a child's peak memory starts with its parent's

    from orchestrator.weights.families import low_rank  # noqa: PLC0415
    from orchestrator.weights.io import dtypes  # noqa: PLC0415
    from orchestrator.weights.io.safetensors_io import Body  # noqa: PLC0415

    adapters = [adapter(read_header(path)) for path in (source, resized)]
    most = 0.0
    with Body(adapters[0].header) as body, Body(adapters[1].header) as other:
        for module, small in zip(adapters[0].modules, adapters[1].modules, strict=True):
            before, after = (
                low_rank.product(part, dtypes.load_module(tensors, part), adapters[0].architecture)
                for tensors, part in ((body, module), (other, small))
            )
            up, down = np.float64(before.scale) * before.up, before.down.astype(np.float64)
            values = np.linalg.svd(_core(up, down), compute_uv=False)
            left = np.hstack([up, np.float64(-after.scale) * after.up])
            error = np.linalg.norm(_core(left, np.vstack([down, after.down])))
            best = np.linalg.norm(values[small.rank :])
            most = max(most, float((error - best) / np.linalg.norm(values)))
    return 1e6 * most


def _core(up: Any, down: Any) -> Any:
    """Return the small matrix that has the singular values of up down."""
    import numpy as np  # noqa: PLC0415

    return np.linalg.qr(up, mode="r") @ np.linalg.qr(down.T, mode="r").T


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
