"""Train by independent workers on shared weights ("Hogwild").

Each worker has one thread, and there are no locks.

Each worker has its own optimizer and batches, and writes to the same weights. No worker waits for another, so a core with
other work slows down its own worker only.

Matrices and convolutions are trained by Muon, which needs far fewer steps than Adam here, everything else by AdamW.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import multiprocessing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from torch import nn

    Weights = dict[str, dict[str, torch.Tensor]]

EVERY = 50  # steps of the first worker between two lines of the log
_THIN = 8  # matrices with a smaller side are left to AdamW
_EMBEDDING = 500  # rows


class HogwildTask(Protocol):
    """A training task: modules by name, and the loss of one random batch."""

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        """Return the modules that learn."""
        ...

    def start(self, seed: int) -> None:
        """Seed the random choices of one worker."""
        ...

    def loss(self) -> torch.Tensor:
        """Return the loss of one batch."""
        ...


@dataclass(frozen=True, slots=True)
class HogwildSchedule:
    """Minutes of wall clock, peak learning rate, workers, and seed."""

    minutes: float
    rate: float
    workers: int
    seed: int
    decay: float = 0.998  # of the average of the weights, per step of the first worker
    begin: float = 0.0  # time.time() at the first step


def is_matrix(value: torch.Tensor) -> bool:
    """Return whether Muon may train a parameter.

    It is a matrix or a convolution, neither thin nor an embedding.
    """
    return value.ndim >= 2 and min(value.shape[0], value[0].numel()) > _THIN and value.shape[0] < _EMBEDDING


def as_matrix(value: torch.Tensor) -> torch.Tensor:
    """Return a convolution (out, in, h, w) as a matrix (out, h * w * in).

    Without a copy if it is channels-last.
    """
    return value if value.ndim == 2 else value.permute(0, 2, 3, 1).reshape(len(value), -1)


class MatrixMuon(torch.optim.Muon):
    """Muon for matrices and channels-last convolutions.

    Its step sizes fit AdamW's learning rates.
    """

    def __init__(self, values: Sequence[torch.Tensor], rate: float) -> None:
        """Train ``values`` in place.

        Raises:
            ValueError: a convolution is not channels-last.
        """
        self.values = values
        self.matrices = [torch.nn.Parameter(as_matrix(value.detach())) for value in values]
        if any(matrix.data_ptr() != value.data_ptr() for matrix, value in zip(self.matrices, values, strict=True)):
            message = "a convolution is not channels-last"
            raise ValueError(message)
        super().__init__(self.matrices, lr=rate, weight_decay=1e-3, adjust_lr_fn="match_rms_adamw")

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Make one step with the gradients of ``values``."""
        for value, matrix in zip(self.values, self.matrices, strict=True):
            matrix.grad = None if value.grad is None else as_matrix(value.grad)
        super().step(closure)  # type: ignore[no-untyped-call]


def run(task: HogwildTask, schedule: HogwildSchedule, save: Path) -> list[tuple[int, float]]:
    """Train modules in place, and return (step, loss) pairs.

    The modules end with the average of their weights, which is also written to ``save``.

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


def _work(rank: int, task: HogwildTask, schedule: HogwildSchedule, save: Path) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(schedule.seed + rank)
    task.start(schedule.seed + rank)
    named = [(part, name, value) for part, module in task.modules.items() for name, value in module.named_parameters()]
    values = [value for _, _, value in named]
    average = [value.detach().clone() for value in values] if rank == 0 else []
    optimizers: list[torch.optim.Optimizer] = [
        MatrixMuon([value for value in values if is_matrix(value)], schedule.rate),
        torch.optim.AdamW(
            [value for value in values if not is_matrix(value)], schedule.rate / 2, weight_decay=0.0, betas=(0.9, 0.99)
        ),
    ]
    log: list[tuple[int, float]] = []
    step, total, saved = 0, 0.0, time.monotonic()
    begin = schedule.begin or time.time()

    def save_average() -> None:
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
                save_average()
                saved = time.monotonic()
    if rank == 0:
        save_average()
