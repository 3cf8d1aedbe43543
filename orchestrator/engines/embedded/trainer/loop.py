"""The training run, from arguments to a saved file. :class:`Run` is what a run is made of; :func:`run` is the loop."""

from __future__ import annotations

import math
import random
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tqdm import tqdm  # type: ignore[import-untyped]

from orchestrator.engines.embedded.trainer import (
    cli_options,
    dataset_config,
    images,
    loss,
    metadata,
    model,
    network,
    optimizers,
    setup_run,
    training_state,
)
from orchestrator.engines.embedded.trainer.checkpoints import Saver
from orchestrator.engines.embedded.trainer.latents import Latents
from orchestrator.errors import NotReady, Problem, StepFailed

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator

    from torch import Tensor

# Recolored pictures are encoded ahead for this many batches at once. Batches are counted from the start of the run, so that
# a resumed run encodes the same pictures together (the last bit of a convolution may depend on its company).
_AHEAD = 32


@dataclass(frozen=True, slots=True)
class Planned:
    """One batch of the run: its number over the whole run, its epoch (from 1), its pictures."""

    number: int
    epoch: int
    samples: list[images.Sample]


@dataclass(frozen=True, slots=True)
class Run:
    """Everything a step needs."""

    args: Namespace
    model: model.Model
    built: network.Built
    optimizer: torch.optim.Optimizer
    schedule: Any
    noise: loss.Noise
    latents: Latents
    text: dict[str, Tensor]
    scaler: Any


def run(args: Namespace) -> None:
    """Train and save.

    Raises:
        RecipeError: arguments, dataset or state are wrong. NotReady: the model or the device is not there.
        StepFailed: the loss is not a finite number.
    """
    setup_run.check(args)
    if args.seed is None:
        args.seed = random.SystemRandom().randrange(2**32)
    for note in cli_options.notes(args):
        setup_run.say(note)
    setup_run.say(f"Loading dataset config from {args.dataset_config}")
    groups = images.find(dataset_config.read(Path(args.dataset_config), args.caption_extension))
    setup_run.report_buckets(groups)
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
    members, names = optimizers.groups(built, args, network.wanted(args).args)
    optimizer = optimizers.make_optimizer(
        args.optimizer_type, members, optimizers.arguments(args.optimizer_args), args.learning_rate
    )
    schedule = optimizers.make_schedule(args, optimizer, length.steps)
    start = setup_run.first_step(args, length)
    if args.resume:
        training_state.restore(Path(args.resume), built.network, optimizer, schedule)
        print(f"resume training from state: {args.resume} at step {start}", flush=True)
    setup_run.banner(groups, length)
    said = metadata.of_run(args, groups, length.epochs, _full_name(optimizer), _network_args(args))
    latents = Latents(base)
    latents.keep([picture for group in groups for picture in group.pictures])
    scaler = torch.amp.GradScaler(base.device.type, enabled=args.mixed_precision == "fp16")
    parts = Run(args, base, built, optimizer, schedule, loss.make_noise(base.noise, base.device), latents, {}, scaler)
    Loop(parts, length, Saver(parts, said, length), names).go(groups, start)
    setup_run.say("model saved.")


