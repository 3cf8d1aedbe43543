"""Weight surgery on LoRA files: merge, resize, sweep, inspect, compare, convert and verify, one function each.

>>> from orchestrator import weights
>>> weights.adapter(weights.read_header(EXAMPLE)).family
'lora'
>>> report = weights.merge(EXAMPLE, OUTPUT, "FACE")
>>> report.preset, report.weights[:3]
('FACE', (0.0, 1.0, 1.0))
>>> weights.compare(EXAMPLE, EXAMPLE).cosine
1.0

Every verb takes paths (``on_arrays`` applies it to a state dict instead), writes by a temporary file and rename, and raises
RecipeError with all problems when a file is not what it should be.
Nothing imports torch; numpy is imported by what computes.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.verdict import Verdict as Verdict
    from orchestrator.weights.arrays import load_arrays as load_arrays
    from orchestrator.weights.arrays import on_arrays as on_arrays
    from orchestrator.weights.arrays import save_arrays as save_arrays
    from orchestrator.weights.combining import CombineReport as CombineReport
    from orchestrator.weights.combining import Ingredient as Ingredient
    from orchestrator.weights.combining import combine as combine
    from orchestrator.weights.comparing import Comparison as Comparison
    from orchestrator.weights.comparing import compare as compare
    from orchestrator.weights.converting import ConvertReport as ConvertReport
    from orchestrator.weights.converting import convert as convert
    from orchestrator.weights.files import Header as Header
    from orchestrator.weights.files import read_header as read_header
    from orchestrator.weights.inspecting import Inspection as Inspection
    from orchestrator.weights.inspecting import inspect as inspect
    from orchestrator.weights.merging import MergeReport as MergeReport
    from orchestrator.weights.merging import merge as merge
    from orchestrator.weights.metadata import Hashes as Hashes
    from orchestrator.weights.metadata import edit as edit
    from orchestrator.weights.metadata import hashes as hashes
    from orchestrator.weights.modules import Adapter as Adapter
    from orchestrator.weights.modules import adapter as adapter
    from orchestrator.weights.resizing import ResizeReport as ResizeReport
    from orchestrator.weights.resizing import resize as resize
    from orchestrator.weights.sweeping import Sweep as Sweep
    from orchestrator.weights.sweeping import sweep as sweep
    from orchestrator.weights.verifying import Verification as Verification
    from orchestrator.weights.verifying import verify as verify

_HOMES = {
    "arrays": ("load_arrays", "on_arrays", "save_arrays"),
    "combining": ("CombineReport", "Ingredient", "combine"),
    "comparing": ("Comparison", "compare"),
    "converting": ("ConvertReport", "convert"),
    "files": ("Header", "read_header"),
    "inspecting": ("Inspection", "inspect"),
    "merging": ("MergeReport", "merge"),
    "metadata": ("Hashes", "edit", "hashes"),
    "modules": ("Adapter", "adapter"),
    "resizing": ("ResizeReport", "resize"),
    "sweeping": ("Sweep", "sweep"),
    "verifying": ("Verdict", "Verification", "verify"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}
__all__ = sorted(_HOME)  # noqa: PLE0605 - one list of names, not two


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that reading a header does not import numpy."""
    if name not in _HOME:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value
