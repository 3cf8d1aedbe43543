"""Prepare a run: arguments, network, length, first step, banner."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors.torch import load_file

from orchestrator.engines.embedded.trainer import model, network, network_spec, optimizers, target_modules, training_state
from orchestrator.errors import Problem, RecipeError

if TYPE_CHECKING:
    from argparse import Namespace

    from orchestrator.engines.embedded.trainer.images import ImageGroup
    from orchestrator.engines.embedded.trainer.network_spec import BuiltNetwork, NetworkSpec


@dataclass(frozen=True, slots=True)
class RunLength:
    """The length of a run in optimizer steps, epochs and batches."""

    steps: int
    epochs: int
    batches_per_epoch: int
    accumulation: int

    @property
    def steps_per_epoch(self) -> int:
        """Return the optimizer steps of one epoch."""
        return math.ceil(self.batches_per_epoch / self.accumulation)


def check(args: Namespace) -> None:
    """Check values and combinations of arguments.

    Raises:
        RecipeError: with every problem.
    """
    problems: list[Problem] = []
    names = ("max_train_steps", "gradient_accumulation_steps", "save_every_n_steps", "save_every_n_epochs")
    for name in (*names, "validate_every_n_steps"):
        value = getattr(args, name)
        if value is not None and value < 1:
            problems.append(Problem(f"--{name}", f"must be at least 1, is {value}"))
    if args.dim_from_weights and not args.network_weights:
        problems.append(Problem("--dim_from_weights", "needs --network_weights"))
    if (args.resume or args.initial_step) and not args.skip_until_initial_step:
        hint = "without it sd-scripts would train all steps again, so the embedded engine stops"
        problems.append(Problem("--resume", "needs --skip_until_initial_step", hint))
    if not 0 <= (args.min_timestep or 0) < (args.max_timestep or 1000) <= 1000:
        span = f"{args.min_timestep or 0}..{args.max_timestep or 1000}"
        problems.append(Problem("--min_timestep", f"the noise schedule has steps 0..1000, got {span}"))
    if args.log_with and not args.logging_dir:
        problems.append(Problem("--log_with", "needs --logging_dir"))
    if args.sample_prompts and not Path(args.sample_prompts).is_file():
        problems.append(Problem(f"--sample_prompts {args.sample_prompts}", "no such file"))
    if problems:
        raise RecipeError(problems)
    optimizers.optimizer_class(args.optimizer_type)
    network_spec.read(args)


def make_network(args: Namespace, base: model.DiffusionModel) -> BuiltNetwork:
    """Build the network, load ``--network_weights``, and log both.

    The log has sd-scripts' words.

    Raises:
        RecipeError: the network cannot be built, or the weights do not match it.
    """
    print(f"import network module: {args.network_module}", flush=True)
    spec = network_spec.read(args)
    weights = load_file(args.network_weights) if args.network_weights else None
    built = network.build(base, spec, weights if args.dim_from_weights else None)
    brand = "LoRA" if args.network_module == "networks.lora" else "LyCORIS"
    _log_ranks(spec)
    # sd-scripts creates and logs the modules of both halves, and then applies the trained half only.
    text, unet = target_modules.find(base, network_spec.selection(spec), network_spec.ranks(spec))
    log(f"create {brand} for Text Encoder: {len(text)} modules.")
    log(f"create {brand} for U-Net: {len(unet)} modules.")
    if weights is not None:
        try:
            built.network.load(weights)
        except (KeyError, ValueError) as error:
            hint = "the file was trained with another network; --dim_from_weights uses its ranks"
            raise RecipeError(Problem(str(args.network_weights), f"does not fit this network: {error}", hint)) from error
        print(f"load network weights from {args.network_weights}", flush=True)
    if args.gradient_checkpointing and base.device.type != "cpu":
        base.unet.train()
        base.unet.enable_gradient_checkpointing()
    return built


def _log_ranks(spec: NetworkSpec) -> None:
    """Log rank, alpha and algorithm in the words of sd-scripts and LyCORIS."""
    ranks = network_spec.ranks(spec)
    if spec.module == "networks.lora":
        log(f"create LoRA network. base dim (rank): {ranks.dim}, alpha: {ranks.alpha}")
        if ranks.conv_dim:
            log(f"apply LoRA to Conv2d with kernel size (3,3). dim (rank): {ranks.conv_dim}, alpha: {ranks.conv_alpha}")
    else:
        log(f"Using rank adaptation algo: {spec.args.get('algo', 'lora').lower()}")


def measure(args: Namespace, groups: tuple[ImageGroup, ...]) -> RunLength:
    """Return the length of the run.

    ``--max_train_epochs`` overrides ``--max_train_steps``, as in sd-scripts.
    """
    batches = sum(group.batches() for group in groups)
    per_epoch = math.ceil(batches / args.gradient_accumulation_steps)
    steps = args.max_train_steps
    if args.max_train_epochs:
        steps = args.max_train_epochs * per_epoch
        print(
            f"override steps. steps for {args.max_train_epochs} epochs is / 指定エポックまでのステップ数: {steps}", flush=True
        )
    return RunLength(steps, math.ceil(steps / per_epoch), batches, args.gradient_accumulation_steps)


def first_step(args: Namespace, length: RunLength) -> int:
    """Return the number of steps that are done before this run.

    Raises:
        RecipeError: the state belongs to other data or another seed, or no steps are left.
    """
    start = args.initial_step or 0
    if args.resume:
        position = training_state.read_position(Path(args.resume))
        if args.initial_step is None:
            start = int(position["current_step"])
        for name, current in (("seed", args.seed), ("batches_per_epoch", length.batches_per_epoch)):
            if position.get(name) != current:
                what = f"was saved with {name} {position.get(name)}, now it is {current}"
                raise RecipeError(Problem(str(args.resume), what, "start anew without --resume"))
    if start >= length.steps:
        raise RecipeError(Problem("--max_train_steps", f"should be greater than initial step: {length.steps} vs {start}"))
    return int(start)


def log_buckets(groups: tuple[ImageGroup, ...]) -> None:
    """Log the number of images in each bucket of each dataset."""
    for i, group in enumerate(groups):
        log(f"[Dataset {i}]")
        for number, (size, members) in enumerate(group.by_bucket().items()):
            log(f"bucket {number}: resolution {size}, count: {len(members)}")


def print_banner(groups: tuple[ImageGroup, ...], length: RunLength, validated: int) -> None:
    """Print sd-scripts' banner of images, batches, epochs and steps.

    ``validated`` is the number of held-out images.
    """
    sizes = ", ".join(str(group.dataset.batch_size) for group in groups)
    lines = (
        "running training / 学習開始",
        f"  num train images * repeats / 学習画像の数×繰り返し回数: {sum(group.count() for group in groups)}",
        f"  num validation images * repeats / 学習画像の数×繰り返し回数: {validated}",
        f"  num reg images / 正則化画像の数: {sum(group.regularization for group in groups)}",
        f"  num batches per epoch / 1epochのバッチ数: {length.batches_per_epoch}",
        f"  num epochs / epoch数: {length.epochs}",
        f"  batch size per device / バッチサイズ: {sizes}",
        f"  gradient accumulation steps / 勾配を合計するステップ数 = {length.accumulation}",
        f"  total optimization steps / 学習ステップ数: {length.steps}",
    )
    print("\n".join(lines), flush=True)


def log(line: str) -> None:
    """Write one line to stderr."""
    print(line, file=sys.stderr, flush=True)
