"""Scalars for TensorBoard and W&B, and sample images of a training."""

from __future__ import annotations

import importlib
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from orchestrator.engines.embedded.trainer import prompts, sampling

if TYPE_CHECKING:
    from argparse import Namespace

    from orchestrator.engines.embedded.trainer.run_state import TrainingRun

_BATCH_SIZE = 8  # sample images at once


class TrainingReporter:
    """Logs scalars and draws sample images where the arguments request them."""

    def __init__(self, run: TrainingRun, group_names: list[str]) -> None:
        self.run = run
        self.group_names = group_names
        self.tensorboard: Any = None
        self.wandb = _wandb(run.args)
        if run.args.logging_dir and run.args.log_with != "wandb":
            from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - an extra, and it takes a second

            folder = Path(run.args.logging_dir) / f"{run.args.log_prefix}{_now()}" / "network_train"
            self.tensorboard = SummaryWriter(str(folder))

    def scalars(self, step: int, loss: float, average_loss: float) -> None:
        """Log one step's loss and learning rates under sd-scripts' names."""
        values = {"loss/current": loss, "loss/average": average_loss}
        for name, group in zip(self.group_names, self.run.optimizer.param_groups, strict=True):
            if group["lr"] is not None:
                values[f"lr/{name.replace(' ', '_')}"] = group["lr"]
        self._log(values, step)

    def _log(self, values: dict[str, float], step: int) -> None:
        if self.tensorboard is not None:
            for name, value in values.items():
                self.tensorboard.add_scalar(name, value, step)
        if self.wandb is not None:
            self.wandb.log(values, step=step)

    def validation(self, step: int, loss: float, average_loss: float) -> None:
        """Log the loss on held-out images, and its distance to the training's."""
        print(f"validation loss {loss:.5f} at step {step}", file=sys.stderr, flush=True)
        values = {"loss/validation/step_average": loss, "loss/validation/step_divergence": loss - average_loss}
        self._log(values, step)

    def samples_at_start(self) -> None:
        """Draw the sample images due before the first step."""
        if self.run.args.sample_at_first:
            self._draw(f"{0:06d}")

    def samples_after_step(self, step: int) -> None:
        """Draw the sample images due after a step."""
        every = self.run.args.sample_every_n_steps
        if every and step and step % every == 0:
            self._draw(f"{step:06d}")

    def samples_after_epoch(self, epoch: int) -> None:
        """Draw the sample images due after an epoch."""
        every = self.run.args.sample_every_n_epochs
        if every and epoch % every == 0:
            self._draw(f"e{epoch:06d}")

    def close(self) -> None:
        """Flush the logs."""
        if self.tensorboard is not None:
            self.tensorboard.close()
        if self.wandb is not None:
            self.wandb.finish()

    def _draw(self, label: str) -> None:
        args = self.run.args
        if not args.sample_prompts:
            return
        defaults = prompts.PromptDefaults(sampler=args.sample_sampler, seed=args.seed)
        lines = prompts.read(Path(args.sample_prompts), defaults)
        folder = Path(args.output_dir) / "sample"
        folder.mkdir(parents=True, exist_ok=True)
        network: Any = self.run.built.network
        network.eval()
        with torch.no_grad():
            network.rebuild()
            stamp = _now()
            for i, (line, image) in enumerate(sampling.draw(self.run.model, lines, args.clip_skip, _BATCH_SIZE)):
                image.save(folder / f"{args.output_name}_{label}_{i:02d}_{stamp}_{line.seed}.png")
        network.train()


def _wandb(args: Namespace) -> Any:
    """Start a W&B run under sd-scripts' names, if requested.

    Key and mode come from the environment.
    """
    if args.log_with not in ("wandb", "all"):
        return None
    init = importlib.import_module("wandb").init  # not a dependency: users of W&B install it
    return init(project=args.log_tracker_name or "network_train", name=args.wandb_run_name, dir=args.logging_dir)


def _now() -> str:
    return f"{datetime.now().astimezone():%Y%m%d%H%M%S}"
