"""What a run writes: checkpoints, states, the last file; and its reports (TensorBoard, sample pictures)."""

from __future__ import annotations

import importlib
import shutil
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from orchestrator.engines.embedded.trainer import metadata, training_state
from orchestrator.weights.io import writer

if TYPE_CHECKING:
    from argparse import Namespace

    from orchestrator.engines.embedded.trainer.loop import Run
    from orchestrator.engines.embedded.trainer.setup_run import Length

PRECISION = {"float": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16, None: torch.float32}
_SAFETENSORS = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}


class Saver:
    """Writes files by sd-scripts' names: ``name-step00000010.safetensors``, its ``-state/``, ``name.safetensors``."""

    def __init__(self, parts: Run, said: dict[str, str], length: Length) -> None:
        self.parts = parts
        self.args = parts.args
        self.network = parts.built.network
        self.said = said
        self.length = length
        self.folder = Path(self.args.output_dir)
        self.folder.mkdir(parents=True, exist_ok=True)

    def reporter(self, parts: Run, names: list[str]) -> Reporter:
        """The run's reports."""
        return Reporter(parts, names)

    def after_step(self, step: int, epoch: int) -> None:
        """Save what is due after this step; remove what is older than ``save_last_n_steps``."""
        args = self.args
        if not args.save_every_n_steps or step % args.save_every_n_steps:
            return
        self._write(f"{args.output_name}-step{step:08d}", step, epoch)
        if args.save_state:
            self._state(f"{args.output_name}-step{step:08d}-state", step, epoch)
            self._forget(step, args.save_last_n_steps_state or args.save_last_n_steps, "-state")
        self._forget(step, args.save_last_n_steps, ".safetensors")

    def after_epoch(self, step: int, epoch: int) -> None:
        """Save what is due after this epoch (never after the last: that is the final file)."""
        args = self.args
        if args.save_every_n_epochs and epoch % args.save_every_n_epochs == 0 and epoch < self.length.epochs:
            self._write(f"{args.output_name}-{epoch:06d}", step, epoch)
            if args.save_state:
                self._state(f"{args.output_name}-{epoch:06d}-state", step, epoch)

    def at_end(self, step: int, epoch: int) -> None:
        """Save the state, if asked, and the final file."""
        if self.args.save_state or self.args.save_state_on_train_end:
            self._state(f"{self.args.output_name}-state", step, epoch)
        self._write(self.args.output_name, step, epoch)

    def _write(self, name: str, step: int, epoch: int) -> None:
        """Write the network; the file appears by rename, whole."""
        file = self.folder / f"{name}.safetensors"
        print(f"\nsaving checkpoint: {file}", flush=True)
        dtype = PRECISION[self.args.save_precision]
        tensors = {key: value.cpu().to(dtype).contiguous() for key, value in self.network.saved().items()}
        pieces = [
            writer.raw(key, _SAFETENSORS[dtype], tuple(value.shape), value.reshape(-1).view(torch.uint8).numpy().tobytes())
            for key, value in tensors.items()
        ]
        writer.write_safetensors(file, pieces, metadata.of_save(self.args, self.said, step, epoch))

    def _state(self, name: str, step: int, epoch: int) -> None:
        folder = self.folder / name
        print(f"\nsaving state at step {step}", file=sys.stderr, flush=True)
        position = {
            "current_epoch": epoch,
            "current_step": step,
            "seed": self.args.seed,
            "batches_per_epoch": self.length.batches_per_epoch,
        }
        training_state.save(folder, self.network, self.parts.optimizer, self.parts.schedule, position)

    def _forget(self, step: int, keep: int | None, ending: str) -> None:
        """Remove the checkpoint that became older than ``keep`` steps."""
        if not keep:
            return
        every = self.args.save_every_n_steps
        old = step - keep - 1
        old -= old % every
        path = self.folder / f"{self.args.output_name}-step{old:08d}{ending}"
        if old <= 0 or not path.exists():
            return
        print(f"removing old checkpoint: {path}", flush=True)
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _wandb(args: Namespace) -> Any:
    """Return a run of W&B with sd-scripts' names for project and run, or None; its key and mode come from the environment."""
    if args.log_with not in ("wandb", "all"):
        return None
    init = importlib.import_module("wandb").init  # no dependency of ours: who asks for it installs it
    return init(project=args.log_tracker_name or "network_train", name=args.wandb_run_name, dir=args.logging_dir)


class Reporter:
    """Scalars for TensorBoard and W&B, and sample pictures, where asked for."""

    def __init__(self, parts: Run, names: list[str]) -> None:
        self.parts = parts
        self.names = names
        self.log: Any = None
        self.wandb = _wandb(parts.args)
        if parts.args.logging_dir and parts.args.log_with != "wandb":
            from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - slow to import, rarely wanted

            stamp = f"{parts.args.log_prefix}{datetime.now().astimezone():%Y%m%d%H%M%S}"
            self.log = SummaryWriter(str(Path(parts.args.logging_dir) / stamp / "network_train"))

    def scalars(self, step: int, value: float, average: float) -> None:
        """One step's loss and rates, by sd-scripts' names."""
        said = {"loss/current": value, "loss/average": average}
        for name, group in zip(self.names, self.parts.optimizer.param_groups, strict=True):
            if group["lr"] is not None:
                said[f"lr/{name.replace(' ', '_')}"] = group["lr"]
        if self.log is not None:
            for name, scalar in said.items():
                self.log.add_scalar(name, scalar, step)
        if self.wandb is not None:
            self.wandb.log(said, step=step)

    def epoch(self, epoch: int) -> None:
        """Sample pictures after an epoch, where asked for."""
        every = self.parts.args.sample_every_n_epochs
        if every and epoch % every == 0:
            self._draw(f"e{epoch:06d}")

    def samples(self, step: int, *, at_first: bool = False) -> None:
        """Sample pictures after a step, where asked for."""
        args = self.parts.args
        due = (
            args.sample_at_first
            if at_first
            else bool(args.sample_every_n_steps and step and step % args.sample_every_n_steps == 0)
        )
        if due:
            self._draw(f"{step:06d}")

    def close(self) -> None:
        """Flush what was logged."""
        if self.log is not None:
            self.log.close()
        if self.wandb is not None:
            self.wandb.finish()

    def _draw(self, label: str) -> None:
        args = self.parts.args
        if not args.sample_prompts:
            return
        from orchestrator.engines.embedded.trainer import prompts, sampling  # noqa: PLC0415

        lines = prompts.read(Path(args.sample_prompts), prompts.Defaults(sampler=args.sample_sampler, seed=args.seed))
        folder = Path(args.output_dir) / "sample"
        folder.mkdir(parents=True, exist_ok=True)
        network: Any = self.parts.built.network
        network.eval()
        with torch.no_grad():
            network.rebuild()
            stamp = f"{datetime.now().astimezone():%Y%m%d%H%M%S}"
            for i, (line, image) in enumerate(sampling.draw(self.parts.model, lines, args.clip_skip, 8)):
                image.save(folder / f"{args.output_name}_{label}_{i:02d}_{stamp}_{line.seed}.png")
        network.train()
