"""The metadata of a released file: what Additional Networks and other programs show when it is opened there."""

from __future__ import annotations

import base64
import io
import json
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from orchestrator.errors import RecipeError, StepFailed
from orchestrator.release import scrub
from orchestrator.weights.io.safetensors_io import canonical
from orchestrator.weights.io.writer import hashes, write_copy

if TYPE_CHECKING:
    from pathlib import Path

    from PIL import Image

    from orchestrator.recipe import Recipe
    from orchestrator.weights.io.safetensors_io import Header

JSON = dict[str, Any]

COVER_SIDE = 256
"""Longest side of the cover picture in the file, in pixels: it is read with every header."""

_ARCHITECTURES = {"sd1": "stable-diffusion-v1/lora", "sdxl": "stable-diffusion-xl-v1-base/lora"}


def usage(recipe: Recipe, columns: list[JSON]) -> str:
    """Return the text of how to use the file: usage in both languages, keywords, example prompts, regions."""
    release = recipe.release
    lines = [text for text in (release.usage, release.usage_ja) if text]
    lines.append(f"Keywords: {', '.join(recipe.triggers())}")
    lines.append(f"Weight: {release.preferred_weight:g}")
    lines += [f"{region.label or name}: {region.prompt}" for name, region in release.regions.items()]
    if columns:
        lines.append("Example prompts:")
        lines += [f"- {column['prompt']}" for column in columns[:4]]
    if recipe.render.negative:
        lines.append(f"Negative prompt: {recipe.render.negative}")
    return "\n".join(lines)


def entries(recipe: Recipe, facts: JSON, columns: list[JSON], cover: Image.Image | None, date: str) -> dict[str, str]:
    """Return the ssmd_ and modelspec. entries of a release; empty ones are left out. Hashes are set by ``write``."""
    release = recipe.release
    title = release.title or recipe.name
    both = [text for text in (release.description, release.description_ja) if text]
    how = usage(recipe, columns)
    words = ", ".join(recipe.triggers())
    tags = ", ".join(dict.fromkeys((*release.tags, recipe.type, recipe.algorithm)))
    found = {
        "ssmd_display_name": f"{title} ({recipe.algorithm})",
        "ssmd_version": release.version,
        "ssmd_keywords": words,
        "ssmd_author": release.author,
        "ssmd_source": release.source,
        "ssmd_description": "\n\n".join((*both, how)),
        "ssmd_rating": str(release.rating),  # Additional Networks reads it with int(): never empty
        "ssmd_tags": tags,
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": _ARCHITECTURES[recipe.base.architecture],
        "modelspec.title": f"{title} ({recipe.algorithm})",
        "modelspec.description": "\n".join(both),
        "modelspec.author": release.author,
        "modelspec.license": release.license,
        "modelspec.date": date,
        "modelspec.tags": tags,
        "modelspec.trigger_phrase": words,
        "modelspec.usage_hint": how,
        "modelspec.prediction_type": "epsilon",
        "modelspec.encoder_layer": str(recipe.base.clip_skip),
        "modelspec.resolution": _resolution(facts),
    }
    if cover is not None:
        found["ssmd_cover_images"] = json.dumps([_base64(cover, "PNG")])
        found["modelspec.thumbnail"] = "data:image/jpeg;base64," + _base64(cover, "JPEG")
    return {key: value for key, value in found.items() if value}


def _resolution(facts: JSON) -> str:
    """Return the largest class that was trained; the trainer itself says 512x512 whatever the data."""
    classes: list[str] = facts.get("images", {}).get("resolutions", [])
    return max(classes, key=lambda text: math.prod(int(side) for side in text.split("x")), default="")


def _base64(picture: Image.Image, kind: str) -> str:
    small = picture.copy()
    small.thumbnail((COVER_SIDE, COVER_SIDE))
    data = io.BytesIO()
    small.save(data, kind, optimize=True, **({"quality": 88} if kind == "JPEG" else {}))
    return base64.b64encode(data.getvalue()).decode()


def metadata(recipe: Recipe, header: Header, added: dict[str, str]) -> tuple[dict[str, str], list[str]]:
    """Return the whole metadata of the released file, and what was removed from the trainer's."""
    said, removed = dict(header.metadata), list[str]()
    if recipe.release.scrub:
        said, removed = scrub.metadata(said)
    kept = {key: value for key, value in said.items() if not key.startswith("ssmd_")}
    return {**kept, **added}, removed


def write(header: Header, target: Path, said: dict[str, str]) -> JSON:
    """Write the file with new metadata, true hashes and the body's bytes unchanged; return its digests.

    The body is read twice: once for the hashes that stand in the header, once while it is copied and the file's own
    digest is taken.

    Returns:
        sha256 of the file, model_hash (12 of it: AutoV3), legacy_hash, bytes.
    """
    known = hashes(replace(header, metadata=said))
    said = {**said, "sshs_model_hash": known.model, "sshs_legacy_hash": known.legacy}
    if list(header.entries) == [entry.name for entry in canonical(header.entries.values())]:
        said["modelspec.hash_sha256"] = f"0x{known.model}"
    else:
        said.pop("modelspec.hash_sha256", None)  # it is that of the body as it lies, which safetensors would write otherwise
    try:
        sha256, count = write_copy(header, target, dict(sorted(said.items())))
    except RecipeError as error:
        raise StepFailed(error.problems) from error
    return {"sha256": sha256, "model_hash": known.model, "legacy_hash": known.legacy, "bytes": count}
