"""All architectures. A new one is a module and an entry here."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

from orchestrator.models import anima, chroma, flux, hunyuan_image, lumina, sd1, sd2, sd3, sdxl

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orchestrator.models.architecture import Architecture

ArchitectureName = Literal[
    "sd1",
    "sd2",
    "sdxl",
    "sd3-medium",
    "sd3.5-medium",
    "sd3.5-large",
    "flux-schnell",
    "flux",
    "chroma",
    "lumina",
    "hunyuan-image",
    "anima",
]
ARCHITECTURES: dict[ArchitectureName, Architecture] = {
    "sd1": sd1.ARCHITECTURE,
    "sd2": sd2.ARCHITECTURE,
    "sdxl": sdxl.ARCHITECTURE,
    "sd3-medium": sd3.MEDIUM,
    "sd3.5-medium": sd3.MEDIUM_35,
    "sd3.5-large": sd3.LARGE_35,
    "flux-schnell": flux.SCHNELL,
    "flux": flux.DEV,
    "chroma": chroma.ARCHITECTURE,
    "lumina": lumina.ARCHITECTURE,
    "hunyuan-image": hunyuan_image.ARCHITECTURE,
    "anima": anima.ARCHITECTURE,
}
DEFAULT: ArchitectureName = "sd1"
"""The architecture of recipes and files that name none."""


def of_tensors(names: Iterable[str]) -> ArchitectureName | None:
    """Return the architecture of a checkpoint with these tensors, or None."""
    text = "\n".join(names)
    for architecture, entry in reversed(ARCHITECTURES.items()):
        if all(re.search(pattern, text, re.MULTILINE) for pattern in entry.checkpoint_names):
            return architecture
    return None
