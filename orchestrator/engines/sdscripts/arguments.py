"""Arguments of sd-scripts' train_network.py and the embedded trainer.

Every value of a recipe reaches the command, zero and false included. Nothing goes through --config_file, which takes any key.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import toml

from orchestrator.dataset import latent_links
from orchestrator.dataset.sd_scripts_toml import absolute_config
from orchestrator.engines.sdscripts import network_args, training_samples, training_states, typed_options
from orchestrator.models import registry

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from orchestrator.recipe import Option, Recipe, Training

DATASET, PRESET, PROMPTS, LOGS = "dataset.toml", "preset.toml", "sample_prompts.txt", "logs"


@dataclass(frozen=True, slots=True)
class Arguments:
    """Arguments of a trainer, and the texts that they refer to.

    ``files`` maps names below the work folder to texts.
    """

    argv: tuple[str, ...]
    files: dict[str, str] = field(default_factory=dict)


def train(recipe: Recipe, inputs: Mapping[str, Path], work: Path, state: Path | None, initial: int | None = None) -> Arguments:
    """Return the arguments of a training.

    Args:
        recipe: what to train.
        inputs: "dataset", "checkpoint", "vae" and "weights" where the recipe has them.
        work: folder for everything that the trainer writes. Files are referred to by absolute paths.
        state: complete state to resume from.
        initial: the step of the whole training at which it was saved, if the state itself may count otherwise.
    """
    training, files = recipe.training, {}
    work = work.absolute()
    if (inputs["dataset"] / DATASET).is_file():  # absent while a plan is only shown
        linked = work / latent_links.FOLDER if training.caches_on_disk else None
        files[DATASET] = absolute_config(inputs["dataset"], linked)
    argv = list(registry.ARCHITECTURES[recipe.base.architecture].trainer_switches)
    argv += ["--pretrained_model_name_or_path", str(inputs["checkpoint"])]
    argv += ["--vae", str(inputs["vae"])] if "vae" in inputs else []
    for name in recipe.base.files:
        argv += [f"--{name}", str(inputs[name])]
    argv += ["--dataset_config", str(work / DATASET), "--output_dir", str(work), "--output_name", recipe.name]
    argv += ["--save_model_as", "safetensors", "--save_precision", training.save_precision]
    preset = ""
    if recipe.network.preset is not None:
        preset = str(work / PRESET)
        files[PRESET] = toml.dumps(recipe.network.preset.model_dump(mode="json"))
    argv += _network(recipe, preset, inputs)
    if training.train != "both":
        argv.append(f"--network_train_{training.train}_only")
    argv += _optimizer(training)
    argv += _compute(recipe)
    argv += _saving(recipe)
    argv += _validation(training)
    argv += ["--logging_dir", str(work / LOGS), "--log_with", "all" if training.wandb else "tensorboard"]
    argv += ["--log_prefix", training.log_prefix or f"{recipe.name}-"]  # TensorBoard shows it as the run's name
    if recipe.draws_samples():
        files[PROMPTS] = training_samples.prompts(recipe)
        argv += ["--sample_prompts", str(work / PROMPTS), "--sample_sampler", recipe.render.sampler]
        argv += ["--sample_every_n_steps", str(training.sample_every_n_steps)]
    if state is not None:
        # The loop restarts at 0 unless the state's steps are skipped. Without --initial_step its own count is used.
        argv += ["--resume", str(state.absolute()), "--skip_until_initial_step"]
        argv += ["--initial_step", str(initial)] if initial is not None else []
    for name, value in (typed_options.of(recipe) | training.options).items():
        argv += network_args.option(name, value)
    return Arguments(tuple(argv), files)


def _network(recipe: Recipe, preset: str, inputs: Mapping[str, Path]) -> list[str]:
    network = recipe.network
    argv = ["--network_module", network_args.module(recipe), "--network_dim", str(network.dim)]
    argv += ["--network_alpha", network_args.text(network.alpha)]
    argv += ["--network_dropout", network_args.text(network.dropout)] if network.dropout is not None else []
    args = network_args.of(recipe, preset)
    argv += ["--network_args", *args] if args else []
    if network.weights:
        argv += ["--network_weights", str(inputs.get("weights", network.weights))]
    return argv


def _optional(name: str, value: Option | None) -> list[str]:
    return network_args.option(name, value) if value is not None else []


def _optimizer(training: Training) -> list[str]:
    # A plan has counted the epochs; an export without the images has not.
    argv = ["--max_train_steps", str(training.steps)] if training.steps else ["--max_train_epochs", str(training.epochs)]
    for name in ("learning_rate", "text_encoder_lr", "unet_lr"):
        argv += _optional(name, getattr(training, name))
    argv += ["--optimizer_type", training.optimizer]
    if training.optimizer_args:
        # sd-scripts reads values by ast.literal_eval: text needs quotes, a list is a tuple.
        argv += ["--optimizer_args", *(f"{name}={value!r}" for name, value in training.optimizer_args.items())]
    argv += ["--lr_scheduler", training.lr_scheduler]
    for name in ("lr_scheduler_num_cycles", "lr_warmup_steps", "max_grad_norm", "gradient_accumulation_steps"):
        argv += _optional(name, getattr(training, name))
    return argv


def _compute(recipe: Recipe) -> list[str]:
    """Return the arguments for precision, memory and data loading."""
    training = recipe.training
    argv = ["--seed", str(training.seed), "--mixed_precision", training.mixed_precision]
    if not registry.ARCHITECTURES[recipe.base.architecture].fixed_clip_skip:
        argv += ["--clip_skip", str(recipe.base.clip_skip)]
    argv += ["--gradient_checkpointing"] if training.gradient_checkpointing else []
    argv += [f"--{training.attention}"] if training.attention != "none" else []
    if training.cache_latents != "no":
        argv += ["--cache_latents", *(["--cache_latents_to_disk"] if training.cache_latents == "disk" else [])]
    argv += ["--max_data_loader_n_workers", str(training.data_loader_workers)]
    argv += ["--persistent_data_loader_workers"] if training.persistent_workers else []
    return argv


def _validation(training: Training) -> list[str]:
    """Return the arguments for held-out images, which dataset.toml lists."""
    if training.validation is None:
        return []
    argv = ["--validate_every_n_steps", str(training.validation_interval), "--validation_seed", str(training.validation.seed)]
    return [
        *argv,
        "--validate_every_n_epochs",
        str((training.steps or training.epochs or 0) + 1),
    ]  # by default it also validates every epoch


def interval(training: Training) -> int | None:
    """Return --save_every_n_steps.

    sd-scripts saves a state only together with the LoRA.
    """
    return training.save_every_n_steps or training.state_every_n_steps


def _saving(recipe: Recipe) -> list[str]:
    training, keep = recipe.training, recipe.select.keep
    every = interval(training)
    if every is None or every > training.steps:
        return []
    argv = ["--save_every_n_steps", str(every)]
    # sd-scripts removes the multiple of ``every`` below step - n - 1: n = keep * every - 1 leaves ``keep`` of them.
    kept = str(training_states.kept(training.keep_states, training.steps, every) * every - 1)
    if training.save_every_n_steps is None:  # LoRAs beside states are not in the recipe: keep as few as possible
        argv += ["--save_last_n_steps", kept]
    elif keep is not None:
        argv += ["--save_last_n_steps", str(keep * every - 1)]
    if training.state_every_n_steps is not None:
        argv += ["--save_state", "--save_last_n_steps_state", kept]
    return argv
