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


def test_the_documented_examples_are_true(tmp_path: Path) -> None:
    names_ = [f"orchestrator.weights.{found.name}" for found in pkgutil.iter_modules(weights.__path__)]
    tried = 0
    for name in ("orchestrator.weights", *names_):
        given = {"EXAMPLE": lora(tmp_path / "example.safetensors"), "OUTPUT": tmp_path / "output.safetensors"}
        result = doctest.testmod(importlib.import_module(name), extraglobs=given)
        assert result.failed == 0, name
        tried += result.attempted
    assert tried >= 8
