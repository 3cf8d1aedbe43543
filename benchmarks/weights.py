"""Weight surgery against the clock.

Writes a LoRA of the release's kind (networks.lora, dim 128 and conv_dim 128 on SD1.5: 350 modules, 311,476,924 bytes of
tensors) and one of FLUX.1 (dim 64: 304 modules, 612,631,136 bytes), then times whole processes, alternating so that a busy
machine is unfair to all alike: `import torch`, `cp`, inspect, merge, resize, sweep of one ratio and of four.
benchmarks/resize_lora.py sets sd-scripts' own tool beside them.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import Row
from orchestrator.models import registry
from orchestrator.weights.io.safetensors_io import read_header

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "build" / "bench"
ROUNDS = 3
RECIPE = "krnk-lora3x3"
HALF = ",".join(["0.5"] * 26)
HALF_FLUX = ",".join(["0.5"] * len(registry.ARCHITECTURES["flux"].blocks))


@dataclass(frozen=True, slots=True)
class _File:
    """A generated LoRA file: architecture, rank and bytes of its tensors."""

    architecture: registry.ArchitectureName
    rank: int
    tensor_bytes: int


FILES = {"lora-128": _File("sd1", 128, 311_476_924), "flux-64": _File("flux", 64, 612_631_136)}
"""Files by name. FLUX.1 has 304 modules without text encoders."""


@dataclass(frozen=True, slots=True)
class Took:
    """Wall and processor seconds of one process, and its peak in MiB."""

    seconds: float
    processor: float
    peak: float


def generate(path: Path) -> None:
    """Write the file of this name: down as initialized, up with decaying directions.

    The decay is that of a trained file.
    """
    import numpy as np  # noqa: PLC0415 - in a process of its own: a child's peak memory starts with its parent's

    from orchestrator.recipe import loader  # noqa: PLC0415
    from orchestrator.weights.families import expected_tensors, module_shapes  # noqa: PLC0415
    from orchestrator.weights.io import writer  # noqa: PLC0415

    file = FILES[path.stem]
    recipe = loader.recipe(ROOT / "recipes", RECIPE).recipe
    convolutions = {} if file.architecture == "sd1" else {"conv_dim": None, "conv_alpha": None}
    network = recipe.network.model_copy(update={"dim": file.rank, "alpha": file.rank / 2, **convolutions})
    recipe = recipe.model_copy(update={"network": network})
    rng = np.random.default_rng(31337)
    pieces: list[writer.Piece] = []
    for module in expected_tensors.modules(recipe, registry.ARCHITECTURES[file.architecture].model):
        if module.text and file.architecture != "sd1":
            continue
        shapes = module_shapes.of(recipe.network, module)
        if shapes is None:
            message = f"{module.name} has no formula"
            raise SystemExit(message)
        rank = shapes["lora_down.weight"][0]
        decay = np.exp(-np.arange(rank, dtype=np.float32) / rng.uniform(3, 14))
        rotation = np.linalg.qr(rng.standard_normal((rank, rank), dtype=np.float32))[0]
        outputs = shapes["lora_up.weight"][0]
        up = ((rng.standard_normal((outputs, rank), dtype=np.float32) * decay) @ rotation) * np.float32(0.02)
        down = rng.random(shapes["lora_down.weight"], dtype=np.float32) - np.float32(0.5)
        down *= np.float32(2 / np.sqrt(down[0].size))
        values = {"lora_up.weight": up, "lora_down.weight": down, "alpha": np.array(rank / 2, np.float32)}
        for part, shape in shapes.items():
            key = f"{module.name}.{part}"
            pieces.append(writer.raw(key, "F16", shape, values[part].astype(np.float16).tobytes()))
    size = sum(piece.entry.size for piece in pieces)
    if size != file.tensor_bytes:
        message = f"{size:,} bytes of tensors instead of {file.tensor_bytes:,}"
        raise SystemExit(message)
    numbers = {"ss_network_dim": str(file.rank), "ss_network_alpha": str(file.rank / 2)}
    module_ = registry.ARCHITECTURES[file.architecture].network_module
    writer.write_safetensors(path, pieces, {"ss_network_module": module_, **numbers})


def run(argv: list[str], environment: dict[str, str] | None = None) -> Took:
    """Run a program without its output. SystemExit: it fails."""
    nothing = os.open(os.devnull, os.O_RDWR)
    actions = [(os.POSIX_SPAWN_DUP2, nothing, stream) for stream in (0, 1)]
    begin = time.perf_counter()
    child = os.posix_spawnp(
        argv[0], argv, {**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})}, file_actions=actions
    )
    _, status, usage = os.wait4(child, 0)
    seconds = time.perf_counter() - begin
    os.close(nothing)
    if os.waitstatus_to_exitcode(status) != 0:
        message = f"failed: {' '.join(argv)}"
        raise SystemExit(message)
    return Took(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def commands(source: Path, folder: Path) -> dict[str, list[str]]:
    """Return the timed commands by title."""
    verb = [sys.executable, "-m", "orchestrator"]
    out = str(folder / "out.safetensors")
    return {
        "import torch": [sys.executable, "-c", "import torch"],
        "cp": ["cp", str(source), str(folder / "copy.safetensors")],
        "inspect, header only": [*verb, "inspect", str(source), "--no-norms", "--json"],
        "merge, every weight 0.5": [*verb, "merge", str(source), out, "--block-weights", HALF],
        "resize, sv_ratio 16": [*verb, "resize", str(source), out, "--sv-ratio", "16", "--new-rank", "128"],
        "sweep, 1 ratio": [*verb, "sweep", str(source), "--sv-ratio", "16", "--json"],
        "sweep, 4 ratios": [*verb, "sweep", str(source), "--sv-ratio", "8,16,32,64", "--json"],
    }


def flux_commands(source: Path, folder: Path) -> dict[str, list[str]]:
    """Return the timed commands on the FLUX.1 file by title."""
    verb = [sys.executable, "-m", "orchestrator"]
    out = str(folder / "out.safetensors")
    return {
        "FLUX.1: merge, every weight 0.5": [*verb, "merge", str(source), out, "--block-weights", HALF_FLUX],
        "FLUX.1: resize, sv_ratio 16": [*verb, "resize", str(source), out, "--sv-ratio", "16", "--new-rank", "64"],
        "FLUX.1: resize, rank 32": [*verb, "resize", str(source), out, "--new-rank", "32"],
        "FLUX.1: convert, to diffusers": [*verb, "convert", str(source), out, "--to", "diffusers"],
        "FLUX.1: convert, to a LoRA of rank 32": [*verb, "convert", str(source), out, "--to", "lora", "--rank", "32"],
    }


def goals(rounds: list[dict[str, Took]], largest: Mapping[str, int]) -> list[Row]:
    """Return the medians over the rounds, with limits of the same round.

    Args:
        rounds: measured processes by title.
        largest: bytes of the largest tensor of each file.
    """

    def paired(measured: str, *allowed: tuple[float, str], plus: float = 0.0) -> Row:
        limits = [plus + sum(factor * took[title].seconds for factor, title in allowed) for took in rounds]
        beside = " + ".join(
            [*(f"{factor:g} x {title}" for factor, title in allowed), *([f"{plus} s"] if plus and allowed else [])]
        )
        seconds, processor = (
            statistics.median(getattr(took[measured], of) for took in rounds) for of in ("seconds", "processor")
        )
        return Row(measured, seconds, statistics.median(limits), beside=beside, processor=processor)

    results = [
        paired("resize, sv_ratio 16", (1.5, "import torch"), (2, "cp")),
        paired("merge, every weight 0.5", (2, "cp"), plus=0.5),
        paired("inspect, header only", plus=0.4),
        paired("sweep, 4 ratios", (1.25, "sweep, 1 ratio")),
        *(
            per_byte(rounds, f"FLUX.1: {ours}", usual)
            for ours, usual in (
                ("merge, every weight 0.5", "merge, every weight 0.5"),
                ("resize, sv_ratio 16", "resize, sv_ratio 16"),
                ("resize, rank 32", "resize, sv_ratio 16"),
            )
        ),
    ]
    for title in (title for title in rounds[0] if title.rpartition(": ")[2].startswith(("merge", "resize", "convert"))):
        memory = statistics.median(took[title].peak for took in rounds)
        allowed = (1.2 * largest["flux-64" if title.startswith("FLUX.1") else "lora-128"] + 150e6) / 2**20
        results.append(Row(f"{title}, most memory", memory, allowed, "MiB", "1.2 x the largest tensor + 150 MB"))
    return results


def per_byte(rounds: list[dict[str, Took]], measured: str, usual: str) -> Row:
    """Return a command's time, with 3 times SD1.5's time per byte as limit."""
    size = FILES["flux-64"].tensor_bytes / FILES["lora-128"].tensor_bytes
    seconds, processor = (statistics.median(getattr(took[measured], of) for took in rounds) for of in ("seconds", "processor"))
    limit = statistics.median(3 * size * took[usual].seconds for took in rounds)
    ratio = statistics.median(took[measured].seconds / took[usual].seconds / size for took in rounds)
    return Row(measured, seconds, limit, beside=f"{ratio:.2f} of the time per byte of SD1.5's {usual}", processor=processor)


def source(name: str = "lora-128") -> Path:
    """Return a file of ``FILES``, written if it is not there yet."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"{name}.safetensors"
    if not path.exists():
        print(f"writing a LoRA of {FILES[name].tensor_bytes:,} bytes …", file=sys.stderr)
        run([sys.executable, "-m", "benchmarks.weights", str(path)])
    return path


def rows() -> list[Row]:
    """Measure."""
    paths = {name: source(name) for name in FILES}
    largest = {name: max(entry.size for entry in read_header(path).entries.values()) for name, path in paths.items()}
    chosen = commands(paths["lora-128"], FOLDER) | flux_commands(paths["flux-64"], FOLDER)
    rounds = []
    for number in range(ROUNDS + 1):
        took = {title: run(argv) for title, argv in chosen.items()}
        if number:  # the first round only fills the caches
            rounds.append(took)
    return goals(rounds, largest)


if __name__ == "__main__":
    generate(Path(sys.argv[1]))
