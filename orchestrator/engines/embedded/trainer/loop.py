"""Run a training from its arguments to the saved files.

:func:`run` prepares the run, :class:`TrainingLoop` makes the steps.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from tqdm import tqdm  # type: ignore[import-untyped]

from orchestrator.engines.embedded.trainer import (
    cli_options,
    dataset_config,
    images,
    loss,
    metadata,
    model,
    network_spec,
    objective,
    optimizers,
    setup_run,
    training_state,
)
from orchestrator.engines.embedded.trainer.checkpoints import CheckpointSaver
from orchestrator.engines.embedded.trainer.latents import LatentCache
from orchestrator.engines.embedded.trainer.reports import TrainingReporter
from orchestrator.engines.embedded.trainer.run_state import TrainingRun
from orchestrator.engines.embedded.trainer.validation import Validator
from orchestrator.errors import NotReady, Problem, StepFailed

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator

    from orchestrator.engines.embedded.trainer.images import ImageGroup, ImageSample, TrainingImage

# Batches whose recolored images are encoded together. Batches are counted from the start of the run, so that a resumed run
# encodes the same images together: the last bit of a convolution may depend on its batch.
_ENCODE_AHEAD = 32


@dataclass(frozen=True, slots=True)
class PlannedBatch:
    """One batch of the run.

    Its number counts over the whole run, its epoch from 1.
    """

    number: int
    epoch: int
    samples: list[ImageSample]


def run(args: Namespace) -> None:
    """Train and save.

    Raises:
        RecipeError: arguments, dataset or state are wrong.
        NotReady: the model or the device is missing.
        StepFailed: the loss is not a finite number.
    """
    setup_run.check(args)
    if args.seed is None:
        args.seed = random.SystemRandom().randrange(2**32)
    for note in cli_options.notes(args):
        setup_run.log(note)
    setup_run.log(f"Loading dataset config from {args.dataset_config}")
    found = images.find(dataset_config.read(Path(args.dataset_config), args.caption_extension))
    groups = tuple(group for group in found if not group.dataset.validation)
    held_out = tuple(group for group in found if group.dataset.validation)
    validated = sum(group.count() for group in held_out)
    setup_run.log_buckets(groups)
    base = model.load(Path(args.pretrained_model_name_or_path), Path(args.vae) if args.vae else None)
    print(f"accelerator device: {base.device.type}", flush=True)
    if args.mixed_precision == "fp16" and base.device.type == "cpu":
        raise NotReady(
            Problem("--mixed_precision", "fp16 mixed precision requires a GPU", "use --mixed_precision no on a CPU")
        )
    torch.manual_seed(images.derive(args.seed, "network"))
    built = setup_run.make_network(args, base)
    print("prepare optimizer, data loader etc.", flush=True)
    length = setup_run.measure(args, groups)
    args.max_train_steps = length.steps
    network_args = network_spec.read(args).args
    parameter_groups, names = optimizers.groups(built, args, network_args)
    optimizer = optimizers.make_optimizer(
        args.optimizer_type, parameter_groups, optimizers.arguments(args.optimizer_args), args.learning_rate
    )
    schedule = optimizers.make_schedule(args, optimizer, length.steps)
    start = setup_run.first_step(args, length)
    if args.resume:
        training_state.restore(Path(args.resume), built.network, optimizer, schedule)
        print(f"resume training from state: {args.resume} at step {start}", flush=True)
    setup_run.print_banner(groups, length, validated)
    run_metadata = metadata.of_run(args, groups, validated, length.epochs, _full_name(optimizer), network_args)
    latents = LatentCache(base)
    latents.encode_unchanged([image for group in found for image in group.images])
    scaler = torch.amp.GradScaler(base.device.type, enabled=args.mixed_precision == "fp16")
    noise = loss.make_noise(base.noise, base.device)
    state = TrainingRun(args, base, built, optimizer, schedule, noise, latents, scaler)
    saver = CheckpointSaver(state, run_metadata, length)
    loop = TrainingLoop(state, length, saver, TrainingReporter(state, names), Validator(state, held_out))
    loop.train(groups, start)
    setup_run.log("model saved.")


class TrainingLoop:
    """The steps of a run, with the files and reports due on the way."""

    def __init__(
        self,
        run: TrainingRun,
        length: setup_run.RunLength,
        saver: CheckpointSaver,
        reporter: TrainingReporter,
        validator: Validator,
    ) -> None:
        self.run = run
        self.validator = validator
        self.length = length
        self.saver = saver
        self.reporter = reporter
        self.losses: dict[int, float] = {}

    def train(self, groups: tuple[ImageGroup, ...], start: int) -> None:
        """Make all steps after step ``start`` and save the final file."""
        args = self.run.args
        self.run.built.network.train()
        step, epoch, accumulated = start, 0, 0
        bar = tqdm(total=self.length.steps - start, smoothing=0, desc="steps")
        if start == 0:
            self.reporter.samples_at_start()
        else:
            self.reporter.samples_after_step(start)
        for batch in self._batches(groups, start):
            if batch.epoch != epoch:
                if epoch:
                    self._end_epoch(epoch, step)
                epoch = batch.epoch
                print(f"\nepoch {epoch}/{self.length.epochs}\n", flush=True)
            batch_loss = self._backward(batch)
            accumulated += 1
            average_loss = self._average_loss(batch.number, batch_loss, step + 1)
            last_of_epoch = (batch.number + 1) % self.length.batches_per_epoch == 0
            if accumulated < args.gradient_accumulation_steps and not last_of_epoch:
                continue
            accumulated = 0
            self._update()
            step += 1
            bar.set_postfix(avr_loss=average_loss, refresh=False)
            bar.update(1)
            self.reporter.scalars(step, batch_loss, average_loss)
            self.reporter.samples_after_step(step)
            self.saver.after_step(step, epoch)
            if self.validator.due(step):
                self.reporter.validation(step, self.validator.loss(), average_loss)
            if step >= self.length.steps:
                break
        bar.refresh()
        bar.close()
        self.saver.at_end(step, epoch)
        self.reporter.close()

    def _batches(self, groups: tuple[ImageGroup, ...], start: int) -> Iterator[PlannedBatch]:
        """Yield the batches after step ``start``.

        Recolored images are encoded in fixed chunks of batches.
        """
        per_epoch, accumulation = self.length.batches_per_epoch, self.length.accumulation
        epochs_done, steps_done = divmod(start, self.length.steps_per_epoch)
        first = epochs_done * per_epoch + steps_done * accumulation
        end = self.length.epochs * per_epoch
        seed = self.run.args.seed
        order: dict[int, list[list[TrainingImage]]] = {}
        for chunk_start in range(first - first % _ENCODE_AHEAD, end, _ENCODE_AHEAD):
            chunk: list[PlannedBatch] = []
            for number in range(chunk_start, min(chunk_start + _ENCODE_AHEAD, end)):
                epoch = number // per_epoch + 1
                if epoch not in order:
                    order = {key: value for key, value in order.items() if key == epoch - 1}
                    order[epoch] = images.epoch_batches(groups, seed, epoch)
                batch = order[epoch][number % per_epoch]
                chunk.append(PlannedBatch(number, epoch, images.samples(batch, seed, number, epoch)))
            self.run.latents.encode_recolored(sample for batch in chunk for sample in batch.samples)
            yield from (batch for batch in chunk if batch.number >= first)

    def _backward(self, batch: PlannedBatch) -> float:
        """Run one batch forward and backward, and return its loss."""
        run, args = self.run, self.run.args
        torch.manual_seed(images.derive(args.seed, "noise", batch.number))
        random.seed(images.derive(args.seed, "blocks", batch.number))  # a DyLoRA draws its blocks with it
        latents = run.latents.batch(batch.samples)
        noise = loss.draw_noise(latents, args.noise_offset)
        first, end = args.min_timestep or 0, args.max_timestep or run.noise.timesteps
        timesteps = torch.randint(first, end, (len(latents),)).to(latents.device)
        losses = objective.losses(run, batch.samples, latents, noise, timesteps)
        mean = losses.mean()
        run.scaler.scale(mean / args.gradient_accumulation_steps).backward()
        return float(mean.detach())

    def _update(self) -> None:
        run, args = self.run, self.run.args
        if args.max_grad_norm:
            run.scaler.unscale_(run.optimizer)
            torch.nn.utils.clip_grad_norm_(run.built.network.parameters(), args.max_grad_norm)
        run.scaler.step(run.optimizer)
        run.scaler.update()
        if run.schedule is not None:
            run.schedule.step()
        run.optimizer.zero_grad(set_to_none=True)

    def _average_loss(self, number: int, batch_loss: float, step: int) -> float:
        """Record a batch's loss and return the average over the last epoch.

        Raises:
            StepFailed: the loss is not finite, so training on would only write a broken file.
        """
        if not math.isfinite(batch_loss):
            hint = "lower learning_rate, or look for a broken image; nothing was saved from this step on"
            raise StepFailed(Problem(f"step {step}", f"the loss is {batch_loss}; stopped", hint))
        self.losses[number % self.length.batches_per_epoch] = batch_loss
        return sum(self.losses.values()) / len(self.losses)

    def _end_epoch(self, epoch: int, step: int) -> None:
        self.saver.after_epoch(step, epoch)
        self.reporter.samples_after_epoch(epoch)


def _full_name(optimizer: torch.optim.Optimizer) -> str:
    optimizer_class = type(optimizer)
    return f"{optimizer_class.__module__}.{optimizer_class.__qualname__}"
