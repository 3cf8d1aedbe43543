"""Feed strangers' files to what reads them: ``python tests/fuzz.py [TARGET…] [--count N | --atheris SECONDS] [--seed S]``.

With ``--count``, inputs are made from sound ones by a seeded generator; with ``--atheris``, libFuzzer mutates them, led by
coverage (the extra ``fuzz``). A finding is an exception that a user would see as a traceback, more than a second of
processor time for one input, or more than 500 MB; the input is kept and the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parent.parent
LIMIT_SECONDS, LIMIT_MB = 1.0, 500
WORDS = [
    "--resume",
    "-h",
    "; rm -rf x",
    "$(id)",
    "../../x",
    "/etc/passwd",
    "\x1b[31m",
    "a" * 300,
    "猫",
    "",
    "nan",
    "\\",
    '"""',
    "\0",
]
NUMBERS = [0, -1, 1, 2**31, 2**63, 2**70, -(2**70), 0.0, 1e-310, 1e308, float("inf"), float("nan")]
FAMILIES: tuple[dict[str, list[int]], ...] = (
    {"lora_down.weight": [2, 3], "lora_up.weight": [4, 2], "alpha": []},
    {"lora_down.weight": [2, 3, 1, 1], "lora_mid.weight": [2, 2, 3, 3], "lora_up.weight": [4, 2, 1, 1], "alpha": []},
    {"hada_w1_a": [4, 2], "hada_w1_b": [2, 3], "hada_w2_a": [4, 2], "hada_w2_b": [2, 3], "alpha": []},
    {"lokr_w1": [2, 3], "lokr_w2_a": [2, 1], "lokr_w2_b": [1, 2], "alpha": []},
)
Target = tuple["Callable[[random.Random], bytes]", "Callable[[bytes, Path], None]"]


def value(rng: random.Random, depth: int = 0) -> Any:
    """Return any TOML or JSON value."""
    kind = rng.randrange(7 if depth < 3 else 5)
    if kind == 5:
        return [value(rng, depth + 1) for _ in range(rng.randrange(5))]
    if kind == 6:
        return {word(rng): value(rng, depth + 1) for _ in range(rng.randrange(4))}
    return (None, rng.random() < 0.5, rng.choice(NUMBERS), word(rng), rng.randrange(-9, 9999))[kind]


def word(rng: random.Random) -> str:
    """Return a text of the kind that breaks things, or any."""
    if rng.random() < 0.6:
        return rng.choice(WORDS)
    return "".join(chr(rng.choice((rng.randrange(32, 127), rng.randrange(0x250), 0x1F600))) for _ in range(rng.randrange(12)))


