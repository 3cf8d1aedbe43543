"""Check the forms of model files: pickles, shards, indexes, folders.

The loaders of the trainer take some of them only.

Source: load_* of library/*_utils.py and safetensors_utils.py, sd-scripts v0.10.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.errors import Problem
from orchestrator.models.architecture import ANYTHING, TENSORS
from orchestrator.models.registry import ARCHITECTURES
from orchestrator.weights.io import pickle_scan, shards

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.recipe import Recipe

_UNPICKLED = {
    TENSORS: "sd-scripts unpickles its tensors only (weights_only, from torch 2.6 on)",
    ANYTHING: "sd-scripts unpickles it whole (weights_only=False), and so would run code in it",
}


@dataclass(frozen=True, slots=True)
class _Slot:
    """The forms that one key takes."""

    pickles: str = ""
    shards: tuple[int, ...] | None = ()

    def joins(self, count: int) -> bool:
        """Return whether the loader joins so many shards."""
        return self.shards is None or count in self.shards


def _slot(recipe: Recipe, key: str) -> _Slot:
    entry = ARCHITECTURES[recipe.base.architecture]
    slots = {f"base.files.{file.option}": _Slot(file.pickles) for file in entry.files}
    slots |= {"base.checkpoint": _Slot(entry.pickles, entry.shards), "base.vae": _Slot(entry.vae_pickles)}
    return slots.get(key, _Slot(TENSORS))


def problems(where: str, key: str, path: Path, recipe: Recipe) -> list[Problem]:
    """Return the problems of a form that the loader of a key does not take.

    Missing shards are problems, too.

    Args:
        where: for the message: key and name.
        key: base.checkpoint, base.vae, base.files.NAME or network.weights.
        path: an existing file or folder.
        recipe: the recipe that names it.
    """
    slot, title = _slot(recipe, key), ARCHITECTURES[recipe.base.architecture].title
    if path.is_dir():
        return _folder(where, path)
    if path.name.endswith(shards.INDEX):
        return [_index(where, key, path, slot)]
    parts = shards.of(path)
    if len(parts) > 1 and not slot.joins(len(parts)):
        takes = f"{slot.shards[0]} shards, or one file" if slot.shards else "one file"
        what = f"is one of {len(parts)} shards; the loader of {title} takes {takes}"
        return [Problem(where, what, "name the model as one .safetensors, in ComfyUI's or the author's layout")]
    if missing := [part.name for part in parts if not part.is_file()]:
        return [
            Problem(where, f"lacks {len(missing)} of {len(parts)} shards beside it: {', '.join(missing)}", "download them")
        ]
    if path != parts[0]:
        return [
            Problem(where, f"is not the first of {len(parts)} shards", f"name {parts[0].name}: its loader finds the others")
        ]
    if path.suffix.lower() in pickle_scan.ENDINGS and not slot.pickles and recipe.engine == "sd-scripts":
        what = f"is a pickle; the loader of {title} takes .safetensors only"
        return [Problem(where, what, "name a .safetensors of the same model")]
    return []


def _index(where: str, key: str, path: Path, slot: _Slot) -> Problem:
    parts = shards.indexed(path)
    if not parts:
        return Problem(where, "is not an index of shards, nor a model file", "name a .safetensors")
    what = f"is an index of {len(parts)} shards, which sd-scripts does not read"
    if slot.joins(len(parts)) and shards.of(parts[0]) == parts:
        return Problem(where, what, f"set {key} to the first of them, {parts[0].name}")
    return Problem(where, what, "name the model as one .safetensors, in ComfyUI's or the author's layout")


def _folder(where: str, folder: Path) -> list[Problem]:
    """Return missing shards and harmful pickles of a folder."""
    wrong: list[Problem] = []
    for index in sorted(folder.glob(f"**/*{shards.INDEX}")):
        if missing := [part.name for part in shards.indexed(index) if not part.is_file()]:
            what = f"lacks shards that {index.relative_to(folder)} names: {', '.join(missing)}"
            wrong.append(Problem(where, what, "download them"))
    for path in sorted(path for path in folder.rglob("*") if path.suffix.lower() in pickle_scan.ENDINGS and path.is_file()):
        try:
            calls = pickle_scan.strange(path)
        except ValueError:
            continue  # not a pickle: a tokenizer's .bin
        if calls:
            what = f"{path.relative_to(folder)} is a pickle that would call {', '.join(calls[:3])} when loaded"
            wrong.append(Problem(where, what, "do not load it; take a folder with .safetensors"))
    return wrong


def unpickled(key: str, recipe: Recipe) -> str:
    """Return the result of sd-scripts for a pickle as a key's file, or "".

    It is "" for another engine.
    """
    return _UNPICKLED.get(_slot(recipe, key).pickles, "") if recipe.engine == "sd-scripts" else ""
