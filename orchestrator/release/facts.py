"""Facts of a release, from the records of its steps and from its file."""

from __future__ import annotations

import re
import time
from collections import Counter
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from orchestrator.dataset.buckets import epochs
from orchestrator.dataset.naming import MANIFEST
from orchestrator.models import block_weights
from orchestrator.release.scrub import base_name
from orchestrator.run.paths import RECORD
from orchestrator.system.files import read_json
from orchestrator.weights import loaders
from orchestrator.weights.families.adapter import adapter

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.models.block_weights import Given
    from orchestrator.recipe import Recipe
    from orchestrator.weights.io.safetensors_io import Header

JSON = dict[str, Any]
STAGES = ("train", "merge", "resize")
"""Kinds of the steps that write weights, in their order."""
_NONCOMMERCIAL = re.compile(r"non-?\s?commercial|\bnc\b", re.IGNORECASE)
_DOWN = re.compile(r"\.(lora_down\.weight|hada_w1_b|lokr_w1_b|lokr_w2_b)$")


def weights_of(record: Mapping[str, Any]) -> tuple[str, str]:
    """Return name and digest of a record's first LoRA file, or empty texts."""
    outputs = dict(record.get("outputs") or {}).items()
    return next(((name, str(out["sha256"])) for name, out in outputs if name.endswith(".safetensors")), ("", ""))


def read_records(request: Mapping[str, Any]) -> dict[str, JSON]:
    """Return the records of a release's steps by kind."""
    records: dict[str, JSON] = {}
    for kind, folder in dict(request.get("folders") or {}).items():
        if record := read_json(Path(folder) / RECORD):  # without it, the card leaves out the numbers of this step
            records[kind] = record
    records.update(request.get("records") or {})
    return records


def dataset_manifest(request: Mapping[str, Any]) -> JSON:
    """Return the manifest of the dataset step (dataset.json), or nothing."""
    folder = dict(request.get("folders") or {}).get("dataset")
    return read_json(Path(folder) / MANIFEST) if folder else {}


def facts(recipe: Recipe, header: Header, records: Mapping[str, JSON], dataset: JSON) -> JSON:
    """Return the facts of one file for cards, sidecars and the report.

    Unknown keys are missing.

    ``weights`` (sizes, ranks), ``readers`` (programs by their result for the file), ``network`` and ``training`` (the train
    record), ``block_weights``, ``resize``, ``images``, ``base``, ``seconds`` by kind, ``resumed`` (steps at which a training
    resumed), ``step`` (of a chosen saved step).
    """
    train = dict(records.get("train", {}).get("params", {}))
    facts: JSON = {
        "name": recipe.name,
        "subject": recipe.subject,
        "algorithm": recipe.algorithm,
        "type": recipe.type,
        "engine": records.get("train", {}).get("engine", ""),
        "triggers": list(recipe.triggers()),
        "weights": weights(header),
        "readers": _readers(header),
        "network": train.get("network", {}),
        "training": {**train.get("training", {}), **records.get("train", {}).get("changes", {})},
        "listed_size": recipe.release.listed_size,
        "images": images(dataset),
        "dataset": _dataset(records.get("dataset", {})),
        "base": _base(recipe, records),
        "seconds": {kind: record["seconds"] for kind, record in records.items() if record.get("seconds") is not None},
        "resumed": [record["resumed_from"] for record in records.values() if record.get("resumed_from") is not None],
    }
    if recipe.base.is_small:
        facts["small_base"] = True
        del facts["readers"]  # they were seen with the family's usual layers
    if recipe.select.step is not None:
        steps = recipe.training.steps
        facts["step"] = {"released": recipe.select.step, "of": steps, "reason": recipe.select.reason}
        if (batches := dataset.get("batches_per_epoch")) and recipe.select.step:
            facts["step"]["epoch"] = epochs(batches, recipe.training.model_copy(update={"steps": recipe.select.step}))
    if "merge" in records:
        facts["block_weights"] = _block_weights(records["merge"]["params"]["block_weights"], recipe)
    if "resize" in records:
        facts["resize"] = {key: value for key, value in records["resize"]["params"].items() if value is not None}
    return facts


