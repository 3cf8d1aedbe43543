"""The trainer's command line, with sd-scripts' names, types and defaults.

Options either have sd-scripts' meaning, or are in :data:`IGNORED_OPTIONS` and have no effect here, so that one argument list
serves both engines. argparse rejects all others (exit 2).
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class IgnoredOption:
    """An option of sd-scripts without effect here, and the reason."""

    name: str
    switch: bool
    reason: str


IGNORED_OPTIONS = (
    IgnoredOption("sdpa", True, "attention is PyTorch's own"),
    IgnoredOption("xformers", True, "attention is PyTorch's own"),
    IgnoredOption("mem_eff_attn", True, "attention is PyTorch's own"),
    IgnoredOption("persistent_data_loader_workers", True, "images are read once, in this process"),
    IgnoredOption("max_data_loader_n_workers", False, "images are read once, in this process"),
    IgnoredOption("lowram", True, "the model is small"),
    IgnoredOption("highvram", True, "the model is small"),
    IgnoredOption("no_half_vae", True, "the VAE always computes in float32"),
    IgnoredOption("cache_latents", True, "latents of unchanged images stay in memory"),
    IgnoredOption("vae_batch_size", False, "images are encoded in batches that fit into memory"),
    IgnoredOption("tokenizer_cache_dir", False, "the tokenizer comes with the model folder"),
    IgnoredOption("console_log_simple", True, "messages are plain lines"),
    IgnoredOption("console_log_level", False, "messages are plain lines"),
    IgnoredOption("validate_every_n_epochs", False, "validation counts steps here"),
    IgnoredOption("max_token_length", False, "75 tokens, the model's own length"),
)

METADATA = ("title", "author", "description", "license", "tags", "usage_hint", "thumbnail", "merged_from", "trigger_phrase")
PRECISIONS = ("float", "fp16", "bf16")


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the trainer's arguments.

    argparse exits with 2 on an unknown option or a wrong value.
    """
    return parser().parse_args(list(argv))


def parser() -> argparse.ArgumentParser:
    """Return the trainer's argument parser.

    Abbreviations are off, so ``--max_train`` is an error.
    """
    result = argparse.ArgumentParser(
        prog="python -m orchestrator.engines.embedded.trainer.train_network",
        description="Train a LoRA (networks.lora or lycoris.kohya) on a small Stable Diffusion 1.x model in Diffusers layout.",
        allow_abbrev=False,
    )
    _model_and_data(result)
    _network(result)
    _optimizer(result)
    _length_and_saving(result)
    _loss_and_report(result)
    table = result.add_argument_group("accepted, without effect here")
    for option in IGNORED_OPTIONS:
        if option.switch:
            table.add_argument(f"--{option.name}", action="store_true", help=option.reason)
        else:
            table.add_argument(f"--{option.name}", help=option.reason)
    return result


def notes(args: argparse.Namespace) -> list[str]:
    """Return one line with the reason for every ignored option."""
    return [f"--{option.name}: {option.reason}" for option in IGNORED_OPTIONS if getattr(args, option.name)]


def _model_and_data(to: argparse.ArgumentParser) -> None:
    group = to.add_argument_group("model and data")
    group.add_argument("--pretrained_model_name_or_path", required=True, help="model folder in Diffusers layout")
    group.add_argument("--vae", help="another VAE: a folder in Diffusers layout")
    group.add_argument("--dataset_config", required=True, help="dataset TOML of sd-scripts (DreamBooth subsets)")
    group.add_argument("--caption_extension", default=".caption", help="if the TOML does not set it (default: .caption)")
    group.add_argument("--clip_skip", type=int, help="use the text encoder's n-th last hidden state")
    group.add_argument("--prior_loss_weight", type=float, default=1.0, help="weight of regularization images")


