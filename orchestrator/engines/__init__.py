"""The engines by the names that recipes use."""

from __future__ import annotations

from orchestrator.engines.embedded import engine as embedded_engine
from orchestrator.engines.protocol import Engine
from orchestrator.engines.sdscripts import engine as sdscripts_engine

__all__ = ["ENGINES", "Engine", "get"]

ENGINES: dict[str, Engine] = {sdscripts_engine.NAME: sdscripts_engine, embedded_engine.NAME: embedded_engine}


def get(name: str) -> Engine:
    """Return the engine that ``recipe.engine`` names (validated)."""
    return ENGINES[name]