class Loop:
    """The steps of a run, their progress and what is saved on the way."""

    def __init__(self, parts: Run, length: setup_run.Length, saver: Saver, names: list[str]) -> None:
        self.parts = parts
        self.length = length
        self.saver = saver
        self.names = names
        self.losses: dict[int, float] = {}

    def go(self, groups: tuple[images.Group, ...], start: int) -> None:
        """Run all steps from ``start`` on and save the file."""
        args, built = self.parts.args, self.parts.built
        reporter = self.saver.reporter(self.parts, self.names)
        built.network.train()
        step, epoch, micro = start, 0, 0
        bar = tqdm(total=self.length.steps - start, smoothing=0, desc="steps")
        reporter.samples(step, at_first=start == 0)
        for planned in self._plan(groups, start):
            if planned.epoch != epoch:
                if epoch:
                    self._epoch_ends(epoch, step, reporter)
                epoch = planned.epoch
                print(f"\nepoch {epoch}/{self.length.epochs}\n", flush=True)
            value = self._batch(planned)
            micro += 1
            average = self._note(planned.number, value, step + 1)
            last_of_epoch = (planned.number + 1) % self.length.batches_per_epoch == 0
            if micro < args.gradient_accumulation_steps and not last_of_epoch:
                continue
            micro = 0
            self._update()
            step += 1
            bar.set_postfix(avr_loss=average, refresh=False)
            bar.update(1)
            reporter.scalars(step, value, average)
            reporter.samples(step)
            self.saver.after_step(step, epoch)
            if step >= self.length.steps:
                break
        bar.refresh()
        bar.close()
        self.saver.at_end(step, epoch)
        reporter.close()

    def _plan(self, groups: tuple[images.Group, ...], start: int) -> Iterator[Planned]:
        """All batches from the one that step ``start`` begins with; recolored pictures are encoded in fixed chunks."""
        per_epoch, accumulation = self.length.batches_per_epoch, self.length.accumulation
        whole, rest = divmod(start, self.length.steps_per_epoch)
        first = whole * per_epoch + rest * accumulation
        chunk_start = first - first % _AHEAD
        seed = self.parts.args.seed
        order: dict[int, list[list[images.Picture]]] = {}
        while chunk_start < self.length.epochs * per_epoch:
            chunk: list[Planned] = []
            for number in range(chunk_start, min(chunk_start + _AHEAD, self.length.epochs * per_epoch)):
                epoch = number // per_epoch + 1
                if epoch not in order:
                    order = {key: value for key, value in order.items() if key == epoch - 1}
                    order[epoch] = images.epoch_batches(groups, seed, epoch)
                batch = order[epoch][number % per_epoch]
                chunk.append(Planned(number, epoch, images.samples(batch, seed, number, epoch)))
            self.parts.latents.recolor(sample for planned in chunk for sample in planned.samples)
            yield from (planned for planned in chunk if planned.number >= first)
            chunk_start += _AHEAD

    def _batch(self, planned: Planned) -> float:
        """Forward and backward of one batch; its loss."""
        parts, args = self.parts, self.parts.args
        torch.manual_seed(images.derive(args.seed, "noise", planned.number))
        random.seed(images.derive(args.seed, "blocks", planned.number))  # a DyLoRA draws its blocks with it
        latents = parts.latents.batch(planned.samples)
        noise = loss.draw_noise(latents, args.noise_offset)
        first, end = args.min_timestep or 0, args.max_timestep or parts.noise.timesteps
        timesteps = torch.randint(first, end, (len(latents),)).to(latents.device)
        weights = [args.prior_loss_weight if sample.picture.subset.is_reg else 1.0 for sample in planned.samples]
        dtype = torch.bfloat16 if args.mixed_precision == "bf16" else torch.float16
        cast = torch.autocast(latents.device.type, dtype) if args.mixed_precision != "no" else nullcontext()
        with cast:
            parts.built.network.rebuild()
            text = self._text([sample.caption for sample in planned.samples])
            answer = parts.model.unet(parts.noise.add(latents, noise, timesteps), timesteps, text, return_dict=False)[0]
        losses = loss.per_picture(
            answer, parts.noise.target(latents, noise, timesteps), torch.tensor(weights).to(latents.device)
        )
        if args.min_snr_gamma:
            losses = loss.min_snr(losses, parts.noise, timesteps, args.min_snr_gamma)
        if args.debiased_estimation_loss:
            losses = loss.debiased(losses, parts.noise, timesteps)
        mean = losses.mean()
        parts.scaler.scale(mean / args.gradient_accumulation_steps).backward()
        return float(mean.detach())

    def _text(self, captions: list[str]) -> Tensor:
        """Text for a batch: each caption once; kept over the run where the text encoder does not train."""
        parts = self.parts
        skip = parts.args.clip_skip
        different = list(dict.fromkeys(captions))
        if parts.built.text_modules:
            encoded = model.encode_text(parts.model, model.tokens(parts.model, different), skip)
            return encoded[[different.index(caption) for caption in captions]]
        new = [caption for caption in different if caption not in parts.text]
        if new:
            with torch.no_grad():
                encoded = model.encode_text(parts.model, model.tokens(parts.model, new), skip)
            parts.text.update(zip(new, encoded.unbind(0), strict=True))
        return torch.stack([parts.text[caption] for caption in captions])

    def _update(self) -> None:
        parts, args = self.parts, self.parts.args
        if args.max_grad_norm:
            parts.scaler.unscale_(parts.optimizer)
            torch.nn.utils.clip_grad_norm_(parts.built.network.parameters(), args.max_grad_norm)
        parts.scaler.step(parts.optimizer)
        parts.scaler.update()
        if parts.schedule is not None:
            parts.schedule.step()
        parts.optimizer.zero_grad(set_to_none=True)

    def _note(self, number: int, value: float, step: int) -> float:
        """Remember a batch's loss; the average over the last epoch's worth of batches.

        Raises:
            StepFailed: the loss is not finite; training on would only write a broken file.
        """
        if not math.isfinite(value):
            hint = "lower learning_rate, or look for a broken picture; nothing was saved from this step on"
            raise StepFailed(Problem(f"step {step}", f"the loss is {value}; stopped", hint))
        self.losses[number % self.length.batches_per_epoch] = value
        return sum(self.losses.values()) / len(self.losses)

    def _epoch_ends(self, epoch: int, step: int, reporter: Any) -> None:
        self.saver.after_epoch(step, epoch)
        reporter.epoch(epoch)


def _full_name(optimizer: torch.optim.Optimizer) -> str:
    kind = type(optimizer)
    return f"{kind.__module__}.{kind.__qualname__}"


def _network_args(args: Namespace) -> dict[str, str]:
    return network.wanted(args).args
