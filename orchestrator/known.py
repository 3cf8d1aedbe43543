"""What planning asks about the world: where models are, what files contain, which version an engine has.

Digests are remembered by (path, size, mtime_ns, inode), so that a 4 GB base model is read once. Reading changes nothing;
``save`` is called by a run.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator import engines
from orchestrator.errors import OrchestratorError, Problem
from orchestrator.plan import Source, canonical

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.dataset import Layout, Prediction
    from orchestrator.recipe import Recipe

EMBEDDED_BASE = Path(__file__).resolve().parent / "embedded" / "base"
MODEL_FOLDERS = (
    "models",
    "models/Stable-diffusion",
    "models/checkpoints",
    "models/VAE",
    "models/vae",
    "models/Lora",
    "models/loras",
)


class Digests:
    """SHA-256 of files, remembered in one JSON file by (path, size, mtime_ns, inode)."""

    def __init__(self, memo: Path) -> None:
        """Read what is remembered in ``memo``; an unreadable memo is an empty one."""
        self._memo = memo
        self._changed = False
        self._known: dict[str, str] = {}
        with contextlib.suppress(OSError, ValueError):
            known = json.loads(memo.read_text("utf-8"))
            if isinstance(known, dict):
                self._known = {str(key): str(value) for key, value in known.items()}

    def of(self, path: Path) -> str:
        """Return the digest of a file, or of a folder: that of its files' names and digests. OSError if unreadable."""
        if path.is_dir():
            files = sorted(part for part in path.rglob("*") if part.is_file())
            return hashlib.sha256(canonical([[str(part.relative_to(path)), self.of(part)] for part in files])).hexdigest()
        stat = path.stat()
        key = f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}|{stat.st_ino}"
        if key not in self._known:
            with path.open("rb") as file:
                self._known[key] = hashlib.file_digest(file, "sha256").hexdigest()
            self._changed = True
        return self._known[key]

    def save(self) -> None:
        """Write what was learned, by rename; losing it costs time only."""
        if not self._changed:
            return
        self._changed = False
        draft = self._memo.with_name(f"{self._memo.name}.{os.getpid()}")
        with contextlib.suppress(OSError):
            draft.write_text(json.dumps(self._known, indent=0), "utf-8")
            draft.replace(self._memo)


class World:
    """``plan.Known`` of this machine."""

    def __init__(self, root: Path, digests: Digests, folders: Sequence[Path] = ()) -> None:
        """Look for pictures below ``root`` and for models below ``root`` and ``folders``."""
        self.root = root
        self.digests = digests
        self._folders = (root, *(root / name for name in MODEL_FOLDERS), *folders)
        self._folders += tuple(folder / name.partition("/")[2] for folder in folders for name in MODEL_FOLDERS if "/" in name)
        self._versions: dict[str, str] = {}
        self._pictures: dict[str, tuple[Source, ...]] = {}
        self._predicted: dict[str, Prediction] = {}
        self._layouts: dict[str, Layout] = {}
        self.problems: list[Problem] = []

    def pictures(self, recipe: Recipe) -> Sequence[Source]:
        """Return every original of the recipe's dataset with its digest; problems are kept in ``problems``."""
        from orchestrator import dataset  # noqa: PLC0415 - it may read image headers

        asked = recipe.dataset.model_dump_json()
        if asked not in self._pictures:
            found: list[Source] = []
            try:
                for role, path in dataset.sources(recipe.dataset, self.root):
                    found.append(Source(role, path, self.digests.of(path)))
            except OrchestratorError as error:
                self.problems += [problem for problem in error.problems if problem not in self.problems]
            except OSError as error:
                self.problems.append(Problem(str(error.filename), f"cannot be read: {error.strerror}"))
            self._pictures[asked] = tuple(found)
        return self._pictures[asked]

    def predicted(self, recipe: Recipe) -> Prediction:
        """Return how many images a recipe trains on, and in which classes; recipes of one dataset share the answer."""
        from orchestrator import dataset  # noqa: PLC0415

        asked = recipe.dataset.model_dump_json()
        if asked not in self._predicted:
            self._predicted[asked] = dataset.predict(self.layout(recipe), recipe.dataset)
        return self._predicted[asked]

    def layout(self, recipe: Recipe) -> Layout:
        """Return the training folders that a recipe's pictures become; recipes of one dataset share the answer."""
        from orchestrator import dataset  # noqa: PLC0415

        asked = recipe.dataset.model_dump_json()
        if asked not in self._layouts:
            self._layouts[asked] = dataset.layout(recipe.dataset, self.root)
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
        """Return a model file with its digest; where it is missing, with the digest the recipe states, or its name."""
        path = self.find(name)
        if path is None:
            return Source(role, Path(name), sha256 or f"missing:{name}")
        return Source(role, path, self.digests.of(path))

    def engine(self, name: str) -> str:
        """Return an engine's version, asked once."""
        if name not in self._versions:
            self._versions[name] = engines.get(name).version()
        return self._versions[name]
