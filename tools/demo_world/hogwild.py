"""Training by independent workers on shared weights, one thread each, without locks ("Hogwild").

Each worker has its own optimizer and batches and writes into the same weights. Nothing waits for anything, so a core that
is also busy with other work slows down only its own worker.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import multiprocessing

from tools.demo_world.muon import Muon, is_matrix

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import nn

    Weights = dict[str, dict[str, torch.Tensor]]

EVERY = 50  # steps of the first worker between two lines of the log


class Task(Protocol):
    """What is trained: modules by name, and the loss of one random batch."""

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        """The modules that learn."""
        ...

    def start(self, seed: int) -> None:
        """Prepare for random choices of one worker."""
        ...

    def loss(self) -> torch.Tensor:
        """Return the loss of one batch."""
        ...


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long (minutes of wall clock), with which highest rate, how many workers, from which seed."""

    minutes: float
    rate: float
    workers: int
    seed: int
    decay: float = 0.998  # of the average of the weights, over the steps of the first worker
    begin: float = 0.0  # time.time() at the first step


def run(task: Task, schedule: Schedule, save: Path) -> list[tuple[int, float]]:
    """Train in place; the modules end as the average of their weights, also written to ``save``. Return (step, loss) pairs.

    Steps are estimated as those of the first worker times the number of workers.
    """
    for module in task.modules.values():
        module.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        module.share_memory()
    multiprocessing.spawn(  # type: ignore[attr-defined,no-untyped-call]
        _work, (task, schedule, save), nprocs=schedule.workers
    )
    weights: Weights = torch.load(save, weights_only=True)
    for name, module in task.modules.items():
        module.load_state_dict(weights[name], strict=False)
        module.eval()
    return [(step, loss) for step, loss in json.loads(save.with_suffix(".json").read_text(encoding="utf-8"))]


def _work(rank: int, task: Task, schedule: Schedule, save: Path) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(schedule.seed + rank)
    task.start(schedule.seed + rank)
    named = [(part, name, value) for part, module in task.modules.items() for name, value in module.named_parameters()]
    values = [value for _, _, value in named]
    average = [value.detach().clone() for value in values] if rank == 0 else []
    optimizers: list[torch.optim.Optimizer] = [
        Muon([value for value in values if is_matrix(value)], schedule.rate, weight_decay=1e-3),
        torch.optim.AdamW(
            [value for value in values if not is_matrix(value)], schedule.rate / 2, weight_decay=0.0, betas=(0.9, 0.99)
        ),
    ]
    log: list[tuple[int, float]] = []
    step, total, saved = 0, 0.0, time.monotonic()
    begin = schedule.begin or time.time()

    def keep() -> None:
        weights: Weights = {part: {} for part in task.modules}
        for (part, name, _), value in zip(named, average, strict=True):
            weights[part][name] = value
        torch.save(weights, save)
        save.with_suffix(".json").write_text(json.dumps(log), encoding="utf-8")

    while (passed := (time.time() - begin) / (60 * schedule.minutes)) < 1:
        factor = min(1.0, (step + 1) / 100) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * passed)))
        for optimizer, share in zip(optimizers, (1.0, 0.5), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = schedule.rate * share * factor
        loss = task.loss()
        for value in values:
            value.grad = None
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(values, 1.0)
        for optimizer in optimizers:
            optimizer.step()
        step += 1
        if rank:
            continue
        with torch.no_grad():
            for mean, value in zip(average, values, strict=True):
                mean.lerp_(value, 1 - min(schedule.decay, (step + 1) / (step + 10)))
        total += loss.item()
        if step % EVERY == 0:
            log.append((step * schedule.workers, total / EVERY))
            print(f"step {step * schedule.workers} loss {total / EVERY:.4f} {passed:.1%}", flush=True)
            total = 0.0
            if time.monotonic() - saved > 100:
                keep()
                saved = time.monotonic()
    if rank == 0:
        keep()
