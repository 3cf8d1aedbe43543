"""Guards: disk, throughput and GPU during a run, outputs after it."""

from __future__ import annotations

import itertools
import shutil
import time
from collections import deque
from typing import TYPE_CHECKING

from PIL import Image

from orchestrator.errors import RecipeError
from orchestrator.plan.estimate import STATE_FACTOR
from orchestrator.system import gpu
from orchestrator.weights.io.safetensors_io import Body, read_header

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from orchestrator.recipe import Guards, Training

MB = 1_000_000
FULL = 64 * 1024  # bytes: a block or two of a file system
PACE_FRAMES = 10
HEAT_EVERY_SECONDS = 30.0
COOLER = 5  # degrees Celsius
NOTHING_LEARNED = "factors that begin at zero are still zero: nothing was learned"
# The factor of each family that starts at zero: the delta is zero as long as all of them are.
_BEGIN_AT_ZERO = ("lora_up.weight", "hada_w2_a", "lokr_w2", "lokr_w2_a", "diff", "oft_blocks", "b2.weight")


def low_disk(folder: Path, guards: Guards, save: int = 0) -> str:
    """Return why a run should wait before it writes to ``folder``, or "".

    Args:
        folder: the folder to write to.
        guards: the recipe's limits.
        save: bytes of the next save.
    """
    free = shutil.disk_usage(folder).free
    if free >= guards.min_free_mb * MB + save:
        return ""
    needed = f"{guards.min_free_mb} MB (guards.min_free_mb)" + (f" and {save / MB:.0f} MB for its next save" if save else "")
    return f"{free / MB:.0f} MB free on the disk of {folder}; waits for {needed}"


def next_save(training: Training, tensor_bytes: int, done: int) -> int:
    """Return the most bytes of a training's next save.

    That is its file, and a state unless the last one is saved.
    """
    every = training.state_every_n_steps
    return tensor_bytes * (1 + (STATE_FACTOR if every and done // every < training.steps // every else 0))


def no_space(folder: Path) -> str:
    """Return a message if the disk of ``folder`` is full, or "".

    The failed program may have been unable to log that.
    """
    return f"No space left on the disk of {folder}" if shutil.disk_usage(folder).free < FULL else ""


class ThroughputGuard:
    """Detects that steps have become much slower.

    A single long gap (a save, samples, a pause) does not count.
    """

    def __init__(self, guards: Guards, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        """Call ``say`` once for each collapse of the pace."""
        self._factor, self._say, self._clock = guards.slow_factor, say, clock
        self._frames: deque[tuple[float, int]] = deque(maxlen=PACE_FRAMES)
        self._best, self._slow, self._stops = 0.0, False, guards.slow == "stop"

    @property
    def fault(self) -> str:
        """Return the fault if the pace has collapsed and the recipe stops then."""
        return "the pace has collapsed (guards.slow)" if self._slow and self._stops else ""

    def step(self, done: int) -> None:
        """Note that ``done`` steps are done at this moment."""
        if self._frames and done <= self._frames[-1][1]:
            return
        self._frames.append((self._clock(), done))
        if len(self._frames) < PACE_FRAMES:
            return
        gaps = sorted((later - at, then - steps) for (at, steps), (later, then) in itertools.pairwise(self._frames))
        seconds = sum(gap for gap, _ in gaps[:-1]) / sum(steps for _, steps in gaps[:-1])
        self._best = min(self._best or seconds, seconds)
        slow = seconds > self._best * self._factor
        if slow and not self._slow:
            self._say(
                f"a step takes {seconds:.2f} s; the fastest took {self._best:.2f} s (guards.slow_factor = {self._factor:g}). "
                "GPU memory may have spilled into RAM, or another program shares the machine"
            )
        self._slow = slow

    def interrupted(self) -> None:
        """Measure anew from the next step on, after a pause."""
        self._frames.clear()


class GpuGuard:
    """Detects a hot or full GPU by nvidia-smi.

    It queries no more once nvidia-smi has failed.
    """

    def __init__(self, guards: Guards, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        """Call ``say`` when a GPU exceeds the limits of the recipe."""
        self._limit, self._say, self._clock = guards.max_gpu_celsius, say, clock
        self._next, self._hot = 0.0, False
        self._rule = guards.hot
        self._most, self._full, self._stops = guards.max_gpu_memory, "", guards.full == "stop"

    @property
    def fault(self) -> str:
        """Return the fault if a GPU is full and the recipe stops then."""
        return f"{self._full} (guards.full)" if self._full and self._stops else ""

    def pause_reason(self) -> str:
        """Return why the run should wait, or ""."""
        self._query()
        if not self._hot or self._rule == "warn":
            return ""
        return f"the GPU is hotter than {self._limit} °C (guards.max_gpu_celsius); waits until it is {COOLER} °C below"

    def _query(self) -> None:
        if self._clock() < self._next:
            return
        self._next = self._clock() + HEAT_EVERY_SECONDS
        readings = gpu.numbers("temperature.gpu", "memory.used", "memory.total")
        if readings is None:
            self._next = float("inf")
            return
        used, total = max((reading[1:3] for reading in readings), key=lambda pair: pair[0] / max(1, pair[1]), default=(0, 1))
        if used > self._most * total and not self._full:
            self._full = f"{used} of {total} MB of the GPU's memory are in use"
            self._say(f"{self._full} (guards.max_gpu_memory = {self._most:g}); the rest may go to RAM, many times slower")
        hottest = max((reading[0] for reading in readings), default=0)
        if hottest > self._limit and not self._hot:
            memory = ", ".join(f"{reading[1]} of {reading[2]} MB" for reading in readings)
            self._say(f"the GPU is at {hottest} °C (guards.max_gpu_celsius = {self._limit}); memory {memory}")
        self._hot = hottest > self._limit - (COOLER if self._hot else 0)


def zero_delta(file: Path) -> str:
    """Return why a trained file holds no change at all, or "".

    Only the factors that start at zero are read.
    """
    try:
        header = read_header(file)
        factors = [name for name in header.entries if name.endswith(_BEGIN_AT_ZERO)]
        with Body(header) as body:
            if any(chunk.strip(b"\0") for name in factors for chunk in body.chunks(name)):
                return ""
    except RecipeError as error:
        return "; ".join(problem.what for problem in error.problems)
    return f"all {len(factors)} {NOTHING_LEARNED}" if factors else ""


def constant_images(files: Iterable[Path]) -> list[str]:
    """Return the names of the images of a single colour."""
    names: list[str] = []
    for file in files:
        with Image.open(file) as image:
            extrema = image.convert("RGB").getextrema()
        if all(isinstance(band, tuple) and band[0] == band[1] for band in extrema):
            names.append(file.name)
    return names
