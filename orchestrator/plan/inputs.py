"""Inputs of planning: models, images, digests, engine versions.

Digests, image headers and counts are cached between commands. Planning writes nothing: a command saves the cache.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator import engines
from orchestrator.dataset import image_headers
from orchestrator.dataset.buckets import predict_batches
from orchestrator.dataset.layout import make_layout
from orchestrator.dataset.problems import dataset_problems
from orchestrator.dataset.problems import disk_bytes as dataset_disk_bytes
from orchestrator.dataset.sources import source_files
from orchestrator.engines.embedded import EMBEDDED_BASE
from orchestrator.errors import OrchestratorError, Problem
from orchestrator.plan.step import StepSource
from orchestrator.recipe.training import SMALL
from orchestrator.system import allowlist
from orchestrator.system.digests import Digests, canonical_json
from orchestrator.system.parse_cache import ParseCache
from orchestrator.weights.io import shards

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.dataset.layout import Layout
    from orchestrator.recipe import Recipe

MODEL_FOLDERS = (
    "models",
    "models/Stable-diffusion",
    "models/checkpoints",
    "models/VAE",
    "models/vae",
    "models/diffusion_models",
    "models/unet",
    "models/text_encoders",
    "models/text_encoder",
    "models/clip",
    "models/Lora",
    "models/loras",
)


MANY = 20_000  # files whose digests are kept


@dataclass(frozen=True, slots=True)
class Counts:
    """Numbers of a dataset: images, batches, bytes, soundness."""

    images: int
    batches_per_epoch: int
    sound: bool
    disk_bytes: int
    largest: tuple[int, ...]
    """Width, height and batch size of the largest bucket of the largest resolution class. Empty without images."""


def _dataset_settings(recipe: Recipe) -> str:
    """Return all values that decide about the training folders, as text."""
    validation = recipe.training.validation
    held_out = validation.model_dump_json(exclude={"every_n_steps"}) if validation is not None else ""
    return recipe.dataset.model_dump_json() + held_out


class ProjectInputs:
    """``Inputs`` of one project on this machine."""

    def __init__(self, root: Path, digests: Digests, folders: Sequence[Path] = ()) -> None:
        """Read images below ``root`` and models below ``root`` and ``folders``."""
        self.root = root
        self.digests = digests
        self._folders = (root, *(root / name for name in MODEL_FOLDERS), *folders)
        self._folders += tuple(folder / name.partition("/")[2] for folder in folders for name in MODEL_FOLDERS if "/" in name)
        self._versions: dict[str, str] = {}
        self._images: dict[str, tuple[StepSource, ...]] = {}
        self._counts: dict[str, Counts] = {}
        self._datasets: dict[str, list[Any]] = {}
        self._layouts: dict[str, Layout] = {}
        self.problems: list[Problem] = []
        self._cache = ParseCache(str(root), "pictures and models")
        self._cached: dict[str, Any] | None = None

    def load_cache(self) -> None:
        """Load digests, image headers and counts of an earlier command."""
        if self._cached is None:
            self._cached = self._cache.get()
            with contextlib.suppress(LookupError, TypeError, ValueError):
                self.digests.add(self._cached["digests"])
                image_headers.load_cache(self._cached["headers"])

    def save_cache(self) -> None:
        """Save digests, image headers and counts for the next command."""
        if self._cached is None:
            return
        now: dict[str, dict[str, Any]] = {
            "digests": self.digests.used,
            "headers": image_headers.dump_cache(),
            "datasets": self._datasets,
        }
        both = {name: {**self._cached.get(name, {}), **values} for name, values in now.items()}
        if both != self._cached:
            few = all(len(values) < MANY for values in both.values())  # else drop entries of files that are gone
            self._cache.put(both if few else now)

    def images(self, recipe: Recipe) -> Sequence[StepSource]:
        """Return every original of the recipe's dataset with its digest.

        Unreadable files are added to ``problems``.
        """
        self.load_cache()
        settings_ = recipe.dataset.model_dump_json()
        if settings_ not in self._images:
            sources: list[StepSource] = []
            try:
                for role, path in source_files(recipe.dataset, self.root):
                    sources.append(StepSource(role, path, self.digests.of(path)))
            except OrchestratorError as error:
                self.problems += [problem for problem in error.problems if problem not in self.problems]
            except OSError as error:
                self.problems.append(Problem(str(error.filename), f"cannot be read: {error.strerror}"))
            self._images[settings_] = tuple(sources)
        return self._images[settings_]

    def counts(self, recipe: Recipe) -> Counts:
        """Return a dataset's numbers, cached by settings and content."""
        settings_ = _dataset_settings(recipe)
        if settings_ not in self._counts:
            real = {folder: os.path.realpath(folder) for folder in {source.path.parent for source in self.images(recipe)}}
            files = [
                [
                    source.role,
                    source.digest,
                    os.path.realpath(source.path) if source.path.is_symlink() else real[source.path.parent],
                ]
                for source in self.images(recipe)
            ]
            key = hashlib.sha256(canonical_json([settings_, files])).hexdigest()
            numbers = (self._cached or {}).get("datasets", {}).get(key)
            if numbers is None:
                layout = self.layout(recipe)
                predicted = predict_batches(layout, recipe.dataset)
                sound = not dataset_problems(layout, recipe.dataset, self.root)
                largest = [*predicted.largest.size, predicted.largest.batch_size] if predicted.largest else []
                numbers = [predicted.images, predicted.batches_per_epoch, sound, dataset_disk_bytes(layout), largest]
            if not self.problems:
                self._datasets[key] = numbers
            images, batches, sound, disk_bytes, largest = numbers
            self._counts[settings_] = Counts(images, batches, sound, disk_bytes, tuple(largest))
        return self._counts[settings_]

    def layout(self, recipe: Recipe) -> Layout:
        """Return the training folders of a recipe, computed once for each dataset."""
        self.load_cache()
        settings_ = _dataset_settings(recipe)
        if settings_ not in self._layouts:
            self._layouts[settings_] = make_layout(recipe.dataset, self.root, recipe.training.validation)
        return self._layouts[settings_]

    def find(self, name: str) -> Path | None:
        """Return the path of a model file or folder, or None.

        ``embedded`` is the base model of this project.
        """
        if name == SMALL:
            return EMBEDDED_BASE if EMBEDDED_BASE.is_dir() else None
        candidates = [Path(name).expanduser()] if Path(name).is_absolute() or name.startswith("~") else []
        candidates += [folder / name for folder in self._folders]
        return next((path for path in candidates if path.exists()), None)

    def model_folders(self) -> list[Path]:
        """Return the existing folders that are searched for models."""
        return [folder for folder in self._folders if folder.is_dir()]

    def file(self, role: str, name: str, sha256: str) -> StepSource:
        """Return a model file or folder of templates with its digest.

        The digest of a missing file is the stated one, or its name. Templates that are not on the allow-list are not read:
        ``preflight`` refuses them, and a folder may be as large as the disk.
        """
        path = self.find(name)
        if path is None:
            return StepSource(role, Path(name), sha256 or f"missing:{name}")
        if role == "templates" and not allowlist.is_allowed(path.resolve(), self.root):
            return StepSource(role, path, f"outside:{name}")
        if path.is_dir():
            return StepSource(role, path, self.digests.of(path))
        digests = [
            self.digests.of(part) for part in shards.of(path) if part.is_file()
        ]  # a missing one is refused before a run
        return StepSource(role, path, digests[0] if len(digests) == 1 else hashlib.sha256(canonical_json(digests)).hexdigest())

    def engine_version(self, name: str) -> str:
        """Return the version of an engine, computed once."""
        if name not in self._versions:
            self._versions[name] = engines.get(name).version()
        return self._versions[name]
