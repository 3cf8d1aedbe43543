"""Sidecar files of a LoRA: NAME.json (A1111), NAME.civitai.info."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from orchestrator.models.registry import ARCHITECTURES
from orchestrator.release.file_metadata import usage

if TYPE_CHECKING:
    from orchestrator.recipe import Recipe

JSON = dict[str, Any]


def webui(recipe: Recipe, columns: list[JSON]) -> str:
    """Return NAME.json, the text of a card in A1111 and Forge."""
    release = recipe.release
    return _text(
        {
            "description": "\n".join(text for text in (release.description, release.description_ja) if text),
            "sd version": "Unknown" if recipe.base.is_small else ARCHITECTURES[recipe.base.architecture].webui_version,
            "activation text": ", ".join(recipe.triggers()),
            "preferred weight": release.preferred_weight,
            "negative text": recipe.render.negative,
            "notes": usage(recipe, columns),
        }
    )


def civitai(recipe: Recipe, columns: list[JSON], digests: JSON) -> str:
    """Return NAME.civitai.info: names, trained words, base model and hashes."""
    release = recipe.release
    hashes = {
        "SHA256": str(digests["sha256"]).upper(),
        "AutoV2": str(digests["sha256"])[:10].upper(),
        "AutoV3": str(digests["model_hash"])[:12].upper(),
    }
    file = {
        "name": f"{recipe.name}.safetensors",
        "sizeKB": digests["bytes"] / 1024,
        "type": "Model",
        "metadata": {"format": "SafeTensor"},
        "hashes": hashes,
        "primary": True,
    }
    return _text(
        {
            "name": release.version or recipe.algorithm,
            "baseModel": "Other" if recipe.base.is_small else civitai_base(recipe),
            "trainedWords": [", ".join(recipe.triggers())],
            "description": release.description,
            "model": {
                "name": f"{release.title or recipe.name} ({recipe.algorithm})",
                "type": "LORA",
                "nsfw": False,
                "poi": False,
            },
            "files": [file],
            "images": [{"url": f"{recipe.name}.png", "meta": {"prompt": columns[0]["prompt"]}}] if columns else [],
            "extensions": {"tags": list(release.tags)},
        }
    )


def civitai_base(recipe: Recipe) -> str:
    """Return the name of the recipe's base model in Civitai's list."""
    entry, base = ARCHITECTURES[recipe.base.architecture], recipe.base
    text = f"{base.url} {base.checkpoint}".lower()
    return next((name for pattern, name in entry.civitai_derived if re.search(pattern, text)), entry.civitai_base)


def _text(value: JSON) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2) + "\n"