def _network(to: argparse.ArgumentParser) -> None:
    group = to.add_argument_group("network")
    group.add_argument("--network_module", required=True, choices=("networks.lora", "lycoris.kohya"))
    group.add_argument("--network_dim", type=int, help="rank (default 4)")
    group.add_argument("--network_alpha", type=float, default=1.0)
    group.add_argument("--network_dropout", type=float)
    group.add_argument("--network_args", nargs="*", default=[], metavar="KEY=VALUE")
    group.add_argument("--network_weights", help="start from this file")
    group.add_argument("--dim_from_weights", action="store_true", help="use every module's rank and alpha of that file")
    only = group.add_mutually_exclusive_group()
    only.add_argument("--network_train_unet_only", action="store_true")
    only.add_argument("--network_train_text_encoder_only", action="store_true")


def _optimizer(to: argparse.ArgumentParser) -> None:
    group = to.add_argument_group("optimizer")
    group.add_argument("--optimizer_type", default="AdamW", help="AdamW, Adam, SGD, Adafactor")
    group.add_argument("--optimizer_args", nargs="*", default=[], metavar="KEY=VALUE")
    group.add_argument("--learning_rate", type=float, default=2e-6)
    group.add_argument("--unet_lr", type=float)
    group.add_argument("--text_encoder_lr", type=float)
    group.add_argument("--max_grad_norm", type=float, default=1.0, help="0 = no clipping")
    group.add_argument("--lr_scheduler", default="constant")
    group.add_argument("--lr_scheduler_num_cycles", type=int, default=1)
    group.add_argument("--lr_scheduler_power", type=float, default=1.0)
    group.add_argument("--lr_warmup_steps", default="0", help="steps, or a ratio below 1, or a percentage")


def _length_and_saving(to: argparse.ArgumentParser) -> None:
    group = to.add_argument_group("length and saving")
    group.add_argument("--max_train_steps", type=int, default=1600)
    group.add_argument("--max_train_epochs", type=int, help="overrides --max_train_steps")
    group.add_argument("--gradient_accumulation_steps", type=int, default=1)
    group.add_argument("--gradient_checkpointing", action="store_true", help="saves memory on a GPU; not used on a CPU")
    group.add_argument("--mixed_precision", choices=("no", "fp16", "bf16"), default="no")
    group.add_argument("--save_precision", choices=PRECISIONS)
    group.add_argument("--seed", type=int)
    group.add_argument("--output_dir", required=True)
    group.add_argument("--output_name", default="last")
    group.add_argument("--save_model_as", choices=("safetensors",), default="safetensors")
    group.add_argument("--save_every_n_steps", type=int)
    group.add_argument("--save_every_n_epochs", type=int)
    group.add_argument("--save_last_n_steps", type=int)
    group.add_argument("--save_last_n_steps_state", type=int)
    group.add_argument("--save_state", action="store_true")
    group.add_argument("--save_state_on_train_end", action="store_true")
    group.add_argument("--resume", help="folder of a saved state")
    group.add_argument("--skip_until_initial_step", action="store_true")
    group.add_argument("--initial_step", type=int)
    group.add_argument("--no_metadata", action="store_true")
    group.add_argument("--validate_every_n_steps", type=int, help="of the datasets with validation_split = 1")
    group.add_argument("--validation_seed", type=int, help="seed of the noise (default: --seed)")


def _loss_and_report(to: argparse.ArgumentParser) -> None:
    group = to.add_argument_group("loss, samples, report")
    group.add_argument("--min_snr_gamma", type=float)
    group.add_argument("--debiased_estimation_loss", action="store_true", help="weigh losses by 1 / sqrt(signal to noise)")
    group.add_argument("--noise_offset", type=float)
    group.add_argument("--min_timestep", type=int, help="train from this step of the noise schedule on (default 0)")
    group.add_argument("--max_timestep", type=int, help="and below this one (default: all)")
    group.add_argument("--sample_prompts", help="text file of prompt lines")
    group.add_argument("--sample_every_n_steps", type=int)
    group.add_argument("--sample_every_n_epochs", type=int)
    group.add_argument("--sample_at_first", action="store_true")
    group.add_argument("--sample_sampler", default="ddim")
    group.add_argument("--logging_dir")
    group.add_argument("--log_prefix", default="")
    group.add_argument("--log_with", choices=("tensorboard", "wandb", "all"))
    group.add_argument("--log_tracker_name")
    group.add_argument("--wandb_run_name")
    group.add_argument("--training_comment")
    for name in METADATA:
        group.add_argument(f"--metadata_{name}")
