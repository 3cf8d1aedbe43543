"""Checkpoints, states and the final file of a training run."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from orchestrator.engines.embedded.trainer import metadata, tensor_files, training_state

if TYPE_CHECKING:
    from orchestrator.engines.embedded.trainer.run_state import TrainingRun
    from orchestrator.engines.embedded.trainer.setup_run import RunLength

PRECISION = {"float": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16, None: torch.float32}


class CheckpointSaver:
    """Saves checkpoints and states under sd-scripts' names.

    These are ``name-step00000010.safetensors``, its ``-state/``, and ``name.safetensors``.
    """

    def __init__(self, run: TrainingRun, run_metadata: dict[str, str], length: RunLength) -> None:
        self.run = run
        self.args = run.args
        self.network = run.built.network
        self.run_metadata = run_metadata
        self.length = length
        self.folder = Path(self.args.output_dir)
        self.folder.mkdir(parents=True, exist_ok=True)

    def after_step(self, step: int, epoch: int) -> None:
        """Save the files due after this step, and remove outdated ones."""
        args = self.args
        if not args.save_every_n_steps or step % args.save_every_n_steps:
            return
        self._write(f"{args.output_name}-step{step:08d}", step, epoch)
        if args.save_state:
            self._write_state(f"{args.output_name}-step{step:08d}-state", step, epoch)
            self._remove_old(step, args.save_last_n_steps_state or args.save_last_n_steps, "-state")
        self._remove_old(step, args.save_last_n_steps, ".safetensors")

    def after_epoch(self, step: int, epoch: int) -> None:
        """Save the files due after this epoch.

        The last epoch ends with the final file instead.
        """
        args = self.args
        if args.save_every_n_epochs and epoch % args.save_every_n_epochs == 0 and epoch < self.length.epochs:
            self._write(f"{args.output_name}-{epoch:06d}", step, epoch)
            if args.save_state:
                self._write_state(f"{args.output_name}-{epoch:06d}-state", step, epoch)

    def at_end(self, step: int, epoch: int) -> None:
        """Save the state, if requested, and the final file."""
        if self.args.save_state or self.args.save_state_on_train_end:
            self._write_state(f"{self.args.output_name}-state", step, epoch)
        self._write(self.args.output_name, step, epoch)

    def _write(self, name: str, step: int, epoch: int) -> None:
        file = self.folder / f"{name}.safetensors"
        print(f"\nsaving checkpoint: {file}", flush=True)
        dtype = PRECISION[self.args.save_precision]
        tensors = {key: value.cpu().to(dtype) for key, value in self.network.saved().items()}
        tensor_files.write_lora(file, tensors, metadata.of_file(self.args, self.run_metadata, step, epoch))

    def _write_state(self, name: str, step: int, epoch: int) -> None:
        print(f"\nsaving state at step {step}", file=sys.stderr, flush=True)
        position = {
            "current_epoch": epoch,
            "current_step": step,
            "seed": self.args.seed,
            "batches_per_epoch": self.length.batches_per_epoch,
        }
        training_state.save(self.folder / name, self.network, self.run.optimizer, self.run.schedule, position)

    def _remove_old(self, step: int, keep: int | None, suffix: str) -> None:
        """Remove the checkpoint that became older than ``keep`` steps."""
        if not keep:
            return
        every = self.args.save_every_n_steps
        old = step - keep - 1
        old -= old % every
        path = self.folder / f"{self.args.output_name}-step{old:08d}{suffix}"
        if old <= 0 or not path.exists():
            return
        print(f"removing old checkpoint: {path}", flush=True)
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
