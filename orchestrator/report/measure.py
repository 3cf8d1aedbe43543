"""Program: norms, ranks and spectra of LoRA files, by block. ``python -m orchestrator.report.measure request.json``.

A request is a list of [file, result]; a result that cannot be made says why, and the others are made all the same.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

JSON = dict[str, Any]

SAMPLES = 16
"""A spectrum is sampled at so many places from the first singular value to the last."""
_FLOOR = 1e-6
_LARGEST_RANK = 160  # a LoHa of rank 32 is a product of rank 1024: its spectrum would take minutes


def main(argv: list[str]) -> int:
    """Measure every file of the request and return the exit code."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # one module per thread is faster; said before numpy is imported
    for source, result in json.loads(Path(argv[0]).read_text("utf-8")):
        target = Path(result)
        draft = target.with_name(f".{target.name}.part")
        draft.write_text(json.dumps(_told(Path(source))), "utf-8")
        draft.replace(target)
    return 0


def _told(path: Path) -> JSON:
    from orchestrator.errors import OrchestratorError  # noqa: PLC0415 - a child: imports where they are used

    try:
        return measure(path)
    except OrchestratorError as error:
        return {"error": str(error)}


def measure(path: Path) -> JSON:
    """Return {"blocks": {name: {modules, norm, zero, ranks: [least, median, most], spectrum: [log10 s/s0, …]}}}.

    ``spectrum`` is the mean over the block's modules, sampled at SAMPLES places; missing where the family has no low rank.
    """
    from statistics import median  # noqa: PLC0415

    from orchestrator.weights import inspecting, lowrank  # noqa: PLC0415
    from orchestrator.weights.files import Body, read_header  # noqa: PLC0415
    from orchestrator.weights.modules import adapter  # noqa: PLC0415

    found = adapter(read_header(path))
    with Body(found.header) as body:
        spectra = list(lowrank.each(lambda module: _spectrum(body, module, found.architecture), found.modules))
    said = inspecting.inspect(path).to_json()["blocks"]
    for name, block in said.items():
        here = [index for index, module in enumerate(found.modules) if (module.block or "other") == name]
        ranks = [rank for index in here if (rank := found.modules[index].rank) is not None]
        if ranks:
            block["ranks"] = [min(ranks), median(ranks), max(ranks)]
        curves = [curve for index in here if (curve := spectra[index])]
        if curves:
            block["spectrum"] = [round(sum(values) / len(curves), 3) for values in zip(*curves, strict=True)]
    return {"blocks": said}


def _spectrum(body: Any, module: Any, architecture: Any) -> list[float]:
    """Return log10 of the singular values over the first, sampled; [] where there are none or they cost too much."""
    import numpy as np  # noqa: PLC0415

    from orchestrator.weights import factors, lowrank, numbers  # noqa: PLC0415

    if not module.kind.low_rank or module.dora or (module.rank or 0) > _LARGEST_RANK or "loha" in str(module.kind):
        return []
    product = factors.product(module, numbers.load_module(body, module), architecture)
    values = lowrank.factorize(product.up, product.down, 1 / 100).values
    if not len(values) or values[0] <= 0:
        return []
    places = np.linspace(0, len(values) - 1, SAMPLES)
    ratios = np.maximum(values / values[0], _FLOOR)
    return [float(value) for value in np.interp(places, np.arange(len(values)), np.log10(ratios))]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