def torn(rng: random.Random, data: bytes) -> bytes:
    """Return ``data`` with a few bytes changed, doubled or cut off."""
    changed = bytearray(data)
    for _ in range(rng.randrange(6)):
        at = rng.randrange(len(changed) + 1)
        match rng.randrange(4):
            case 0:
                changed[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                del changed[at : at + rng.randrange(20)]
            case 2:
                changed[at:at] = changed[: rng.randrange(64)]
            case _:
                changed[at : at + 8] = rng.choice((0, 2**31, 2**40, 2**63, 2**64 - 1)).to_bytes(8, "little")
    return bytes(changed)


def paths(table: dict[str, Any]) -> list[tuple[dict[str, Any], str]]:
    """Return every (table, key) of nested tables."""
    found = [(table, key) for key in table]
    for inner in table.values():
        found += paths(inner) if isinstance(inner, dict) else []
    return found


def make_recipe(rng: random.Random) -> bytes:
    """Return a whole recipe with a few keys set to anything, added or dropped; now and then with torn bytes too."""
    from orchestrator import load, show  # noqa: PLC0415 - atheris wants to see the import

    name = rng.choice(("krnk-lora3x3", "krnk-locon", "krnksf_tyankps-loha"))
    if name not in _WHOLE:
        _WHOLE[name] = json.dumps(load.recipe(ROOT / "recipes", name).merged)
    table = json.loads(_WHOLE[name])
    for _ in range(rng.randrange(1, 4)):
        places = paths(table)
        if not places:
            break
        above, key = rng.choice(places)
        match rng.randrange(3):
            case 0:
                above[key] = value(rng)
            case 1:
                above[word(rng)] = value(rng)
            case _:
                del above[key]
    lines: list[str] = []
    show._table(_without_none(table), (), None, lines)
    text = "\n".join(lines).encode("utf-8", "replace")
    return torn(rng, text) if rng.random() < 0.2 else text


_WHOLE: dict[str, str] = {}


def _without_none(item: Any) -> Any:
    if isinstance(item, dict):
        return {key: _without_none(inner) for key, inner in item.items() if inner is not None}
    return [_without_none(inner) for inner in item if inner is not None] if isinstance(item, list) else item


def read_recipe(data: bytes, folder: Path) -> None:
    """Load it as ``run`` would, ask its engine, and say its problems."""
    from orchestrator import engines, load  # noqa: PLC0415
    from orchestrator.errors import RecipeError, report  # noqa: PLC0415
    from orchestrator.terminal import clean  # noqa: PLC0415

    (folder / "fuzzed.toml").write_bytes(data)
    try:
        recipe = load.recipe(folder, "fuzzed").recipe
    except RecipeError as error:
        if "\x1b" in clean(report(error)):
            raise AssertionError("a control character would reach the terminal") from error
        return
    for problem in engines.get(recipe.engine).check(recipe):
        if not problem.what:
            raise AssertionError("a problem without words")


def make_header(rng: random.Random) -> bytes:
    """Return a safetensors file whose header has a few wrong entries or torn bytes."""
    table: dict[str, Any] = {}
    body = 0
    for index in range(rng.randrange(1, 4)):
        for end, whole in rng.choice(FAMILIES).items():
            shape = whole if rng.random() < 0.95 else [rng.randrange(6) for _ in range(rng.randrange(6))]
            count = 2
            for side in shape:
                count *= side
            name = f"lora_unet_down_blocks_{index}_attentions_0_proj_in.{end}"
            table[name] = {"dtype": "F16", "shape": shape, "data_offsets": [body, body + count]}
            body += count
    table["__metadata__"] = {"ss_network_module": "networks.lora", "ss_network_dim": "4", word(rng): word(rng)}
    for _ in range(rng.randrange(3)):
        above, key = rng.choice(paths(table))
        above[key] = value(rng)
    text = json.dumps(table).encode("utf-8", "replace")
    data = len(text).to_bytes(8, "little") + text + rng.randbytes(body)
    return torn(rng, data) if rng.random() < 0.7 else data


def read_header(data: bytes, folder: Path) -> None:
    """Read the header, look at the file, and guard it as a training's result."""
    from orchestrator import guards, weights  # noqa: PLC0415
    from orchestrator.engines import states  # noqa: PLC0415
    from orchestrator.errors import OrchestratorError  # noqa: PLC0415
    from orchestrator.weights import files  # noqa: PLC0415

    path = folder / "fuzzed.safetensors"
    path.write_bytes(data)
    states.whole(path)
    guards.zero_delta(path)
    try:
        files.read_header(path)
        weights.inspect(path)
    except OrchestratorError:
        return


def make_progress(rng: random.Random) -> bytes:
    """Return a piece of output that resembles a progress frame."""
    left = f"steps:  {rng.choice((50, word(rng)))}%|{word(rng)}| {rng.randrange(9)}/{rng.choice(NUMBERS)} [00:01<00:01, "
    text = f"{left} {rng.choice(NUMBERS)}s/it, avr_loss={rng.choice((word(rng), 0.1, 'nan', 1e99))}]"
    text = text if rng.random() < 0.7 else f"PROGRESS {json.dumps(value(rng))}"
    return torn(rng, text.encode("utf-8", "replace"))


def read_progress(data: bytes, _: Path) -> None:
    """Read it as every engine does, and as our own programs' output."""
    from orchestrator import diagnose, engines, journal  # noqa: PLC0415

    text = data.decode("utf-8", "replace")
    for name in engines.ENGINES:
        engines.get(name).read(text)
    journal.read_own(text)
    diagnose.find(text)


def make_record(rng: random.Random) -> bytes:
    """Return JSON that resembles the notes in a work folder."""
    child = {"supervisor": 1, "supervisor_started": "1", "pid": 1, "pid_started": "1", "at": 1.0, "host": "x", "place": "y"}
    noted: dict[str, Any] = {
        **child,
        "since": 0,
        "started": "1",
        "code": 0,
        "change": {},
        "log_at": 0,
        "argv": ["x"],
        "cwd": ".",
    }
    for _ in range(rng.randrange(4)):
        noted[rng.choice(list(noted))] = value(rng)
    return torn(rng, json.dumps(noted if rng.random() < 0.8 else value(rng)).encode("utf-8", "replace"))


def read_record(data: bytes, folder: Path) -> None:
    """Read it as every kind of note in a work folder, and as a lock."""
    from orchestrator import diagnose, owner, process, show, supervise  # noqa: PLC0415
    from orchestrator.store import Store  # noqa: PLC0415

    work = folder / "runs" / "x" / ".partial" / "train-000000000000"
    work.mkdir(parents=True, exist_ok=True)
    for name in (supervise.CHILD, supervise.EXIT, diagnose.ATTEMPTS, "record.json", "progress.jsonl"):
        (work / name).write_bytes(data)
    (work / "log.txt").write_bytes(data)
    process.alive(work)
    process.begun(work)
    process.ended_well(work)
    diagnose.of_log(work / "log.txt")
    diagnose.by_hand(work)
    for found in (owner.read(work / supervise.CHILD), owner.read(work / "log.txt")):
        str(found)
    for each in show.unfinished(Store(folder / "runs")):
        show.unfinished_line(each)


TARGETS: dict[str, Target] = {
    "recipes": (make_recipe, read_recipe),
    "headers": (make_header, read_header),
    "progress": (make_progress, read_progress),
    "records": (make_record, read_record),
}


def hang(*_: object) -> None:
    """Answer to the timer."""
    raise TimeoutError(f"more than {LIMIT_SECONDS} s of processor time for one input")


def peak_megabytes() -> int:
    """Return the most memory this process has held, in MB: its own, as Linux's ru_maxrss begins with its starter's."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text("utf-8").partition("VmHWM:")[2].split()[0]) // 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024**2


def plain(name: str, count: int, seed: int, first: int = 0) -> int:
    """Make and read the inputs from ``first`` up to ``count``; a finding is raised."""
    make, read = TARGETS[name]
    signal.signal(signal.SIGPROF, hang)
    with tempfile.TemporaryDirectory() as place:
        for index in range(first, count):
            data = make(random.Random(f"{name} {seed} {index}"))  # noqa: S311 - seeded on purpose
            try:
                signal.setitimer(
                    signal.ITIMER_PROF, LIMIT_SECONDS if index > first else 30 * LIMIT_SECONDS
                )  # the first one imports
                read(data, Path(place))
                signal.setitimer(signal.ITIMER_PROF, 0)
            except Exception as error:
                signal.setitimer(signal.ITIMER_PROF, 0)
                kept = Path(f"fuzz-{name}-{seed}-{index}")
                kept.write_bytes(data)
                error.add_note(f"input {index} of {name}, seed {seed}; kept in {kept.resolve()}")
                raise
    peak = peak_megabytes()
    used = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    print(
        f"{name}: {count} inputs from seed {seed}, no finding; at most {peak} MB; {used:.0f} s of processor time", flush=True
    )
    return int(peak > LIMIT_MB)


def guided(name: str, seconds: int, seed: int) -> int:
    """Let libFuzzer mutate sound inputs for some seconds, led by the coverage of the package. Does not return."""
    import atheris  # noqa: PLC0415 - the extra `fuzz`

    make, read = TARGETS[name]
    with tempfile.TemporaryDirectory() as place:
        corpus = Path(place) / "corpus"
        corpus.mkdir()
        with atheris.instrument_imports(include=["orchestrator"]):
            for index in range(64):
                data = make(random.Random(f"{name} {seed} {index}"))  # noqa: S311 - seeded on purpose
                (corpus / str(index)).write_bytes(data)
                read(data, Path(place))
        options = [
            f"-max_total_time={seconds}",
            f"-seed={seed}",
            f"-rss_limit_mb={4 * LIMIT_MB}",
            "-timeout=20",
            "-max_len=20000",
        ]
        atheris.Setup(
            [name, str(corpus), *options, "-print_final_stats=1", "-verbosity=1"], lambda data: read(data, Path(place))
        )
        atheris.Fuzz()
    return 0


def main() -> int:
    """Fuzz the targets asked for, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--atheris", type=int, metavar="SECONDS")
    parser.add_argument("--first", type=int, default=0, help="go on at this input")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    strange = set(asked.targets) - set(TARGETS)
    if strange:
        parser.error(f"no such target: {', '.join(sorted(strange))}")
    names = asked.targets or list(TARGETS)
    if len(names) == 1:
        return (
            plain(names[0], asked.count, asked.seed) if asked.atheris is None else guided(names[0], asked.atheris, asked.seed)
        )
    more = (
        ["--count", str(asked.count), "--first", str(asked.first)]
        if asked.atheris is None
        else ["--atheris", str(asked.atheris)]
    )
    argv = [sys.executable, __file__, "--seed", str(asked.seed), *more]
    return max(subprocess.run([*argv, name], env=os.environ, check=False).returncode for name in names)


if __name__ == "__main__":
    sys.exit(main())
