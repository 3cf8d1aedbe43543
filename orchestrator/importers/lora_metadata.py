"""Read the settings of a training from the metadata of a LoRA.

sd-scripts writes them as ss_*.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from orchestrator.errors import Problem, RecipeError
from orchestrator.importers import architectures, lora_metadata_datasets
from orchestrator.importers.notes import Disposition, ImportedSettings
from orchestrator.models import blocks
from orchestrator.recipe.trainer_names import words
from orchestrator.weights.io.metadata import provenance
from orchestrator.weights.io.safetensors_io import Header, read_header

if TYPE_CHECKING:
    from pathlib import Path

# Results, logs, and values that other fields hold, too: without them the recipe loses nothing.
_RESULTS: Final = words(
    "session_id training_started_at training_finished_at output_name num_train_images num_reg_images num_validation_images"
    " num_batches_per_epoch num_epochs epoch steps sd_scripts_commit_hash sd_model_hash vae_hash datasets dataset_dirs"
    " tag_frequency bucket_info reg_dataset_dirs base_model_version v2 lowram training_comment batch_size_per_device"
    " total_batch_size resolution network_module network_dim network_alpha network_args optimizer new_sd_model_hash"
    " new_vae_hash sd_model_name vae_name full_fp16 fp8_base fp8_base_unet max_validation_steps validate_every_n_epochs"
    " validate_every_n_steps validation_seed validation_split"
)
_RECORD: Final = "a record of the run, or in another field, too"
_RESIZED: Final = re.compile(r"Dynamic resize with (sv_ratio|sv_fro|sv_cumulative): ([\d.]+) from (\d+)")
_DOWN: Final = re.compile(r"\.(lora_down\.weight|hada_w1_b|lokr_w2_b)$")
_RANKS: Final = {"block_dims", "network_reg_dims"}
_SHA256: Final = re.compile(r"(?:0x)?([0-9a-f]{64})")
# Defaults of v0.10.1, which a recipe need not repeat.
_DEFAULTS: Final[dict[str, Any]] = {
    "gradient_accumulation_steps": 1,
    "max_grad_norm": 1.0,
    "prior_loss_weight": 1.0,
    "lr_warmup_steps": 0,
    "huber_c": 0.1,
    "huber_scale": 1.0,
    "huber_schedule": "snr",
    "loss_type": "l2",
    "multires_noise_discount": 0.3,
    "caption_dropout_rate": 0.0,
    "caption_dropout_every_n_epochs": 0,
    "caption_tag_dropout_rate": 0.0,
}
_RULES: Final = ("2023", "sd-scripts-0.10")
_RENAMED: Final = {"debiased_estimation": "debiased_estimation_loss"}
_DTYPES: Final = {"F16": "fp16", "BF16": "bf16", "F32": "float"}


def read(path: Path) -> ImportedSettings:
    """Read the header of a LoRA.

    Raises:
        RecipeError: the file is not a valid safetensors file, or has no ss_* metadata.
    """
    header = read_header(path)
    fields = {key.removeprefix("ss_"): _value(text) for key, text in header.metadata.items() if key.startswith("ss_")}
    if "network_module" not in fields:
        hint = "many tools drop the metadata; `inspect` shows what the tensors alone hold"
        raise RecipeError(Problem(str(path), "has no ss_* metadata, which records how a LoRA was trained", hint))
    settings = ImportedSettings(str(fields.get("output_name") or path.stem), "metadata of a LoRA")
    settings.leaves = _leaves(fields)
    for name, value in fields.items():
        if name in _RESULTS:
            settings.note(Disposition.KEPT, f"ss_{name}", why=_RECORD)
        elif value is not None and value == _DEFAULTS.get(name, ...):
            settings.note(Disposition.KEPT, f"ss_{name}", why="it is sd-scripts' default")
        if (
            name in _RESULTS
            or name in lora_metadata_datasets.SHARED
            or value is None
            or value is False
            or value == _DEFAULTS.get(name, ...)
        ):
            continue
        settings.options[_RENAMED.get(name, name)] = value
    operations = provenance(header.metadata)
    _network(settings, fields, next((one for one in reversed(operations) if one.get("rank_rule") in _RULES), {}), header)
    _base(settings, fields, header.metadata.get("modelspec.architecture", ""))
    _optimizer(settings, fields)
    dtypes = {entry.dtype for entry in header.entries.values()}
    precision = {_DTYPES[dtype] for dtype in dtypes if dtype in _DTYPES}
    if len(precision) == 1:
        settings.options["save_precision"] = precision.pop()
    lora_metadata_datasets.read(settings, fields, _RECORD)
    tags = fields.get("tag_frequency")
    settings.extra["tags"] = tags if isinstance(tags, dict) else {}
    settings.note(
        Disposition.CHANGED,
        "image folders",
        "dataset.sources",
        "the metadata holds their names only: they are expected below data/",
    )
    _block_weights(settings, operations)
    return settings


def _leaves(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the values of the metadata, its datasets and arguments."""
    result: dict[str, Any] = {}
    for name, value in fields.items():
        if name == "network_args" and isinstance(value, dict):
            result |= {f"ss_{name}.{key}": inner for key, inner in value.items()}
        elif name == "datasets" and isinstance(value, list):
            for index, dataset in enumerate(value):
                result |= lora_metadata_datasets.leaves(f"ss_datasets[{index}]", dataset)
        else:
            result[f"ss_{name}"] = value
    return result


def _value(text: str) -> Any:
    """Return the value that sd-scripts wrote by ``str``.

    None, a boolean, a number, JSON, or the text.
    """
    if text in ("None", ""):
        return None
    if text in ("True", "False"):
        return text == "True"
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 and "." not in text else value


