"""``dataset import``: the [dataset] part of a recipe for pictures that exist already."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from orchestrator.dataset import image_headers, naming
from orchestrator.errors import Problem, RecipeError

if TYPE_CHECKING:
    from pathlib import Path

_UNFIT: Final = re.compile(r"[^A-Za-z0-9._+-]+")
_CAPTIONS: Final = (".txt", ".caption")
_SIZED: Final = re.compile(r".*_[fb]?(\d{2,4}|original)(_\d+x\d+)?")  # ``krnk girl_f0512``
_IMAGES: Final = ("img", "image", "images")  # what kohya's GUI makes beside ``reg``


@dataclass(frozen=True, slots=True)
class Part:
    """One source: the words that name it, the values of its table, and what is said of it in comments."""

    words: str
    table: dict[str, Any]
    said: tuple[str, ...]


def describe(folder: Path, root: Path, name: str = "") -> str:
    """Return TOML that describes ``folder`` as it is: a dataset with its sources, ready to be extended by a recipe.

    Args:
        folder: kohya's (holds folders named N_name, or ``img`` and ``reg`` with such folders), CharFramework's (``4_krnk``,
            holds folders such as ``krnk girl_f0512``), plain pictures, or folders of plain pictures.
        root: the project folder; sources are written relative to it where they lie below.
        name: of the dataset; default: from the folder's name.

    Raises:
        RecipeError: no such folder, or nothing in it that can be trained on.
    """
    if not folder.is_dir():
        raise RecipeError(Problem(str(folder), "is no folder", "python -m orchestrator dataset import FOLDER"))
    parts = _parts(folder, root)
    if not parts:
        hint = "kohya's holds folders named N_name, CharFramework's folders such as krnk girl_f0512"
        raise RecipeError(Problem(str(folder), "holds no picture and no folder of pictures", hint))
    names = [_name(name or part.words) for part in parts] if len(parts) == 1 else [_name(part.words) for part in parts]
    dataset = _name(name or naming.repeats(folder.resolve().name)[1])
    lines = [f"# {dataset}, as it lies in {_shown(folder, root)}.", *(f"# {line}" for part in parts for line in part.said)]
    lines += ["", "[dataset]", f'name = "{dataset}"']
    for key, part in zip(_different(names), parts, strict=True):
        lines += ["", f"[dataset.sources.{key if re.fullmatch(r'[A-Za-z0-9_-]+', key) else json.dumps(key)}]"]
        lines += [f"{word} = {json.dumps(value, ensure_ascii=False)}" for word, value in part.table.items()]
    return "\n".join([*lines, ""])


def _parts(folder: Path, root: Path) -> list[Part]:
    """Return the sources that a folder is made of."""
    inside = {path.name: path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith(".")}
    images = next((inside[name] for name in _IMAGES if name in inside and numbered(inside[name])), None)
    if images is not None:
        parts = [kohya(images, root, regularization=False)]
        regularization = inside.get("reg")
        return (
            [*parts, kohya(regularization, root, regularization=True)]
            if regularization and numbered(regularization)
            else parts
        )
    own = _pictures(folder)
    with_pictures = [path for path in inside.values() if _pictures(path)]
    named = naming.repeats(folder.resolve().name)[0] is not None
    if with_pictures and (named or all(_SIZED.fullmatch(path.name) for path in with_pictures)):
        return [_charframework(folder, root, with_pictures)]
    if numbered(folder):
        return [kohya(folder, root, regularization=False)]
    return [_plain(path, root) for path in ([folder] if own else []) + with_pictures]


def numbered(folder: Path) -> list[Path]:
    """Return the folders of pictures named N_name in a folder."""
    return [path for path in sorted(folder.iterdir()) if path.is_dir() and naming.repeats(path.name)[0] and _pictures(path)]


def kohya(folder: Path, root: Path, *, regularization: bool) -> Part:
    """Return the source that a folder with ``numbered`` folders is; its words are those of the first."""
    chosen = numbered(folder)
    words = [naming.repeats(path.name)[1] for path in chosen]
    # A picture without a caption is trained with its folder's words: captions = "files" keeps that.
    ending = _ending([file for path in chosen for file in _pictures(path)]) or ".txt"
    table = _table(folder, root, "kohya") | {"captions": "files"} | ({} if ending == ".txt" else {"caption_files": ending})
    if regularization:
        table["regularization"] = True
    else:
        table["trigger"] = words[0].partition(" ")[0]
    if len(set(words)) == 1:
        table["class_tokens"] = words[0]
    others = [path for path in sorted(folder.iterdir()) if path.is_dir() and path not in chosen and _pictures(path)]
    said = [f"{path.name}: {len(_pictures(path))} pictures" for path in chosen]
    for path in others:
        repeats, own = naming.repeats(path.name)
        why = "it says 0 repeats; to train on it," if repeats is not None else "it says no number of repeats; move it away, or"
        said.append(f"{path.name} is not read: {why} name it 1_{own}")
    return Part(folder.name if regularization else words[0].partition(" ")[0], table, tuple(said))


def _charframework(folder: Path, root: Path, chosen: list[Path]) -> Part:
    captions = _captions([file for path in chosen for file in _pictures(path)])
    said = [f"{path.name}: {len(_pictures(path))} pictures" for path in chosen]
    words = naming.repeats(folder.resolve().name)[1]
    return Part(words, _table(folder, root, "charframework") | captions, tuple(said))


def _plain(folder: Path, root: Path) -> Part:
    files = _pictures(folder)
    words = naming.repeats(folder.resolve().name)[1]
    table = _table(folder, root, "pictures") | _captions(files) | {"trigger": words.partition(" ")[0], "class_tokens": words}
    return Part(words, table, (f"{folder.resolve().name}: {len(files)} pictures; its trigger is a guess",))


def _table(folder: Path, root: Path, reading: str) -> dict[str, Any]:
    return {"images": _shown(folder, root)} | ({} if reading == "pictures" else {"reading": reading})


def _shown(folder: Path, root: Path) -> str:
    path = folder.resolve()
    return path.relative_to(root.resolve()).as_posix() if path.is_relative_to(root.resolve()) else path.as_posix()


def _captions(files: list[Path]) -> dict[str, Any]:
    """Return where captions come from: files if most pictures have one, else the view if most names state one, else fixed."""
    ending = _ending(files)
    if ending and 2 * sum(path.with_suffix(ending).is_file() for path in files) > len(files):
        return {"captions": "files"} | ({} if ending == ".txt" else {"caption_files": ending})
    return {} if 2 * sum(naming.view(path.stem) is not None for path in files) > len(files) else {"captions": "fixed"}


def _ending(files: list[Path]) -> str:
    """Return the ending of most caption files; empty without any."""
    endings = Counter(ending for path in files for ending in _CAPTIONS if path.with_suffix(ending).is_file())
    return endings.most_common(1)[0][0] if endings else ""


def _pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file() and path.suffix.lower() in image_headers.ENDINGS)


def _name(words: str) -> str:
    return _UNFIT.sub("-", words).strip("-._+") or "dataset"


def _different(names: list[str]) -> list[str]:
    """Return the names, each once: a second ``krnk`` is ``krnk-2``."""
    return [
        name if name not in names[:place] else f"{name}-{names[:place].count(name) + 1}" for place, name in enumerate(names)
    ]
