"""The embedded engine, for CPUs, and the base model that ships with it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

EMBEDDED_BASE: Final = Path(__file__).resolve().parent / "base"
"""The shipped base model, a folder in Diffusers layout. Recipes name it ``embedded``."""
SMALL_BASE: Final = "krnk-small-base"
"""Its name in metadata. No other program has a model of this size."""
