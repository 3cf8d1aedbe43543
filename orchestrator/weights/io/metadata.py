"""Read metadata, and extend their provenance and network arguments."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PROVENANCE = "orchestrator_provenance"
"""Header key: a JSON list of operations on the tensors, oldest first. Neither hash depends on it."""

_TRAINING = [
    "network_module",
    "network_dim",
    "network_alpha",
    "network_args",
    "learning_rate",
    "unet_lr",
    "text_encoder_lr",
    "optimizer",
    "lr_scheduler",
    "max_train_steps",
    "steps",
    "epoch",
    "num_epochs",
    "seed",
    "clip_skip",
    "mixed_precision",
    "base_model_version",
    "sd_model_name",
    "training_comment",
    "sd_scripts_commit_hash",
]


def with_provenance(metadata: Mapping[str, str], operation: str, details: Mapping[str, Any]) -> dict[str, str]:
    """Return ``metadata`` with a further entry in the provenance list.

    It holds no time and no path, so equal inputs give equal bytes.
    """
    return {
        **metadata,
        PROVENANCE: json.dumps([*provenance(metadata), {"operation": operation, **details}], ensure_ascii=False),
    }


def architecture(metadata: Mapping[str, str]) -> str:
    """Return the architecture by which the last conversion of names went, or "".

    A few layers of one architecture may have the names of another in the new convention.
    """
    stated = [entry["architecture"] for entry in provenance(metadata) if isinstance(entry.get("architecture"), str)]
    return stated[-1] if stated else ""


def explain_resizes(earlier: Sequence[str]) -> list[str]:
    """Return a line about the earlier resizes of a file, or none."""
    return [f"the file was resized before ({'; '.join(earlier)}): the error is relative to that file"] if earlier else []


def resizes(metadata: Mapping[str, str]) -> list[str]:
    """Return the earlier resizes of a file, oldest first.

    resize_lora.py of sd-scripts and ``resize`` state them in the training comment; without one, the provenance counts.

    >>> resizes({"ss_training_comment": "dimension is resized from 64 to 8; Dynamic resize with sv_ratio: 16.0 from 128; hi"})
    ['Dynamic resize with sv_ratio: 16.0 from 128', 'dimension is resized from 64 to 8']
    """
    parts = [part.strip() for part in metadata.get("ss_training_comment", "").split(";")]
    stated = [part for part in parts if part.startswith(("dimension is resized from ", "Dynamic resize with "))]
    if stated:
        return stated[::-1]
    entries = [entry for entry in provenance(metadata) if entry.get("operation") == "resize"]
    return [f"{entry.get('method')} {entry.get('param')}" for entry in entries]


def trainer(metadata: Mapping[str, str]) -> str:
    """Return the program that wrote a file by its metadata, or "".

    musubi-tuner writes those of sd-scripts.

    >>> trainer({"ot_branch": "master"}), trainer({"software": '{"name": "ai-toolkit"}'}), trainer({})
    ('OneTrainer', 'ai-toolkit', '')
    """
    if any(key.startswith("ot_") for key in metadata):
        return "OneTrainer"
    if "ss_network_module" in metadata:
        return "sd-scripts or musubi-tuner"
    try:
        software = json.loads(metadata.get("software", "{}"))
    except (ValueError, RecursionError):
        return ""
    name = software.get("name") if isinstance(software, dict) else None
    return name[:60] if isinstance(name, str) else ""


def training(entries: dict[str, str]) -> dict[str, str]:
    """Return the training settings in the metadata, without their ss_ prefix."""
    return {name: entries[f"ss_{name}"] for name in _TRAINING if f"ss_{name}" in entries}


def triggers(entries: dict[str, str]) -> tuple[str, ...]:
    """Return the trigger words, or the first tag of every training folder."""
    for key in ("modelspec.trigger_phrase", "ssmd_keywords"):
        if entries.get(key, "").strip():
            return tuple(word.strip() for word in entries[key].split(",") if word.strip())
    try:
        folders = json.loads(entries.get("ss_tag_frequency", "{}"))
        firsts = [next(iter(tags), "").strip() for tags in folders.values()]
    except (ValueError, AttributeError, TypeError, RecursionError):
        return ()
    return tuple(dict.fromkeys(word for word in firsts if word))


def with_algo(metadata: Mapping[str, str], algo: str | None) -> dict[str, str]:
    """Return ``metadata`` without Tucker cores and DoRA, for ``algo``.

    Only existing keys of ss_network_args change. Text that is not a JSON table stays.
    """
    try:
        arguments = json.loads(metadata.get("ss_network_args", ""))
    except (ValueError, RecursionError):
        return dict(metadata)
    if not isinstance(arguments, dict):
        return dict(metadata)
    gone = {"use_tucker", "use_cp", *(("dora_wd", "wd_on_output") if algo else ())}
    arguments = {key: value for key, value in arguments.items() if key not in gone}
    if algo and "algo" in arguments:
        arguments["algo"] = algo
    return {**metadata, "ss_network_args": json.dumps(arguments)}


def provenance(metadata: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the entries of earlier operations, oldest first."""
    try:
        entries = json.loads(metadata.get(PROVENANCE, "[]"))
    except (ValueError, RecursionError):
        return []
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
