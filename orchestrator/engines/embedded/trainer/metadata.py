"""Metadata of a trained file: ``ss_*`` keys and ``modelspec.*``.

All values are text (``str(value)``, "None" for a missing one), as sd-scripts writes them. The file never claims to come from
sd-scripts: ``ss_sd_scripts_commit_hash`` is absent and ``modelspec.implementation`` names this engine.
"""

from __future__ import annotations

import hashlib
import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.engines.embedded import EMBEDDED_BASE
from orchestrator.engines.embedded.trainer.cli_options import METADATA
from orchestrator.engines.embedded.trainer.images import tag_frequency
from orchestrator.models.registry import SMALL_BASE
from orchestrator.system.digests import folder_digest

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Sequence

    from orchestrator.dataset.training_folder import Size
    from orchestrator.engines.embedded.trainer.images import ImageGroup

MINIMUM = ("ss_v2", "ss_base_model_version", "ss_network_module", "ss_network_dim", "ss_network_alpha", "ss_network_args")
IMPLEMENTATION = "krnk embedded"
_FROM_ARGUMENTS = (
    "learning_rate",
    "text_encoder_lr",
    "unet_lr",
    "gradient_checkpointing",
    "gradient_accumulation_steps",
    "max_train_steps",
    "lr_warmup_steps",
    "lr_scheduler",
    "network_module",
    "network_dim",
    "network_alpha",
    "network_dropout",
    "mixed_precision",
    "clip_skip",
    "seed",
    "lowram",
    "noise_offset",
    "training_comment",
    "max_grad_norm",
    "prior_loss_weight",
    "min_snr_gamma",
    "output_name",
    "max_token_length",
    "cache_latents",
)


def of_run(  # noqa: PLR0917 - the parts of a run
    args: Namespace,
    groups: Sequence[ImageGroup],
    validated: int,
    epochs: int,
    optimizer: str,
    network_args: dict[str, str],
) -> dict[str, str]:
    """Return the keys that are fixed when training starts.

    ``args`` hold the final number of steps and seed, ``validated`` is the number of held-out images.
    """
    values: dict[str, Any] = {f"ss_{name}": getattr(args, name) for name in _FROM_ARGUMENTS}
    base = Path(args.pretrained_model_name_or_path)
    digest = folder_digest(base)
    values |= {
        "ss_session_id": int.from_bytes(hashlib.sha256(str(time.time_ns()).encode()).digest()[:4], "big"),
        "ss_training_started_at": time.time(),
        "ss_num_train_images": sum(group.count() for group in groups),
        "ss_num_validation_images": validated,
        "ss_num_reg_images": sum(group.regularization for group in groups),
        "ss_num_batches_per_epoch": sum(group.batches() for group in groups),
        "ss_num_epochs": epochs,
        "ss_v2": False,
        "ss_base_model_version": SMALL_BASE if base.resolve() == EMBEDDED_BASE else "sd_v1",
        "ss_debiased_estimation": args.debiased_estimation_loss,
        "ss_full_fp16": False,
        "ss_loss_type": "l2",
        "ss_zero_terminal_snr": False,
        "ss_optimizer": optimizer,
        "ss_sd_model_name": base.name,
        "ss_sd_model_hash": digest[:8],  # as long as the hash of a single file
        "ss_new_sd_model_hash": digest,
        "ss_datasets": json.dumps([_dataset(group) for group in groups]),
        "ss_tag_frequency": json.dumps(tag_frequency([image for group in groups for image in group.images])),
        "ss_dataset_dirs": json.dumps(_folders(groups)),
    }
    if validated:
        values["ss_validation_seed"] = args.seed if args.validation_seed is None else args.validation_seed
        values["ss_validate_every_n_steps"] = args.validate_every_n_steps
    if network_args:
        values["ss_network_args"] = json.dumps(network_args)
    if args.vae:
        values["ss_vae_name"] = Path(args.vae).name
    return {key: str(value) for key, value in values.items()}


def of_file(args: Namespace, run_metadata: dict[str, str], steps: int, epoch: int) -> dict[str, str]:
    """Return all keys of one saved file.

    They are the run's (six with ``--no_metadata``), its position, and ``modelspec.*``.
    """
    now, version = datetime.now(UTC), run_metadata["ss_base_model_version"]
    entries = {key: run_metadata[key] for key in MINIMUM if key in run_metadata}
    if not args.no_metadata:
        entries = run_metadata | {
            "ss_steps": str(steps),
            "ss_epoch": str(epoch),
            "ss_training_finished_at": str(now.timestamp()),
        }
    spec: dict[str, Any] = {
        "sai_model_spec": "1.0.1",
        "architecture": f"{'stable-diffusion-v1' if version == 'sd_v1' else version}/lora",
        "implementation": IMPLEMENTATION,
        "title": args.metadata_title or args.output_name,
        "date": now.replace(tzinfo=None, microsecond=0).isoformat(),
        "prediction_type": "epsilon",
        "encoder_layer": args.clip_skip or 1,
    }
    spec |= {name: value for name in METADATA if name != "title" and (value := getattr(args, f"metadata_{name}"))}
    return entries | {f"modelspec.{key}": str(value) for key, value in spec.items()}


def _ratio(size: Size) -> float:
    return size[0] / size[1]


def _dataset(group: ImageGroup) -> dict[str, Any]:
    dataset = group.dataset
    buckets = group.by_bucket()
    errors = [abs(_ratio(image.fit.bucket) - _ratio(image.size)) for image in group.images]
    return {
        "is_dreambooth": True,
        "batch_size_per_device": dataset.batch_size,
        "num_train_images": group.count(),
        "num_reg_images": group.regularization,
        "resolution": list(dataset.rules.resolution),
        "enable_bucket": dataset.rules.enable_bucket,
        "min_bucket_reso": dataset.rules.min_bucket_reso,
        "max_bucket_reso": dataset.rules.max_bucket_reso,
        "tag_frequency": tag_frequency(group.images),
        "bucket_info": {
            "buckets": {
                str(i): {"resolution": list(size), "count": len(images)} for i, (size, images) in enumerate(buckets.items())
            },
            "mean_img_ar_error": sum(errors) / len(errors) if errors else 0,
        },
        "subsets": [
            {
                "img_count": sum(1 for image in group.images if image.subset is subset),
                "num_repeats": subset.num_repeats,
                "color_aug": subset.color_aug,
                "flip_aug": subset.flip_aug,
                "random_crop": False,
                "shuffle_caption": subset.shuffle_caption,
                "keep_tokens": subset.keep_tokens,
                "caption_prefix": subset.caption_prefix,
                "caption_suffix": subset.caption_suffix,
                "image_dir": subset.image_dir.name,
                "class_tokens": subset.class_tokens,
                "is_reg": subset.is_reg,
            }
            for subset in dataset.subsets
        ],
    }


def _folders(groups: Sequence[ImageGroup]) -> dict[str, dict[str, int]]:
    """Return repeats and images by folder name.

    A repeated name gets " (2)", as in sd-scripts.
    """
    result: dict[str, dict[str, int]] = {}
    for group in groups:
        for subset in group.dataset.subsets:
            if subset.is_reg:
                continue
            name, number = subset.image_dir.name, 2
            while name in result:
                name, number = f"{subset.image_dir.name} ({number})", number + 1
            count = sum(1 for image in group.images if image.subset is subset)
            result[name] = {"n_repeats": subset.num_repeats, "img_count": count}
    return result
