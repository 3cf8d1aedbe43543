"""``dataset import``: the [dataset] part of a recipe for pictures that exist already, so that people come with what they have."""

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
    numbered = {part: naming.repeats(part) for part in parts}
    lines: list[str] = []
    if not parts:
        kind, files = "pictures", own
        _, words = naming.repeats(folder.name)
    elif all(repeats for repeats, _ in numbered.values()):
        kind, files = "kohya", [path for pictures in parts.values() for path in pictures]
        words = next(iter(numbered.values()))[1]
        lines += [f"# {part}: {len(pictures)} pictures, {numbered[part][0]} repeats" for part, pictures in parts.items()]
    else:
        kind, files = "charframework", [path for pictures in parts.values() for path in pictures]
        words = naming.charframework(next(iter(parts))).class_tokens
        lines += [f"# {part}: {len(pictures)} pictures" for part, pictures in parts.items()]
    left = [f"# not read: {part} has no number of repeats in front" for part, (repeats, _) in numbered.items() if not repeats]
    if kind == "kohya" or (parts and own):
        lines += [f"# not read: {len(own)} pictures beside the folders"] if own else []
    elif kind == "charframework" and any(repeats for repeats, _ in numbered.values()):
        lines += left
    return _toml(folder, root, _name(name or naming.repeats(folder.name)[1]), kind, words, files, lines)


def _toml(folder: Path, root: Path, name: str, kind: str, words: str, files: list[Path], lines: list[str]) -> str:
    trigger = words.partition(" ")[0]
    images = folder.resolve()
    shown = images.relative_to(root.resolve()).as_posix() if images.is_relative_to(root.resolve()) else images.as_posix()
    captions, ending = _captions(files)
    source = {"images": shown}
    if kind != "pictures":
        source["reading"] = kind
    if captions != "view":
        source["captions"] = captions
    if ending not in {"", ".txt"}:
        source["caption_files"] = ending
    if kind != "charframework":
        source |= {"trigger": trigger, "class_tokens": words}
    body = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in source.items()]
    head = [f"# {name}: {len(files)} pictures of {shown}, read as {kind}, captions from {captions}.", *lines]
    return "\n".join([*head, "", "[dataset]", f'name = "{name}"', "", f"[dataset.sources.{_key(name)}]", *body, ""])


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
