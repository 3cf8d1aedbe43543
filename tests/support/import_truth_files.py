"""Files and stand-ins that the programs of ``import_truth`` need to run."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from unittest import mock

from PIL import Image

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType


@dataclass(frozen=True, slots=True)
class Passed:
    """The options that a program passes to its trainer, and the subsets of its dataset configuration."""

    options: dict[str, Any]
    script: str
    subsets: list[dict[str, Any]] = field(default_factory=list)
    unsure: set[str] = field(default_factory=set)
    """Options that depend on settings that the file lacks."""


class _StandIns(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Modules that are not installed, with any attribute."""

    def __init__(self, names: str) -> None:
        self.names = set(names.split())

    def find_spec(self, name: str, *_: Any) -> importlib.machinery.ModuleSpec | None:
        wanted = any(name == each or name.startswith(f"{each}.") for each in self.names)
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if wanted else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return mock.MagicMock(name=spec.name, __path__=[], __spec__=spec)

    def exec_module(self, module: ModuleType) -> None:
        del module


def importable(checkout: Path, missing: str) -> None:
    """Make the modules of a checkout importable, with stand-ins for others."""
    sys.meta_path.insert(0, _StandIns(missing))
    sys.path.insert(0, str(checkout))


def images(folder: Path, caption: str, sizes: tuple[tuple[int, int], ...] = ((512, 512),) * 7) -> Path:
    """Draw small images with captions, and return their folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, size in enumerate(sizes):
        Image.new("RGB", size, (number, 0, 0)).save(folder / f"{number}.png")
        (folder / f"{number}{caption}").write_text("a cat", "utf-8")
    return folder
