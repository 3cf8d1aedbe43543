"""Metadata of a released file, for Additional Networks and other programs."""

from __future__ import annotations

import base64
import io
import json
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from orchestrator.errors import RecipeError, StepFailed
from orchestrator.models.registry import ARCHITECTURES, SMALL_BASE
from orchestrator.release import scrub
from orchestrator.weights.io.safetensors_io import canonical
from orchestrator.weights.io.writer import hashes, write_copy

if TYPE_CHECKING:
    from pathlib import Path

    from PIL import Image

    from orchestrator.recipe import Recipe
    from orchestrator.weights.io.safetensors_io import Header

JSON = dict[str, Any]

SMALL_BASE_NOTE = "Of the demo's small base model: this file opens in krnk only."

COVER_SIDE = 256
"""Longest side of the cover image in the file, in pixels. Every reader of the header reads it."""


def usage(recipe: Recipe, columns: list[JSON]) -> str:
    """Return the usage of the file: both languages, keywords, prompts."""
    release = recipe.release
    lines = [SMALL_BASE_NOTE] if recipe.base.is_small else []
    lines += [text for text in (release.usage, release.usage_ja) if text]
    lines.append(f"Keywords: {', '.join(recipe.triggers())}")
    lines.append(f"Weight: {release.preferred_weight:g}")
    lines += [f"{region.label or name}: {region.prompt}" for name, region in release.regions.items()]
    if columns:
        lines.append("Example prompts:")
        lines += [f"- {column['prompt']}" for column in columns[:4]]
    if recipe.base.license:
        lines.append(f"Base model: {scrub.base_name(recipe.base.checkpoint)}, licence: {recipe.base.license}")
    if recipe.render.negative:
        lines.append(f"Negative prompt: {recipe.render.negative}")
    return "\n".join(lines)


def entries(recipe: Recipe, facts: JSON, columns: list[JSON], cover: Image.Image | None, date: str) -> dict[str, str]:
    """Return the ssmd_ and modelspec. entries of a release, and its step.

    Empty ones are left out. ``write`` sets the hashes.
    """
    release, entry = recipe.release, ARCHITECTURES[recipe.base.architecture]
    title = release.title or recipe.name
    both = [text for text in (release.description, release.description_ja) if text]
    hint = usage(recipe, columns)
    words = ", ".join(recipe.triggers())
    tags = ", ".join(dict.fromkeys((*release.tags, recipe.type, recipe.algorithm)))
    entries = {
        "ssmd_display_name": f"{title} ({recipe.algorithm})",
        "ssmd_version": release.version,
        "ssmd_keywords": words,
        "ssmd_author": release.author,
        "ssmd_source": release.source,
        "ssmd_description": "\n\n".join((*both, hint)),
        "ssmd_rating": str(release.rating),  # Additional Networks reads it with int(): never empty
        "ssmd_tags": tags,
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": f"{SMALL_BASE if recipe.base.is_small else _specification(recipe)}/lora",
        "modelspec.title": f"{title} ({recipe.algorithm})",
        "modelspec.description": "\n".join(both),
        "modelspec.author": release.author,
        "modelspec.license": release.license,
        "modelspec.date": date,
        "modelspec.tags": tags,
        "modelspec.trigger_phrase": words,
        "modelspec.usage_hint": hint,
        "modelspec.prediction_type": _prediction(recipe),
        "modelspec.encoder_layer": "" if entry.fixed_clip_skip else str(recipe.base.clip_skip),
        "modelspec.resolution": _resolution(facts),
    }
    if step := facts.get("step"):
        # The trainer counts otherwise after a resume, and numbers the epochs of saved steps from 0.
        entries |= {"ss_steps": str(step["released"]), "ss_epoch": str(step.get("epoch") or "")}
        why = f" ({step['reason']})" if step["reason"] else ""
        entries["ssmd_description"] += f"\n\nStep {step['released']} of {step['of']}{why}"
    if cover is not None:
        entries["ssmd_cover_images"] = json.dumps([_base64(cover, "PNG")])
        entries["modelspec.thumbnail"] = "data:image/jpeg;base64," + _base64(cover, "JPEG")
    return {key: value for key, value in entries.items() if value}


def _specification(recipe: Recipe) -> str:
    """Return the base model's architecture as modelspec names it."""
    entry = ARCHITECTURES[recipe.base.architecture]
    own = entry.v_prediction[1] if recipe.training.options.get("v_parameterization") else ""
    return own or entry.modelspec


def _prediction(recipe: Recipe) -> str:
    """Return the prediction of the base model as modelspec names it."""
    usual = ARCHITECTURES[recipe.base.architecture].prediction_type
    return "v" if usual and recipe.training.options.get("v_parameterization") else usual


def _resolution(facts: JSON) -> str:
    """Return the largest trained resolution class.

    The trainer writes 512x512 for all data.
    """
    classes: list[str] = facts.get("images", {}).get("resolutions", [])
    return max(classes, key=lambda text: math.prod(int(side) for side in text.split("x")), default="")


def _base64(image: Image.Image, kind: str) -> str:
    small = image.copy()
    small.thumbnail((COVER_SIDE, COVER_SIDE))
    data = io.BytesIO()
    small.save(data, kind, optimize=True, **({"quality": 88} if kind == "JPEG" else {}))
    return base64.b64encode(data.getvalue()).decode()


def metadata(recipe: Recipe, header: Header, added: dict[str, str]) -> tuple[dict[str, str], list[str]]:
    """Return the metadata of the released file, and its removals as lines."""
    entries, removed = dict(header.metadata), list[str]()
    if recipe.release.scrub:
        entries, removed = scrub.metadata(entries)
    kept = {key: value for key, value in entries.items() if not key.startswith("ssmd_")}
    return {**kept, **added}, removed


def write(header: Header, target: Path, metadata: dict[str, str]) -> JSON:
    """Write the file with new metadata and true hashes, and return digests.

    The body is read twice: for the hashes in the header, and while it is copied and the file is digested.

    Returns:
        sha256 of the file, model_hash (its first 12 digits: AutoV3), legacy_hash, bytes.

    Raises:
        StepFailed: the file cannot be written.
    """
    computed = hashes(replace(header, metadata=metadata))
    metadata = {**metadata, "sshs_model_hash": computed.model, "sshs_legacy_hash": computed.legacy}
    if list(header.entries) == [entry.name for entry in canonical(header.entries.values())]:
        metadata["modelspec.hash_sha256"] = f"0x{computed.model}"
    else:
        metadata.pop("modelspec.hash_sha256", None)  # safetensors would write this body in another order
    try:
        sha256, count = write_copy(header, target, dict(sorted(metadata.items())))
    except RecipeError as error:
        raise StepFailed(error.problems) from error
    return {"sha256": sha256, "model_hash": computed.model, "legacy_hash": computed.legacy, "bytes": count}
