"""Feed mutated files to the program's readers.

``python tests/support/fuzz.py [TARGET…] [--count N | --atheris SECONDS] [--seed S]``

With ``--count``, inputs are made from sound ones by a seeded generator; with ``--atheris``, libFuzzer mutates them, led by
coverage (the extra ``fuzz``). A finding is an exception or a warning that a user would see, more than a second of
processor time for one input, or more than 500 MB; the input is kept and the exit code is 1.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

from fuzz_targets import TARGETS

LIMIT_SECONDS, LIMIT_MB = 1.0, 500


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
    """Read the inputs from ``first`` up to ``count``. A finding is raised."""
    make, read = TARGETS[name]
    signal.signal(signal.SIGPROF, hang)
    for category in (RuntimeWarning, UserWarning):  # the kinds that Python shows
        warnings.simplefilter("error", category)
    with tempfile.TemporaryDirectory() as folder:
        for index in range(first, count):
            data = make(random.Random(f"{name} {seed} {index}"))  # noqa: S311 - seeded on purpose
            try:
                signal.setitimer(
                    signal.ITIMER_PROF, LIMIT_SECONDS if index > first else 30 * LIMIT_SECONDS
                )  # the first one imports
                read(data, Path(folder))
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
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus"
        corpus.mkdir()
        with atheris.instrument_imports(include=["orchestrator"]):
            for index in range(64):
                data = make(random.Random(f"{name} {seed} {index}"))  # noqa: S311 - seeded on purpose
                (corpus / str(index)).write_bytes(data)
                read(data, Path(folder))
        options = [
            f"-max_total_time={seconds}",
            f"-seed={seed}",
            f"-rss_limit_mb={4 * LIMIT_MB}",
            "-timeout=20",
            "-max_len=20000",
        ]
        atheris.Setup(
            [name, str(corpus), *options, "-print_final_stats=1", "-verbosity=1"], lambda data: read(data, Path(folder))
        )
        atheris.Fuzz()
    return 0


def main() -> int:
    """Fuzz the given targets, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--atheris", type=int, metavar="SECONDS")
    parser.add_argument("--first", type=int, default=0, help="start at this input")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    unknown = set(options.targets) - set(TARGETS)
    if unknown:
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    names = options.targets or list(TARGETS)
    if len(names) == 1:
        return (
            plain(names[0], options.count, options.seed)
            if options.atheris is None
            else guided(names[0], options.atheris, options.seed)
        )
    more = (
        ["--count", str(options.count), "--first", str(options.first)]
        if options.atheris is None
        else ["--atheris", str(options.atheris)]
    )
    argv = [sys.executable, __file__, "--seed", str(options.seed), *more]
    return max(subprocess.run([*argv, name], env=os.environ, check=False).returncode for name in names)


if __name__ == "__main__":
    sys.exit(main())
