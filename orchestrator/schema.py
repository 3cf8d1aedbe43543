"""The JSON Schema of recipe files, from the recipe model: what editors complete and check while a recipe is written.

A file may leave out everything (what it extends may say it), and may hold ``extends``, ``unset`` and, as a profile, ``when``;
so nothing is required, at any level. Unknown keys stay errors.
"""

from __future__ import annotations

import json
from typing import Any, Final

from orchestrator.recipe import Recipe

EXAMPLES: Final[dict[str, list[Any]]] = {
    "Recipe.name": ["krnk-locon"],
    "Recipe.summary": ["the black-cat-eared face, LyCORIS LoCon"],
    "Recipe.subject": ["krnk"],
    "Recipe.algorithm": ["lora3x3", "locon", "loha"],
    "Recipe.block_weights": ["FACE", "BODY", [0, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1]],
    "Base.checkpoint": ["Defmix-v2.0.safetensors", "embedded", "/data/models/base.safetensors"],
    "Base.url": ["hf:owner/name/file.safetensors"],
    "Source.images": ["data/krnk", "data/krnk/f0*.png"],
    "Source.trigger": ["krnk"],
    "Source.class_tokens": ["krnk character"],
    "Dataset.sizes": [[128, 192, 256, 384, 512, 768]],
    "Dataset.batch_size": [{"default": 1, "512x512": 2}],
    "Network.dim": [128, 32],
    "Network.alpha": [64, 16],
    "Network.args": [{"dora_wd": True}],
    "Training.steps": [1000, 1200, 1600],
    "Training.learning_rate": [1e-4],
    "Training.optimizer": ["AdamW8bit", "AdamW", "adafactor", "Prodigy"],
    "Training.lr_scheduler": ["cosine_with_restarts", "constant", "cosine"],
    "Training.options": [{"min_snr_gamma": 5}],
    "Guards.retry": [[{"mixed_precision": "bf16"}]],
    "Resize.sv_ratio": [16, 32, 64],
    "Prompt.prompt": ["{trigger}, simple background, from front, upper body, smile"],
    "Release.collection": ["krnk_tyank"],
}

_ALSO: Final[dict[str, Any]] = {
    "extends": {
        "description": "Parts and recipes that this file builds on, left to right; names without .toml, as _algorithms/locon.",
        "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
        "examples": [["_base/release-2023-03", "_algorithms/locon", "_subjects/krnk"]],
    },
    "unset": {
        "description": "Inherited keys to take away again, dotted, as resize or training.max_grad_norm.",
        "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
        "examples": [["resize"]],
    },
    "when": {
        "description": "In a profile: tables for recipes whose type, algorithm, subject or name is the key.",
        "type": "object",
        "additionalProperties": {"type": "object"},
    },
}


def document() -> dict[str, Any]:
    """Return the schema of a recipe file, a part or a profile."""
    schema = Recipe.model_json_schema()
    for title, model in {"Recipe": schema, **schema["$defs"]}.items():
        model.pop("required", None)
        for name, field in model.get("properties", {}).items():
            found = EXAMPLES.get(f"{title}.{name}")
            if found is not None:
                field["examples"] = found
    schema["properties"] |= _ALSO
    schema["title"] = "Recipe of a character LoRA"
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def dumps() -> str:
    """Return the schema as the file beside the recipes holds it."""
    return json.dumps(document(), indent=1, ensure_ascii=False, sort_keys=True) + "\n"
