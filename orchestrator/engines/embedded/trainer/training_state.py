"""The state of a training on disk, from which a run resumes.

A state is a folder that appears by rename when all its files are written and synced, so an existing state is complete.
Random numbers need no saving: each step seeds its own from the run's seed and the step's number.
"""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file

from orchestrator.engines.embedded.trainer import tensor_files
from orchestrator.errors import Problem, RecipeError
from orchestrator.system import files

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from orchestrator.engines.embedded.trainer.network_spec import AdapterNetwork

WEIGHTS, OPTIMIZER, SCHEDULE, POSITION = "network.safetensors", "optimizer.pt", "schedule.json", "train_state.json"


def save(
    folder: Path, network: AdapterNetwork, optimizer: torch.optim.Optimizer, schedule: Any, position: dict[str, Any]
) -> None:
    """Write a state.

    An older state of this name is replaced when the new one is complete.
    """
    with files.draft(folder) as draft:
        draft.mkdir()
        # The parameters themselves, because LyCORIS modules rename or fold tensors in their state dict.
        tensor_files.write_parameters(draft / WEIGHTS, dict(network.named_parameters()))
        torch.save(optimizer.state_dict(), draft / OPTIMIZER)
        files.write_json(draft / SCHEDULE, None if schedule is None else _plain(schedule.state_dict()), indent=None)
        files.write_json(draft / POSITION, position, indent=None)
        for path in (*draft.iterdir(), draft):
            files.sync_folder(path)
        if folder.exists():
            shutil.rmtree(folder)
    files.sync_folder(folder.parent)


def read_position(folder: Path) -> dict[str, Any]:
    """Return the position of a state.

    It has current_epoch, current_step, seed and batches_per_epoch.

    Raises:
        RecipeError: the folder is not a state of this engine.
    """
    missing = [name for name in (WEIGHTS, OPTIMIZER, SCHEDULE, POSITION) if not (folder / name).is_file()]
    if missing:
        raise RecipeError(Problem(str(folder), f"not a saved state of the embedded engine: no {', '.join(missing)}"))
    result: dict[str, Any] = json.loads((folder / POSITION).read_text(encoding="utf-8"))
    return result


def restore(folder: Path, network: AdapterNetwork, optimizer: torch.optim.Optimizer, schedule: Any) -> None:
    """Restore network, optimizer and schedule from a state.

    Raises:
        RecipeError: the state belongs to another network or optimizer.
    """
    try:
        _restore_parameters(network, load_file(folder / WEIGHTS))
        optimizer.load_state_dict(torch.load(folder / OPTIMIZER, weights_only=True))
    except (RuntimeError, ValueError, KeyError) as error:
        what = f"the state belongs to another network or optimizer: {str(error).splitlines()[0]}"
        raise RecipeError(Problem(str(folder), what, "start anew without --resume")) from error
    if schedule is not None:
        schedule.load_state_dict(json.loads((folder / SCHEDULE).read_text(encoding="utf-8")))


def _restore_parameters(network: AdapterNetwork, saved: dict[str, Tensor]) -> None:
    """Copy saved parameters into the network.

    Raises:
        ValueError: names or shapes differ.
    """
    parameters = dict(network.named_parameters())
    if {name: value.shape for name, value in saved.items()} != {name: value.shape for name, value in parameters.items()}:
        message = f"{len(saved)} parameters were saved, the network has {len(parameters)}, or their shapes differ"
        raise ValueError(message)
    with torch.no_grad():
        for name, value in saved.items():
            parameters[name].copy_(value)


def _plain(state: dict[str, Any]) -> dict[str, Any]:
    """Return the schedule's counters and rates.

    Its functions are rebuilt from the arguments.
    """
    return {key: value for key, value in state.items() if isinstance(value, int | float | str | list)}
