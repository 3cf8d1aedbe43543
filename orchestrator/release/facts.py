"""What a card says in numbers: read from the records of the steps and from the file itself, never from a template."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from orchestrator.models import blocks
from orchestrator.release.scrub import base_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.recipe import Recipe
    from orchestrator.weights.io.safetensors_io import Header

JSON = dict[str, Any]
_DOWN = re.compile(r"\.(lora_down\.weight|hada_w1_b|lokr_w1_b|lokr_w2_b)$")


def read_records(request: Mapping[str, Any]) -> dict[str, JSON]:
    """Return the records of the steps behind a release, by kind: those in the request, else those in the steps' folders."""
    records: dict[str, JSON] = {}
    for kind, folder in dict(request.get("folders") or {}).items():
        try:
            records[kind] = json.loads((Path(folder) / "record.json").read_text("utf-8"))
        except (OSError, ValueError):
            continue  # a step without a record gives no numbers; the card then says nothing of it
    records.update(request.get("records") or {})
    return records


def dataset_manifest(request: Mapping[str, Any]) -> JSON:
    """Return the dataset step's own manifest (dataset.json), or nothing."""
    folder = dict(request.get("folders") or {}).get("dataset")
    if folder:
        try:
            return dict(json.loads((Path(folder) / "dataset.json").read_text("utf-8")))
        except (OSError, ValueError):
            return {}
    return {}


def facts(recipe: Recipe, header: Header, records: Mapping[str, JSON], dataset: JSON) -> JSON:
    """Return what cards, sidecars and the report say of one file. Keys are missing where nothing is known.

    ``weights`` (sizes, ranks), ``network`` and ``training`` (the train record), ``block_weights``, ``resize``, ``images``,
    ``base``, ``seconds`` by kind, ``resumed`` (steps at which a training went on).
    """
    train = dict(records.get("train", {}).get("params", {}))
    found: JSON = {
        "name": recipe.name,
        "subject": recipe.subject,
        "algorithm": recipe.algorithm,
        "type": recipe.type,
        "engine": records.get("train", {}).get("engine", ""),
        "triggers": list(recipe.triggers()),
        "weights": weights(header),
        "network": train.get("network", {}),
        "training": {**train.get("training", {}), **records.get("train", {}).get("changes", {})},
        "listed_size": recipe.release.listed_size,
        "images": images(dataset),
        "dataset": _dataset(records.get("dataset", {})),
        "base": _base(recipe, records),
        "seconds": {kind: record["seconds"] for kind, record in records.items() if record.get("seconds") is not None},
        "resumed": [record["resumed_from"] for record in records.values() if record.get("resumed_from") is not None],
    }
    if "merge" in records:
        values = records["merge"]["params"]["block_weights"]
        found["block_weights"] = {"name": _preset(values, recipe), "values": [f"{value:g}" for value in values]}
    if "resize" in records:
        found["resize"] = {key: value for key, value in records["resize"]["params"].items() if value is not None}
    return found


def _preset(values: list[float], recipe: Recipe) -> str:
    try:
        return blocks.preset_name(tuple(values), recipe.base.architecture) or ""
    except ValueError:
        return ""


def weights(header: Header) -> JSON:
    """Return sizes, types and ranks of a file, from its header alone."""
    ranks = [entry.shape[0] for name, entry in header.entries.items() if _DOWN.search(name) and entry.shape]
    modules = {name.partition(".")[0] for name in header.entries}
    kinds = Counter(entry.dtype for entry in header.entries.values())
    found: JSON = {
        "tensor_bytes": header.tensor_bytes,
        "mib": round(header.tensor_bytes / 2**20, 2),
        "modules": len(modules),
        "tensors": len(header.entries),
        "dtype": kinds.most_common(1)[0][0] if kinds else "",
        "tucker": any(name.endswith((".lora_mid.weight", ".hada_t1", ".lokr_t2")) for name in header.entries),
    }
    if ranks:
        found["ranks"] = {"min": min(ranks), "max": max(ranks), "median": median(ranks), "distinct": len(set(ranks))}
    return found


def images(dataset: JSON) -> JSON:
    """Return how many originals each source gave, and how many pictures were trained on in all."""
    originals: dict[str, set[str]] = {}
    for picture in dataset.get("pictures", []):
        source, _, name = str(picture.get("source", "")).partition("/")
        if not picture.get("regularization"):
            originals.setdefault(source, set()).add(name)
    if not originals:
        return {}
    return {
        "originals": {source: len(names) for source, names in sorted(originals.items())},
        "pictures": dataset.get("images", len(dataset.get("pictures", []))),
        "resolutions": sorted({"x".join(map(str, picture["resolution"])) for picture in dataset.get("pictures", [])}),
    }


def _dataset(record: JSON) -> JSON:
    wanted = (
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
    return {key: params[key] for key in wanted if key in params}


def _base(recipe: Recipe, records: Mapping[str, JSON]) -> JSON:
    sources = records.get("train", {}).get("sources", {})
    asked = records.get("train", {}).get("params", {}).get("base", {})
    found: JSON = {"checkpoint": base_name(recipe.base.checkpoint), "architecture": recipe.base.architecture, **asked}
    found |= {"url": recipe.base.url, "license": recipe.base.license, "sha256": sources.get("checkpoint", recipe.base.sha256)}
    vae = recipe.base.vae
    digest = sources.get("vae", recipe.base.vae_sha256) if vae else ""
    return found | {"vae": base_name(vae) if vae else "", "vae_sha256": digest}


def date(records: Mapping[str, JSON]) -> str:
    """Return when the training ran, in UTC; "" if no record says so. Never now: a release of the same records is the same."""
    started = records.get("train", {}).get("started")
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(float(started))) if started else ""
