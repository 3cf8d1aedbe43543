"""The ss_* metadata that sd-scripts writes into a LoRA: what was trained, as far as it says."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

from orchestrator.errors import Problem, RecipeError
from orchestrator.importers import Fate, Found, words
from orchestrator.models import blocks

if TYPE_CHECKING:
    from pathlib import Path

# What is a result, a log, or said elsewhere; nothing of the recipe is lost with it.
_RESULTS: Final = words(
    "session_id training_started_at training_finished_at output_name num_train_images num_reg_images num_validation_images"
    " num_batches_per_epoch num_epochs epoch steps sd_scripts_commit_hash sd_model_hash vae_hash datasets dataset_dirs"
    " tag_frequency bucket_info reg_dataset_dirs base_model_version v2 lowram training_comment batch_size_per_device"
    " total_batch_size resolution network_module network_dim network_alpha network_args optimizer new_sd_model_hash"
    " new_vae_hash sd_model_name vae_name full_fp16 fp8_base fp8_base_unet max_validation_steps validate_every_n_epochs"
    " validate_every_n_steps validation_seed validation_split"
)
_DATASET: Final = words(
    "enable_bucket bucket_no_upscale min_bucket_reso max_bucket_reso color_aug flip_aug random_crop"
    " shuffle_caption keep_tokens"
)
_RESIZED: Final = re.compile(r"Dynamic resize with (sv_ratio|sv_fro|sv_cumulative): ([\d.]+) from (\d+)")
_SHA256: Final = re.compile(r"(?:0x)?([0-9a-f]{64})")
# Defaults of v0.10.1: what is so, need not stand in a recipe.
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


def read(path: Path) -> Found:
    """Read a LoRA's header.

    Raises:
        RecipeError: no sound safetensors file, or none that says how it was trained.
    """
    from orchestrator.weights.io.metadata import provenance  # noqa: PLC0415
    from orchestrator.weights.io.safetensors_io import read_header  # noqa: PLC0415

    header = read_header(path)
    said = {key.removeprefix("ss_"): _value(text) for key, text in header.metadata.items() if key.startswith("ss_")}
    if "network_module" not in said:
        hint = "many tools drop the metadata; `inspect` says what the tensors alone tell"
        raise RecipeError(Problem(str(path), "holds no ss_* metadata: it does not say how it was trained", hint))
    found = Found(str(said.get("output_name") or path.stem), "metadata of a LoRA")
    for name, value in said.items():
        if name in _RESULTS or name in _DATASET or value is None or value is False or value == _DEFAULTS.get(name, ...):
            continue
        found.options[_RENAMED.get(name, name)] = value
    done = provenance(header.metadata)
    _network(found, said, next((one for one in reversed(done) if one.get("rank_rule") in _RULES), {}))
    _base(found, said)
    _optimizer(found, said)
    dtypes = {entry.dtype for entry in header.entries.values()}
    precision = {_DTYPES[dtype] for dtype in dtypes if dtype in _DTYPES}
    if len(precision) == 1:
        found.options["save_precision"] = precision.pop()
    if isinstance(said.get("datasets"), list):
        found.datasets = [_of_json(one) for one in said["datasets"] if isinstance(one, dict)]
    else:
        found.datasets = [_of_folders(said)]
    found.extra["tags"] = said.get("tag_frequency") if isinstance(said.get("tag_frequency"), dict) else {}
    found.say(Fate.CHANGED, "image folders", "dataset.sources", "a file holds their names only: they are expected below data/")
    _block_weights(found, done)
    return found


def _value(text: str) -> Any:
    """Return what ``str(value)`` was made of: None, a truth value, a number, JSON, or the text."""
    if text in ("None", ""):
        return None
    if text in ("True", "False"):
        return text == "True"
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 and "." not in text else value


def _block_weights(found: Found, done: list[dict[str, Any]]) -> None:
    """Take the block weights of a file that this program merged: what was done to it stands in its provenance."""
    merges = [one for one in done if _are_numbers(one.get("block_weights"))]
    if not merges:
        found.say(Fate.LOST, "block weights", why="no metadata has them; `verify` reads them off the tensors")
    elif len(merges) > 1:
        found.say(Fate.LOST, "block weights", "block_weights", f"{len(merges)} merges one after the other; a recipe has one")
    else:
        (one,) = merges
        names = blocks.names("sdxl" if found.extra.get("architecture") == "sdxl" else "sd1")
        found.extra["block_weights"] = [float(one["block_weights"].get(name, 0)) for name in names]
        options = {"zeroed": one.get("zeroed") == "prune" and "prune", "compat": one.get("compat")}
        found.extra["merge"] = {key: value for key, value in options.items() if value}
        found.say(Fate.KEPT, "block weights", "block_weights")
    for one in done:
        if not {"block_weights", "rank_rule"} & set(one):
            found.say(Fate.LOST, str(one.get("operation")), why="it was done to the file by hand; no recipe does it")


def _are_numbers(value: Any) -> bool:
    return isinstance(value, dict) and bool(value) and all(isinstance(one, int | float) for one in value.values())


def _network(found: Found, said: dict[str, Any], resized: dict[str, Any]) -> None:
    options = found.options
    options["network_module"] = said["network_module"]
    args = said.get("network_args") if isinstance(said.get("network_args"), dict) else {}
    options["network_args"] = {key: _value(str(value)) for key, value in (args or {}).items() if value is not None}
    comment = _RESIZED.search(str(said.get("training_comment") or ""))
    options["network_dim"] = said.get("network_dim")
    options["network_alpha"] = said.get("network_alpha")
    if comment is not None:
        options["network_dim"] = int(comment[3])
        alpha = options["network_args"].get("conv_alpha")
        options["network_alpha"] = alpha if isinstance(alpha, int | float) else int(comment[3])
        rule = resized.get("rank_rule", "sd-scripts-0.10")  # of this program, or of the sd-scripts that did it
        found.extra["resize"] = {comment[1]: float(comment[2]), "new_rank": int(comment[3]), "rank_rule": rule}
        found.say(
            Fate.CHANGED,
            "network_alpha",
            "network.alpha",
            "a resized file has lost its alpha; that of the convolutions is taken",
        )
    elif not isinstance(options["network_dim"], int):
        found.say(Fate.LOST, "network_dim", "network.dim", f"the file says {options['network_dim']!r}; 64 stands in")
        options["network_dim"], options["network_alpha"] = 64, 32


def _base(found: Found, said: dict[str, Any]) -> None:
    base: dict[str, Any] = {}
    if said.get("sd_model_name"):
        found.options["pretrained_model_name_or_path"] = str(said["sd_model_name"])
    if said.get("vae_name"):
        found.options["vae"] = str(said["vae_name"])
    for key, name in (("new_sd_model_hash", "sha256"), ("new_vae_hash", "vae_sha256")):
        digest = _SHA256.fullmatch(str(said.get(key)))
        if digest is not None:
            base[name] = digest[1]
            found.say(Fate.KEPT, f"ss_{key}", f"base.{name}")
    if str(said.get("base_model_version", "")).startswith("sdxl"):
        found.extra["architecture"] = "sdxl"
    found.extra["base"] = base


def _optimizer(found: Found, said: dict[str, Any]) -> None:
    """Read ``bitsandbytes.optim.adamw.AdamW8bit(weight_decay=0.1,betas=(0.9, 0.99))``."""
    name, _, args = str(said.get("optimizer") or "AdamW").partition("(")
    found.options["optimizer_type"] = name.rpartition(".")[2]
    pairs = re.findall(r"(\w+)=(\([^()]*\)|\[[^\[\]]*\]|[^,()]+)", args.removesuffix(")"))
    if pairs:
        found.options["optimizer_args"] = {key: value.strip() for key, value in pairs}


def _of_json(one: dict[str, Any]) -> dict[str, Any]:
    keys = ("resolution", "enable_bucket", "bucket_no_upscale", "bucket_reso_steps", "min_bucket_reso", "max_bucket_reso")
    dataset = {key: one[key] for key in keys if one.get(key) is not None}
    dataset["batch_size"] = one.get("batch_size_per_device", 1)
    wanted = (
        "num_repeats",
        "color_aug",
        "flip_aug",
        "random_crop",
        "shuffle_caption",
        "keep_tokens",
        "class_tokens",
        "is_reg",
        "img_count",
    )
    subsets = one.get("subsets")
    dataset["subsets"] = [
        {
            **{key: subset[key] for key in wanted if subset.get(key) is not None},
            "image_dir": f"data/{subset.get('image_dir') or 'pictures'}",
        }
        for subset in (subsets if isinstance(subsets, list) else [])
        if isinstance(subset, dict)
    ]
    return dataset


def _of_folders(said: dict[str, Any]) -> dict[str, Any]:
    """Return the dataset of a file that was trained with --train_data_dir."""
    sides = [int(side) for side in re.findall(r"\d+", str(said.get("resolution") or "512"))]
    dataset: dict[str, Any] = {key: said[key] for key in _DATASET if said.get(key) is not None}
    shared = {key: dataset.pop(key) for key in list(dataset) if "bucket" not in key}
    dataset |= {"resolution": sides[:2] if len(sides) > 1 else sides * 2, "batch_size": said.get("batch_size_per_device") or 1}
    folders = said.get("dataset_dirs")
    dataset["subsets"] = [
        {**shared, "image_dir": f"data/{name}", "num_repeats": one.get("n_repeats", 1), "img_count": one.get("img_count", 0)}
        for name, one in (folders.items() if isinstance(folders, dict) else ())
        if isinstance(one, dict)
    ]
    return dataset
