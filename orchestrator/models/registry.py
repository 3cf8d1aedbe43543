"""All architectures, in the order of release.

Each is a module in ``bases``.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from typing import TYPE_CHECKING, Final, Literal

from orchestrator.models import bases
from orchestrator.models.architecture import Architecture

if TYPE_CHECKING:
    from collections.abc import Iterable

SMALL_BASE: Final = "krnk-small-base"
"""Name of the demo's small base model in metadata. No other program has a model of this size."""


def _read() -> dict[str, Architecture]:
    """Return every architecture by its name, in the order of release."""
    modules = [importlib.import_module(f"{bases.__name__}.{one.name}") for one in pkgutil.iter_modules(bases.__path__)]
    entries = [value for module in modules for value in vars(module).values() if isinstance(value, Architecture)]
    return {entry.name: entry for entry in sorted(entries, key=lambda entry: (entry.released, len(entry.checkpoint_names)))}


ARCHITECTURES = _read()
if TYPE_CHECKING:
    ArchitectureName = str
else:
    ArchitectureName = Literal[tuple(ARCHITECTURES)]
DEFAULT: ArchitectureName = "sd1"
"""The architecture of recipes and files that name none."""


def of_tensors(names: Iterable[str]) -> ArchitectureName | None:
    """Return the architecture of a checkpoint with these tensors, or None."""
    text = "\n".join(names)
    for architecture, entry in reversed(ARCHITECTURES.items()):
        if all(re.search(pattern, text, re.MULTILINE) for pattern in entry.checkpoint_names):
            return architecture
    return None
