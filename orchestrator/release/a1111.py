"""Generation parameters as text of A1111's PNG files ("PNG Info")."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator.release.scrub import base_name

if TYPE_CHECKING:
    from orchestrator.recipe import DrawnPrompt, Recipe

JSON = dict[str, Any]

# The names in A1111.
_SAMPLERS = {
    "euler_a": "Euler a",
    "euler": "Euler",
    "k_euler_a": "Euler a",
    "k_euler": "Euler",
    "ddim": "DDIM",
    "pndm": "PLMS",
    "heun": "Heun",
    "dpm_2": "DPM2",
    "dpm_2_a": "DPM2 a",
    "lms": "LMS",
    "dpmsolver++": "DPM++ 2M",
    "dpmsolver": "DPM++ 2M",
    "dpmsingle": "DPM++ 2S a",
}


def parameters(recipe: Recipe, drawn: DrawnPrompt, facts: JSON, model_hash: str = "") -> str:
    """Return A1111's text for one image: prompts and a line of settings.

    Args:
        recipe: the recipe of the image.
        drawn: the prompt of the image.
        facts: ``base`` (checkpoint and digest).
        model_hash: sshs_model_hash of the LoRA, or "" before it is computed.
    """
    render = recipe.render
    base = facts.get("base", {})
    settings = {
        "Steps": render.steps,
        "Sampler": _SAMPLERS.get(render.sampler, render.sampler),
        "CFG scale": f"{render.scale:g}",
        "Distilled CFG Scale": "" if render.guidance is None else f"{render.guidance:g}",
        "Shift": "" if render.flow_shift is None else f"{render.flow_shift:g}",
        "Seed": drawn.seed,
        "Size": f"{drawn.width}x{drawn.height}",
        "Model hash": str(base.get("sha256", ""))[:10] if not str(base.get("sha256", "")).startswith("missing") else "",
        "Model": base_name(str(base.get("checkpoint", ""))).rpartition(".")[0] or base.get("checkpoint", ""),
        "Clip skip": recipe.base.clip_skip if recipe.base.clip_skip > 1 else "",
        "Lora hashes": f'"{recipe.name}: {model_hash[:12]}"' if model_hash else "",
    }
    line = ", ".join(f"{key}: {value}" for key, value in settings.items() if value != "")
    first = f"{drawn.text} <lora:{recipe.name}:{render.multiplier:g}>"
    return "\n".join((first, *([f"Negative prompt: {drawn.negative}"] if drawn.negative else []), line))


def parameters_by_prompt(recipe: Recipe) -> dict[str, str]:
    """Return the text of each image of a recipe, by prompt name."""
    facts = {"base": {"checkpoint": recipe.base.checkpoint, "sha256": recipe.base.sha256}}
    return {name: parameters(recipe, drawn, facts) for name, drawn in recipe.drawn_prompts().items()}
