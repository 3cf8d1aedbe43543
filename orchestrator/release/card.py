"""Model cards: front matter for the Hub and a text from templates."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
from huggingface_hub.repocard_data import ModelCardData
from jinja2.sandbox import ImmutableSandboxedEnvironment

from orchestrator.errors import Problem, StepFailed
from orchestrator.models.registry import ARCHITECTURES
from orchestrator.release import facts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.recipe import Recipe

JSON = dict[str, Any]

_TEMPLATES = Path(__file__).with_name("templates")
# Names of licences on the Hub. All others are "other" with their name.
_KNOWN_LICENSES = {
    "apache-2.0", "mit", "openrail", "creativeml-openrail-m", "openrail++", "bigscience-openrail-m", "cc0-1.0", "cc-by-4.0",
    "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc-by-nd-4.0", "cc-by-nc-nd-4.0", "wtfpl", "unlicense", "gpl-3.0",
    "agpl-3.0", "lgpl-3.0", "bsd-2-clause", "bsd-3-clause",
}  # fmt: skip


def front_matter(recipes: list[Recipe], widgets: list[JSON]) -> str:
    """Return the front matter of a card as YAML for the Hub.

    Args:
        recipes: recipes of the card.
        widgets: ``{"text": prompt, "output": {"url": image}}`` for images in the bundle.
    """
    first = recipes[0]
    data: JSON = {"language": ["en", "ja"], "pipeline_tag": "text-to-image"}
    data["tags"] = ["text-to-image", "lora", "template:sd-lora", *ARCHITECTURES[first.base.architecture].hub_tags]
    data["tags"] += [tag for recipe in recipes for tag in (recipe.network.family, *recipe.release.tags)]
    data["tags"] = list(dict.fromkeys(data["tags"]))
    bases = sorted({hub for recipe in recipes if (hub := hub_name(recipe.base.url))})
    if bases:
        data["base_model"] = bases[0] if len(bases) == 1 else bases
    data["instance_prompt"] = ", ".join(first.triggers())
    licence = first.release.license
    if licence.lower() in _KNOWN_LICENSES:
        data["license"] = licence.lower()
    elif licence:
        data |= {"license": "other", "license_name": licence}
    elif facts.noncommercial(first.base.license):  # a LoRA is a derivative of its base model
        data |= {"license": "other", "license_name": first.base.license}
    if widgets:
        data["widget"] = widgets
    return f"---\n{ModelCardData(**data).to_yaml()}\n---\n"


def hub_name(url: str) -> str:
    """Return OWNER/NAME of ``hf:owner/name/file``, or "" for other sources."""
    parts = url.removeprefix("hf:").split("/") if url.startswith("hf:") else []
    return "/".join(parts[:2]) if len(parts) >= 2 else ""


def render(template: str, context: JSON, override: str = "", root: str = ".") -> str:
    """Return the text of a template.

    The folder of the recipe's own templates comes first.

    Raises:
        StepFailed: a template that is missing or broken, or that reads an unknown value.
    """
    folders = [*([Path(root) / override] if override else []), _TEMPLATES]
    environment = ImmutableSandboxedEnvironment(
        loader=jinja2.FileSystemLoader([str(folder) for folder in folders]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "size": size,
        "number": number,
        "grouped": grouped,
        "rate": rate,
        "duration": duration,
        "cell": cell,
    }
    try:
        text = environment.get_template(template).render(**context)
    except jinja2.TemplateError as error:
        where = f"{getattr(error, 'filename', None) or template}:{getattr(error, 'lineno', None) or 0}"
        raise StepFailed(Problem(where, f"{error}", "release.templates names a folder of your own templates")) from error
    return _tidy(text)


def _tidy(text: str) -> str:
    """Return a text with the blank lines that Markdown needs, and no others."""
    lines: list[str] = []
    for line in text.splitlines():
        kept = line.rstrip()
        if kept.startswith("#") and lines and lines[-1]:
            lines.append("")
        if kept.startswith("|") and len(lines) > 1 and not lines[-1] and lines[-2].startswith("|"):
            lines.pop()
        if kept or (lines and lines[-1]):
            lines.append(kept)
    return "\n".join(lines).rstrip() + "\n"


def size(count: float) -> str:
    """Return bytes in MiB, or in KiB below one MiB."""
    if count < 2**20:
        return f"{count / 2**10:.0f} KiB"
    return f"{count / 2**20:.1f} MiB" if count < 100 * 2**20 else f"{count / 2**20:.0f} MiB"


def number(value: Any) -> str:
    """Return a number in its shortest form: 128, 0.5, 64 for 64.0."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def grouped(value: int) -> str:
    """Return a large whole number: 212,845,244."""
    return f"{value:,}"


def rate(value: float | Sequence[float]) -> str:
    """Return a learning rate, or one for each text encoder: 1e-4, 4.4e-5."""
    if not isinstance(value, int | float):
        return ", ".join(map(rate, value))
    if not value:
        return "0"
    digits, _, power = f"{value:.6e}".partition("e")
    return f"{float(digits):g}e{int(power)}" if value < 0.001 else f"{value:g}"


def duration(seconds: float) -> str:
    """Return seconds as 45 s, 12 min or 3 h 20 min."""
    whole = round(seconds)
    if whole < 90:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    return f"{whole / 60:.0f} min" if whole < 5400 else f"{whole // 3600} h {whole % 3600 // 60} min"


def cell(text: Any) -> str:
    """Return a text for a cell of a Markdown table."""
    return str(text).replace("|", "\\|").replace("\n", " ")
