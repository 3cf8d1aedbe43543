"""What planning asks about the world: where models are, what files contain, which version an engine has.

Digests are remembered by (path, size, mtime_ns, inode), so that a 4 GB base model is read once. Reading changes nothing;
``save`` is called by a run.
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
from orchestrator.plan.step import Source
from orchestrator.system import allowlist
from orchestrator.system.digests import Digests, canonical_json
from orchestrator.system.parse_cache import ParseCache

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
    "models/Lora",
    "models/loras",
)


MANY = 20_000  # files whose digests are kept


@dataclass(frozen=True, slots=True)
class Counts:
    """What planning has to know of a dataset: pictures in the built folders and the most they take, batches, any problem."""

    images: int
    batches_per_epoch: int
    sound: bool
    disk_bytes: int
    largest: tuple[int, ...]
    """Width, height and batch size of the largest bucket of the largest resolution class; empty without pictures."""


class ProjectInputs:
    """``Inputs`` of this machine."""

    def __init__(self, root: Path, digests: Digests, folders: Sequence[Path] = ()) -> None:
        """Look for pictures below ``root`` and for models below ``root`` and ``folders``."""
        self.root = root
        self.digests = digests
        self._folders = (root, *(root / name for name in MODEL_FOLDERS), *folders)
        self._folders += tuple(folder / name.partition("/")[2] for folder in folders for name in MODEL_FOLDERS if "/" in name)
        self._versions: dict[str, str] = {}
        self._pictures: dict[str, tuple[Source, ...]] = {}
        self._counts: dict[str, Counts] = {}
        self._datasets: dict[str, list[Any]] = {}
        self._layouts: dict[str, Layout] = {}
        self.problems: list[Problem] = []
        self._cache = ParseCache(str(root), "pictures and models")
        self._kept: dict[str, Any] | None = None

    def recall(self) -> None:
        """Take up what an earlier command has found: digests, image headers, datasets."""
        if self._kept is None:
            self._kept = self._cache.get()
            with contextlib.suppress(LookupError, TypeError, ValueError):
                self.digests.add(self._kept["digests"])
                image_headers.load_cache(self._kept["headers"])

    def remember(self) -> None:
        """Keep what this command has read for the next one, in the user's cache."""
        if self._kept is None:
            return
        now: dict[str, dict[str, Any]] = {
            "digests": self.digests.used,
            "headers": image_headers.dump_cache(),
            "datasets": self._datasets,
        }
        both = {name: {**self._kept.get(name, {}), **said} for name, said in now.items()}
        if both != self._kept:
            few = all(len(said) < MANY for said in both.values())  # what is gone or has changed is left behind now and then
            self._cache.put(both if few else now)

    def pictures(self, recipe: Recipe) -> Sequence[Source]:
        """Return every original of the recipe's dataset with its digest; problems are kept in ``problems``."""
        self.recall()
        asked = recipe.dataset.model_dump_json()
        if asked not in self._pictures:
            found: list[Source] = []
            try:
                for role, path in source_files(recipe.dataset, self.root):
                    found.append(Source(role, path, self.digests.of(path)))
            except OrchestratorError as error:
                self.problems += [problem for problem in error.problems if problem not in self.problems]
            except OSError as error:
                self.problems.append(Problem(str(error.filename), f"cannot be read: {error.strerror}"))
            self._pictures[asked] = tuple(found)
        return self._pictures[asked]

    def counted(self, recipe: Recipe) -> Counts:
        """Return how many images a recipe trains on; remembered by the dataset's settings and the content of its files."""
        asked = recipe.dataset.model_dump_json()
        if asked not in self._counts:
            real = {folder: os.path.realpath(folder) for folder in {source.path.parent for source in self.pictures(recipe)}}
            files = [
                [
                    source.role,
                    source.digest,
                    os.path.realpath(source.path) if source.path.is_symlink() else real[source.path.parent],
                ]
                for source in self.pictures(recipe)
            ]
            key = hashlib.sha256(canonical_json([asked, files])).hexdigest()
            kept = (self._kept or {}).get("datasets", {}).get(key)
            if kept is None:
                layout = self.layout(recipe)
                seen = predict_batches(layout, recipe.dataset)
                sound = not dataset_problems(layout, recipe.dataset, self.root)
                largest = [*seen.largest.size, seen.largest.batch_size] if seen.largest else []
                kept = [seen.images, seen.batches_per_epoch, sound, dataset_disk_bytes(layout), largest]
            if not self.problems:
                self._datasets[key] = kept
            images, batches, sound, disk_bytes, largest = kept
            self._counts[asked] = Counts(images, batches, sound, disk_bytes, tuple(largest))
        return self._counts[asked]

    def layout(self, recipe: Recipe) -> Layout:
        """Return the training folders that a recipe's pictures become; recipes of one dataset share the answer."""
        self.recall()
        asked = recipe.dataset.model_dump_json()
        if asked not in self._layouts:
            self._layouts[asked] = make_layout(recipe.dataset, self.root)
        return self._layouts[asked]

    def find(self, name: str) -> Path | None:
        """Return where a model file or folder lies, or None. ``embedded`` is the base this project ships."""
        if name == "embedded":
            return EMBEDDED_BASE if EMBEDDED_BASE.is_dir() else None
        candidates = [Path(name).expanduser()] if Path(name).is_absolute() or name.startswith("~") else []
        candidates += [folder / name for folder in self._folders]
        return next((path for path in candidates if path.exists()), None)

    def searched(self) -> list[Path]:
        """Return the folders in which models are looked for."""
        return [folder for folder in self._folders if folder.is_dir()]

    def file(self, role: str, name: str, sha256: str) -> Source:
        """Return a model file or folder of templates with its digest; where it is missing, with the stated one, or its name.

        Templates that nobody gave are not read: ``preflight`` refuses them, and a folder may be as large as the disk.
        """
        path = self.find(name)
        if path is None:
            return Source(role, Path(name), sha256 or f"missing:{name}")
        if role == "templates" and not allowlist.is_allowed(path.resolve(), self.root):
            return Source(role, path, f"outside:{name}")
        return Source(role, path, self.digests.of(path))

    def engine(self, name: str) -> str:
        """Return an engine's version, asked once."""
        if name not in self._versions:
            self._versions[name] = engines.get(name).version()
        return self._versions[name]
