"""All architectures. A new one is a module and an entry here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from orchestrator.models import sd1, sdxl

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orchestrator.models.architecture import Architecture

ArchitectureName = Literal["sd1", "sdxl"]
ARCHITECTURES: dict[ArchitectureName, Architecture] = {"sd1": sd1.ARCHITECTURE, "sdxl": sdxl.ARCHITECTURE}
_DEFAULT: ArchitectureName = "sd1"


def of_modules(modules: Iterable[str]) -> ArchitectureName:
    """Return the architecture that a LoRA's module names belong to."""
    names = [module.replace(".", "_") for module in modules]
    for architecture, entry in ARCHITECTURES.items():
        if entry.own_names is not None and any(entry.own_names.search(name) for name in names):
            return architecture
    return _DEFAULT