def _block_weights(settings: ImportedSettings, operations: list[dict[str, Any]]) -> None:
    """Read the block weights of a merge from the provenance."""
    merges = [operation for operation in operations if _are_numbers(operation.get("block_weights"))]
    if not merges:
        settings.note(
            Disposition.LOST, "block weights", why="the metadata does not hold them; `verify` measures them on the tensors"
        )
    elif len(merges) > 1:
        settings.note(
            Disposition.LOST,
            "block weights",
            "block_weights",
            f"the file was merged {len(merges)} times; a recipe merges once",
        )
    else:
        (merge,) = merges
        settings.leaves["block weights"] = merge["block_weights"]
        weights = merge["block_weights"]
        names = blocks.names(settings.extra["architecture"])
        listed = [float(weights.get(name, 0)) for name in names]
        settings.extra["block_weights"] = weights if set(weights) - set(names) else listed  # a list has no text encoders
        options = {"zeroed": merge.get("zeroed") == "prune" and "prune", "compat": merge.get("compat")}
        settings.extra["merge"] = {key: value for key, value in options.items() if value}
        if isinstance(unmapped := merge.get("unmapped", 1), int | float) and unmapped != 1:
            settings.extra["merge"]["unmapped"] = float(unmapped)
        settings.note(Disposition.KEPT, "block weights", "block_weights")
    for operation in operations:
        if not {"block_weights", "rank_rule"} & set(operation):
            why = "it was done to the file by hand; a recipe cannot do it"
            settings.note(Disposition.LOST, str(operation.get("operation")), why=why)


def _are_numbers(value: Any) -> bool:
    return isinstance(value, dict) and bool(value) and all(isinstance(weight, int | float) for weight in value.values())


def _network(settings: ImportedSettings, fields: dict[str, Any], resized: dict[str, Any], header: Header) -> None:
    options = settings.options
    options["network_module"] = fields["network_module"]
    args = fields.get("network_args") if isinstance(fields.get("network_args"), dict) else {}
    options["network_args"] = {key: _value(str(value)) for key, value in (args or {}).items() if value is not None}
    comment = _RESIZED.search(str(fields.get("training_comment") or ""))
    options["network_dim"] = fields.get("network_dim")
    options["network_alpha"] = fields.get("network_alpha")
    if comment is not None:
        options["network_dim"] = int(comment[3])
        alpha = options["network_args"].get("conv_alpha")
        options["network_alpha"] = alpha if isinstance(alpha, int | float) else int(comment[3])
        rule = resized.get("rank_rule", "sd-scripts-0.10")  # of this program, or of the sd-scripts that resized it
        settings.extra["resize"] = {comment[1]: float(comment[2]), "new_rank": int(comment[3]), "rank_rule": rule}
        settings.note(
            Disposition.CHANGED,
            "network_alpha",
            "network.alpha",
            "resizing replaced it; that of the convolutions is used",
        )
    else:
        _stated_rank(settings, header)


def _stated_rank(settings: ImportedSettings, header: Header) -> None:
    """Set the rank of the tensors where the metadata states none, or another.

    Ranks by block or layer are stated by network_args. Without --network_dim, networks/lora.py takes 4.
    """
    options = settings.options
    stated = options["network_dim"]
    ranks = Counter(entry.shape[0] for name, entry in header.entries.items() if len(entry.shape) == 2 and _DOWN.search(name))
    common = ranks.most_common(1)[0][0] if ranks else 4
    if isinstance(stated, int) and (not ranks or stated in ranks or _RANKS & options["network_args"].keys()):
        return
    options["network_dim"] = common
    why = f"the metadata says {stated}; {common} is the most common rank of its tensors"
    settings.note(Disposition.CHANGED, "network_dim", "network.dim", why)
    if not isinstance(options["network_alpha"], int | float):
        options["network_alpha"] = None


def _base(settings: ImportedSettings, fields: dict[str, Any], modelspec: str) -> None:
    base: dict[str, Any] = {}
    if fields.get("sd_model_name"):
        settings.options["pretrained_model_name_or_path"] = str(fields["sd_model_name"])
    if fields.get("vae_name"):
        settings.options["vae"] = str(fields["vae_name"])
    for key, name in (("new_sd_model_hash", "sha256"), ("new_vae_hash", "vae_sha256")):
        digest = _SHA256.fullmatch(str(fields.get(key)))
        if digest is not None:
            base[name] = digest[1]
            settings.note(Disposition.KEPT, f"ss_{key}", f"base.{name}")
    version = str(fields.get("base_model_version") or "")
    settings.extra["architecture"] = "sd1"
    if version.startswith("sd_v2") or fields.get("v2") is True:
        architectures.named(settings, "sd2", "Stable Diffusion 2")
    elif version and not version.startswith("sd_v1"):
        architectures.named(settings, architectures.word_of(version, modelspec), version)
    if version.startswith("sd_v") and version.endswith("_v"):
        settings.options["v_parameterization"] = True
    settings.extra["base"] = base


def _optimizer(settings: ImportedSettings, fields: dict[str, Any]) -> None:
    """Read the optimizer and its arguments.

    ``bitsandbytes.optim.adamw.AdamW8bit(weight_decay=0.1,betas=(0.9, 0.99))``.
    """
    name, _, args = str(fields.get("optimizer") or "AdamW").partition("(")
    settings.options["optimizer_type"] = name.rpartition(".")[2]
    pairs = re.findall(r"(\w+)=(\([^()]*\)|\[[^\[\]]*\]|[^,()]+)", args.removesuffix(")"))
    if pairs:
        settings.options["optimizer_args"] = {key: value.strip() for key, value in pairs}
