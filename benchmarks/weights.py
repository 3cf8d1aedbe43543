"""Weight surgery against the clock: ``python benchmarks/weights.py [--json out.json] [--rounds 3] [--folder build/bench]``.

Writes a LoRA of the release's kind (networks.lora, dim 128 and conv_dim 128 on SD1.5: 350 modules, 311,476,924 bytes of
tensors), then times whole processes, each round in turn so that a busy machine is unfair to all alike: `import torch`, `cp`,
inspect, merge, resize, sweep of one ratio and of four. With SD_SCRIPTS_DIR (a checkout) and SD_SCRIPTS_PYTHON (its Python),
sd-scripts' own resize_lora.py is timed once too; that takes minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from orchestrator.weights.files import read_header  # noqa: E402 - after the path

RECIPE = "krnk-lora3x3"
TENSOR_BYTES = 311_476_924
HALF = ",".join(["0.5"] * 26)


@dataclass(frozen=True, slots=True)
class Took:
    """One process: seconds by the clock and of all processors, and the most memory it had, in MiB."""

    seconds: float
    processor: float
    peak: float


def generate(path: Path) -> None:
    """Write the file: down as the trainers initialize it, up with directions that decay as after training."""
    import numpy as np  # noqa: PLC0415 - in a process of its own: a child's peak memory starts with its parent's

    from orchestrator import architecture, layers, load  # noqa: PLC0415
    from orchestrator.weights import metadata  # noqa: PLC0415

    recipe = load.recipe(ROOT / "recipes", RECIPE).recipe
    rng = np.random.default_rng(31337)
    pieces: list[metadata.Piece] = []
    for module in architecture.modules(recipe, layers.built_in("sd1")):
        shapes = architecture.tensors(recipe.network, module)
        if shapes is None:
            message = f"{module.name} has no formula"
            raise SystemExit(message)
        rank = shapes["lora_down.weight"][0]
        decay = np.exp(-np.arange(rank, dtype=np.float32) / rng.uniform(3, 14))
        turn = np.linalg.qr(rng.standard_normal((rank, rank), dtype=np.float32))[0]
        outputs = shapes["lora_up.weight"][0]
        up = ((rng.standard_normal((outputs, rank), dtype=np.float32) * decay) @ turn) * np.float32(0.02)
        down = rng.random(shapes["lora_down.weight"], dtype=np.float32) - np.float32(0.5)
        down *= np.float32(2 / np.sqrt(down[0].size))
        values = {"lora_up.weight": up, "lora_down.weight": down, "alpha": np.array(rank / 2, np.float32)}
        for part, shape in shapes.items():
            key = f"{module.name}.{part}"
            pieces.append(metadata.raw(key, "F16", shape, values[part].astype(np.float16).tobytes()))
    size = sum(piece.entry.size for piece in pieces)
    if size != TENSOR_BYTES:
        message = f"{size:,} bytes of tensors instead of {TENSOR_BYTES:,}"
        raise SystemExit(message)
    metadata.write(path, pieces, {"ss_network_module": "networks.lora", "ss_network_dim": "128", "ss_network_alpha": "64.0"})


def run(argv: list[str], environment: dict[str, str] | None = None) -> Took:
    """Run a program with its output thrown away; SystemExit if it fails."""
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
    """Return what is timed, by title."""
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


def theirs(source: Path, folder: Path) -> Took | None:
    """Time sd-scripts' own tool where a checkout and its Python are named."""
    checkout, python = os.environ.get("SD_SCRIPTS_DIR"), os.environ.get("SD_SCRIPTS_PYTHON")
    if not (checkout and python):
        return None
    script = str(Path(checkout) / "networks" / "resize_lora.py")
    argv = [
        python,
        script,
        "--model",
        str(source),
        "--save_to",
        str(folder / "theirs.safetensors"),
        "--save_precision",
        "fp16",
    ]
    argv += ["--new_rank", "128", "--dynamic_method", "sv_ratio", "--dynamic_param", "16"]
    return run(argv, {"PYTHONPATH": checkout})


