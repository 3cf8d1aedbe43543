"""``dataset import``: the [dataset] part of a recipe for pictures that exist already."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import TYPE_CHECKING, Final

from orchestrator.dataset import headers, naming
from orchestrator.errors import Problem, RecipeError

if TYPE_CHECKING:
    from pathlib import Path

_UNFIT: Final = re.compile(r"[^A-Za-z0-9._+-]+")
_CAPTIONS: Final = (".txt", ".caption")


def describe(folder: Path, root: Path, name: str = "") -> str:
    """Return TOML that describes ``folder`` as it is: a dataset with one source, ready to be extended by a recipe.

    Args:
        folder: kohya's (holds folders named N_name), CharFramework's (``4_krnk``, holds folders such as ``krnk girl_f0512``),
            or plain pictures.
        root: the project folder; the source is written relative to it where it lies below.
        name: of the dataset; default: from the folder's name.

    Raises:
        RecipeError: no such folder, or nothing in it that can be trained on.
    """
    if not folder.is_dir():
        raise RecipeError(Problem(str(folder), "is no folder", "python -m orchestrator dataset import FOLDER"))
    parts = {one.name: _pictures(one) for one in sorted(folder.iterdir()) if one.is_dir() and not one.name.startswith(".")}
    parts = {name_: pictures for name_, pictures in parts.items() if pictures}
    own = _pictures(folder)
    if not parts and not own:
        raise RecipeError(
            Problem(str(folder), "holds no picture and no folder of pictures", "kohya's holds folders named N_name")
        )
    numbered = {part: naming.repeats(part)[0] for part in parts}
    lines = [f"# {part}: {len(files)} pictures" for part, files in parts.items()]
    if parts and own:
        lines.append(f"# not read: {len(own)} pictures beside the folders")
    reading, words = _reading(folder, list(parts))
    if reading == "kohya":
        lines += [f"# not read: {part} has no number of repeats in front" for part, repeats in numbered.items() if not repeats]
        parts = {part: files for part, files in parts.items() if numbered[part]}
    files = [path for each in parts.values() for path in each] or own
    images = folder.resolve()
    shown = images.relative_to(root.resolve()).as_posix() if images.is_relative_to(root.resolve()) else images.as_posix()
    captions, ending = _captions(files)
    source = {"images": shown}
    if reading != "pictures":
        source["reading"] = reading
    if captions != "view":
        source["captions"] = captions
    if ending not in {"", ".txt"}:
        source["caption_files"] = ending
    if reading != "charframework":  # there the folders' names say it
        source |= {"trigger": words.partition(" ")[0], "class_tokens": words}
    name = _name(name or naming.repeats(folder.resolve().name)[1])
    head = [f"# {name}: {len(files)} pictures of {shown}, read as {reading}, captions from {captions}.", *lines]
    body = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in source.items()]
    return "\n".join([*head, "", "[dataset]", f'name = "{name}"', "", f"[dataset.sources.{_key(name)}]", *body, ""])


def _reading(folder: Path, parts: list[str]) -> tuple[str, str]:
    """Return how a folder is to be read, and the words of its name or of its first part's."""
    own, words = naming.repeats(folder.resolve().name)
    if not parts:
        return "pictures", words
    numbered = [words for repeats, words in map(naming.repeats, parts) if repeats]
    if numbered and own is None:  # CharFramework writes the number before the parent's name
        return "kohya", numbered[0]
    return "charframework", naming.charframework(parts[0]).class_tokens


def _captions(files: list[Path]) -> tuple[str, str]:
    """Return where captions come from: files if most pictures have one, else the view if most names state one, else fixed."""
    endings = Counter(ending for path in files for ending in _CAPTIONS if path.with_suffix(ending).is_file())
    if endings and 2 * endings.most_common(1)[0][1] > len(files):
        return "files", endings.most_common(1)[0][0]
    if 2 * sum(naming.view(path.stem) is not None for path in files) > len(files):
        return "view", ""
    return "fixed", ""


def _pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file() and path.suffix.lower() in headers.ENDINGS)


def _name(words: str) -> str:
    return _UNFIT.sub("-", words).strip("-._+") or "dataset"


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name)
