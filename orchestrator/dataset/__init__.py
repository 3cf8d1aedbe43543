"""From a folder of pictures to exactly what the trainer will see.

Planning calls ``layout``, ``predict``, ``epochs``, ``disk_bytes``, ``problems`` and ``sources``, which read headers and texts
only; the step is ``python -m orchestrator.dataset build request.json`` (``main``); a trainer gets ``absolute_config``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.dataset.buckets import Prediction, epochs, predict
from orchestrator.dataset.config import absolute_config
from orchestrator.dataset.folders import Folder, Layout, Picture, layout
from orchestrator.dataset.manifest import SCHEMA
from orchestrator.dataset.originals import asked, sources
from orchestrator.dataset.preflight import disk_bytes, problems

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "SCHEMA",
    "WARM",
    "Folder",
    "Layout",
    "Picture",
    "Prediction",
    "absolute_config",
    "asked",
    "disk_bytes",
    "epochs",
    "layout",
    "main",
    "predict",
    "problems",
    "sources",
]

WARM = ("PIL.Image", "PIL.ImageCms", "PIL.PngImagePlugin", "PIL.JpegImagePlugin", "orchestrator.dataset.build")
"""What a warm process imports before it forks."""


def main(argv: Sequence[str]) -> int:
    """Run the program: ``build request.json``; return its exit code."""
    from orchestrator.dataset.program import run  # noqa: PLC0415 - the parent process plans and does not build

    return run(argv)