def goals(rounds: list[dict[str, Took]], largest: int, other: Took | None) -> dict[str, tuple[float, float]]:
    """Return per goal the median over the rounds of what was measured and of what is allowed, both of the same round."""

    def paired(measured: str, *allowed: tuple[float, str], plus: float = 0.0) -> tuple[float, float]:
        limits = [plus + sum(factor * took[title].seconds for factor, title in allowed) for took in rounds]
        return statistics.median(took[measured].seconds for took in rounds), statistics.median(limits)

    found = {
        "resize <= 1.5 import torch + 2 cp": paired("resize, sv_ratio 16", (1.5, "import torch"), (2, "cp")),
        "merge <= 2 cp + 0.5 s": paired("merge, every weight 0.5", (2, "cp"), plus=0.5),
        "inspect <= 0.4 s": paired("inspect, header only", plus=0.4),
        "sweep of 4 <= 1.25 of 1": paired("sweep, 4 ratios", (1.25, "sweep, 1 ratio")),
    }
    memory = statistics.median(took["merge, every weight 0.5"].peak for took in rounds)
    found["merge, peak MiB <= 1.2 largest tensor + 150 MB"] = (memory, (1.2 * largest + 150e6) / 2**20)
    if other:
        resize = statistics.median(took["resize, sv_ratio 16"].seconds for took in rounds)
        found["resize <= sd-scripts / 200"] = (resize, other.seconds / 200)
    return found


def main() -> None:
    """Run everything and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "bench")
    parser.add_argument("--generate", type=Path, help="only write the LoRA")
    asked = parser.parse_args()
    if asked.generate:
        generate(asked.generate)
        return
    asked.folder.mkdir(parents=True, exist_ok=True)
    source = asked.folder / "lora-128.safetensors"
    if not source.exists():
        print("writing a LoRA of 311,476,924 bytes …", file=sys.stderr)
        run([sys.executable, __file__, "--generate", str(source)])
    largest = max(entry.size for entry in read_header(source).entries.values())
    chosen = commands(source, asked.folder)
    rounds = []
    for number in range(asked.rounds + 1):
        took = {title: run(argv) for title, argv in chosen.items()}
        if number:  # the first round only fills the caches
            rounds.append(took)
    other = theirs(source, asked.folder)
    print(f"{'whole process':<46} {'median s':>9} {'least s':>9} {'cpu s':>7} {'peak MiB':>9}")
    for title in chosen:
        seconds = [took[title].seconds for took in rounds]
        peak = max(took[title].peak for took in rounds)
        processor = statistics.median(took[title].processor for took in rounds)
        print(f"{title:<46} {statistics.median(seconds):>9.2f} {min(seconds):>9.2f} {processor:>7.2f} {peak:>9.0f}")
    if other:
        row = f"{other.seconds:>9.2f} {other.seconds:>9.2f} {other.processor:>7.2f} {other.peak:>9.0f}"
        print(f"{'sd-scripts resize_lora.py, sv_ratio 16':<46} {row}")
    found = goals(rounds, largest, other)
    print(f"\n{'goal':<46} {'measured':>9} {'allowed':>9}")
    for goal, (measured, allowed) in found.items():
        print(f"{goal:<46} {measured:>9.2f} {allowed:>9.2f}  {'kept' if measured <= allowed else 'MISSED'}")
    if asked.json:
        table = [{title: asdict(one) for title, one in took.items()} for took in rounds]
        told = {
            "tensor_bytes": TENSOR_BYTES,
            "rounds": table,
            "sd_scripts": None if other is None else asdict(other),
            "goals": {goal: {"measured": m, "allowed": a, "kept": m <= a} for goal, (m, a) in found.items()},
        }
        asked.json.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
