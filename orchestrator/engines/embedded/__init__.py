"""The embedded engine, for CPUs, and the base model that ships with it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

EMBEDDED_BASE: Final = Path(__file__).resolve().parent / "base"
"""The shipped base model, a folder in Diffusers layout. Recipes name it ``embedded``."""
SMALL_BASE_SUBJECTS: Final = frozenset({"krnk", "tyank", "krnksf", "tyankps", "krnksf_tyankps"})
"""The shipped subjects. Its world was drawn for them: their looks and clothes are ones that it knows."""
