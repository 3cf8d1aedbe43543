"""A training's state on disk: everything to go on as if nothing had happened.

A state is a folder that appears by rename when all its files are written and synced: if it is there, it is complete.
Random numbers need no saving: each step seeds its own from the run's seed and the step's number.
"""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file

from orchestrator.errors import Problem, RecipeError

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from orchestrator.engines.embedded.trainer.network import Network

WEIGHTS, OPTIMIZER, SCHEDULE, POSITION = "network.safetensors", "optimizer.pt", "schedule.json", "train_state.json"


def save(folder: Path, network: Network, optimizer: torch.optim.Optimizer, schedule: Any, position: dict[str, Any]) -> None:
    """Write a state; an older one of this name is replaced only when the new one is complete."""
    part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    # The parameters as they are: what modules of LyCORIS call their state has other names, or is folded.
    dense = torch.contiguous_format
    save_file({name: value.detach().clone(memory_format=dense) for name, value in network.named_parameters()}, part / WEIGHTS)
    torch.save(optimizer.state_dict(), part / OPTIMIZER)
    (part / SCHEDULE).write_text(json.dumps(None if schedule is None else _plain(schedule.state_dict())), encoding="utf-8")
    (part / POSITION).write_text(json.dumps(position), encoding="utf-8")
    for file in part.iterdir():
        _sync(file)
    _sync(part)
    if folder.exists():
        shutil.rmtree(folder)
    part.rename(folder)
    _sync(folder.parent)


def read_position(folder: Path) -> dict[str, Any]:
    """The position a state was saved at: current_epoch, current_step, seed, batches.

    Raises:
        RecipeError: not a state of this engine.
    """
    missing = [name for name in (WEIGHTS, OPTIMIZER, SCHEDULE, POSITION) if not (folder / name).is_file()]
    if missing:
        raise RecipeError(Problem(str(folder), f"not a saved state of the embedded engine: no {', '.join(missing)}"))
    result: dict[str, Any] = json.loads((folder / POSITION).read_text(encoding="utf-8"))
    return result


def restore(folder: Path, network: Network, optimizer: torch.optim.Optimizer, schedule: Any) -> None:
    """Take network, optimizer and schedule from a state.

    Raises:
        RecipeError: the state belongs to another network or optimizer.
    """
    try:
        _take(network, load_file(folder / WEIGHTS))
        optimizer.load_state_dict(torch.load(folder / OPTIMIZER, weights_only=True))
    except (RuntimeError, ValueError, KeyError) as error:
        what = f"the state belongs to another network or optimizer: {str(error).splitlines()[0]}"
        raise RecipeError(Problem(str(folder), what, "start anew without --resume")) from error
    if schedule is not None:
        schedule.load_state_dict(json.loads((folder / SCHEDULE).read_text(encoding="utf-8")))


def _take(network: Network, saved: dict[str, Tensor]) -> None:
    """Copy saved parameters into the network's; ValueError where names or shapes differ."""
    parameters = dict(network.named_parameters())
    if {name: value.shape for name, value in saved.items()} != {name: value.shape for name, value in parameters.items()}:
        message = f"{len(saved)} parameters were saved, {len(parameters)} are here, or their shapes differ"
        raise ValueError(message)
    with torch.no_grad():
        for name, value in saved.items():
            parameters[name].copy_(value)


def _plain(state: dict[str, Any]) -> dict[str, Any]:
    """The schedule's counters and rates; its functions (None in a state) are made anew from the arguments."""
    return {key: value for key, value in state.items() if isinstance(value, int | float | str | list)}


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
