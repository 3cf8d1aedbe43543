"""The examples in docstrings."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from typing import TYPE_CHECKING

from orchestrator import weights
from weights_samples import lora

if TYPE_CHECKING:
    from pathlib import Path


def test_the_examples_of_every_module_are_true(tmp_path: Path) -> None:
    names = [module.name for module in pkgutil.walk_packages(weights.__path__, "orchestrator.weights.")]
    attempted = 0
    for name in ("orchestrator.weights", *names):
        examples = {"EXAMPLE": lora(tmp_path / "example.safetensors"), "OUTPUT": tmp_path / "output.safetensors"}
        result = doctest.testmod(importlib.import_module(name), extraglobs=examples)
        assert result.failed == 0, name
        attempted += result.attempted
    assert attempted >= 12