def _block_weights(given: Given, recipe: Recipe) -> JSON:
    """Return the name and the values of block weights.

    Networks without usual lists have names and ranges in place of values.
    """
    weights = block_weights.parse(given, recipe.base.architecture)
    text = weights.text()
    named = text.split(",") if "=" in text else [f"{value:g}" for value in weights.values]
    return {"name": weights.preset or "", "values": named}


def _readers(header: Header) -> JSON:
    """Return the programs by their result, each with its version and note."""
    by_reading: JSON = {}
    for reader in loaders.of_file(adapter(header)):
        note = f": {reader.note}" if reader.note else ""
        by_reading.setdefault(reader.reading.name.lower(), []).append(f"{reader.title}{note}")
    return by_reading


def weights(header: Header) -> JSON:
    """Return sizes, types and ranks of a file, from its header."""
    ranks = [entry.shape[0] for name, entry in header.entries.items() if _DOWN.search(name) and entry.shape]
    modules = {name.partition(".")[0] for name in header.entries}
    kinds = Counter(entry.dtype for entry in header.entries.values())
    weights: JSON = {
        "tensor_bytes": header.tensor_bytes,
        "mib": round(header.tensor_bytes / 2**20, 2),
        "modules": len(modules),
        "tensors": len(header.entries),
        "dtype": kinds.most_common(1)[0][0] if kinds else "",
        "cores": sorted(
            {core.partition(".")[0] for core in loaders.CORES for name in header.entries if name.endswith(f".{core}")}
        ),
    }
    weights["tucker"] = bool(weights["cores"])
    if ranks:
        weights["ranks"] = {"min": min(ranks), "max": max(ranks), "median": median(ranks), "distinct": len(set(ranks))}
    return weights


def images(dataset: JSON) -> JSON:
    """Return the number of originals by source, and of all training images."""
    originals: dict[str, set[str]] = {}
    for image in dataset.get("pictures", []):
        source, _, name = str(image.get("source", "")).partition("/")
        if not image.get("regularization"):
            originals.setdefault(source, set()).add(name)
    if not originals:
        return {}
    return {
        "originals": {source: len(names) for source, names in sorted(originals.items())},
        "pictures": dataset.get("images", len(dataset.get("pictures", []))),
        "resolutions": sorted({"x".join(map(str, image["resolution"])) for image in dataset.get("pictures", [])}),
    }


def _dataset(record: JSON) -> JSON:
    keys = (
        "sizes",
        "repeats",
        "color_aug",
        "flip_aug",
        "enable_bucket",
        "bucket_no_upscale",
        "shuffle_caption",
        "keep_tokens",
    )
    params = record.get("params", {})
    return {key: params[key] for key in keys if key in params}


def _base(recipe: Recipe, records: Mapping[str, JSON]) -> JSON:
    sources = records.get("train", {}).get("sources", {})
    params = records.get("train", {}).get("params", {}).get("base", {})
    base: JSON = {"checkpoint": base_name(recipe.base.checkpoint), "architecture": recipe.base.architecture, **params}
    base["noncommercial"] = noncommercial(recipe.base.license)
    base |= {"url": recipe.base.url, "license": recipe.base.license, "sha256": sources.get("checkpoint", recipe.base.sha256)}
    vae = recipe.base.vae
    digest = sources.get("vae", recipe.base.vae_sha256) if vae else ""
    return base | {"vae": base_name(vae) if vae else "", "vae_sha256": digest}


def noncommercial(licence: str) -> bool:
    """Return whether a licence excludes commercial use by its name."""
    return _NONCOMMERCIAL.search(licence) is not None


def date(records: Mapping[str, JSON]) -> str:
    """Return the start of the training in UTC, or "" without a record of it.

    The present time never stands in for it, because the same records give the same release.
    """
    started = records.get("train", {}).get("started")
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(float(started))) if started else ""
