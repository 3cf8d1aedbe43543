"""What lies in a folder of pictures: sizes, views, caption files, and what source and kind of LoRA that suggests."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from orchestrator.dataset import image_headers, naming
from orchestrator.errors import Problem, RecipeError
from orchestrator.system import allowlist

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_TALL: Final = 1.3  # height / width of half the pictures, from which on they show a whole figure


@dataclass(frozen=True, slots=True)
class Seen:
    """What lies in one folder of pictures."""

    folder: Path
    stems: tuple[str, ...]
    sizes: tuple[tuple[int, int], ...]
    """(width, height) in pixels, upright."""
    texts: dict[str, int]
    """Caption files by ending."""
    views: dict[str, str]
    """f or b, of the pictures whose name states a view."""

    @property
    def widest(self) -> int:
        """Width of the widest picture."""
        return max(width for width, _ in self.sizes)

    @property
    def framing(self) -> str:
        """Return b where the pictures show whole figures, by name or else by shape; f otherwise."""
        if self.views:
            return "b" if "b" in self.views.values() else "f"
        tall = sum(height >= _TALL * width for width, height in self.sizes)
        return "b" if 2 * tall > len(self.sizes) else "f"


def look(folder: Path) -> Seen:
    """Look at a folder: picture headers and file names; nothing is decoded or changed.

    Raises:
        RecipeError: no such folder, no picture in it, or pictures that cannot be read.
    """
    if not folder.is_dir():
        raise RecipeError(Problem(str(folder), "is no folder", "orchestrator new SUBJECT --images DIR"))
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.suffix.lower() in image_headers.ENDINGS)
    if not files:
        below = [one.name for one in sorted(folder.iterdir()) if one.is_dir() and not one.name.startswith(".")]
        hint = f"its folders are {', '.join(below[:5])}: name one of them, or see  dataset import" if below else ""
        raise RecipeError(
            Problem(str(folder), "holds no picture", hint or f"pictures end in {', '.join(sorted(image_headers.ENDINGS))}")
        )
    sizes: list[tuple[int, int]] = []
    problems: list[Problem] = []
    for path in files:
        try:
            header = image_headers.read(path)
        except image_headers.UnreadableError as error:
            problems.append(Problem(str(path), str(error), "replace it, or move it away"))
            continue
        sizes.append((header.width, header.height))
    if problems:
        raise RecipeError(problems)
    texts = Counter(ending for path in files for ending in (".txt", ".caption") if path.with_suffix(ending).is_file())
    views = {path.stem: view.framing for path in files if (view := naming.view(path.stem)) is not None}
    return Seen(folder, tuple(path.stem for path in files), tuple(sizes), dict(texts), views)


def kind_of(seen: Sequence[Seen]) -> str:
    """Return what the pictures are proposed to become: a face, a body, or a group of several bodies."""
    bodies = sum(one.framing == "b" for one in seen)
    return "group" if bodies > 1 else ("body" if bodies else "face")


def why(seen: Sequence[Seen], kind: str) -> str:
    """Return why a type is proposed."""
    named = any(one.views for one in seen)
    how = "by the file names (f: upper body, b: full body)" if named else "by the shape of the pictures"
    rule = {"face": "1000 steps, every picture 4 times", "body": "1200 steps, twice", "group": "1600 steps, once"}[kind]
    return f"{how}; {rule}, as the release did"


def says(one: Seen) -> str:
    """Return one line about a folder."""
    widths, heights = zip(*one.sizes, strict=True)
    captions = ", ".join(f"{count} with {ending}" for ending, count in one.texts.items()) or "no caption files"
    return (
        f"{one.folder}: {len(one.stems)} pictures, {min(widths)}..{max(widths)} x {min(heights)}..{max(heights)}, "
        f"{len(one.views)} named by view, {captions}"
    )


def source(one: Seen, trigger: str, root: Path, notes: list[str]) -> dict[str, Any]:
    """Return the table of one source: where, which words, and where its captions come from."""
    folder = one.folder.resolve()
    inside = folder.is_relative_to(root.resolve())
    where = folder.relative_to(root.resolve()).as_posix() if inside else allowlist.add(folder).as_posix()
    table: dict[str, Any] = {"images": where or ".", "trigger": trigger, "class_tokens": f"{trigger} character"}
    ending = max(one.texts, key=lambda ending: one.texts[ending], default="")
    written = [stem for stem in one.stems if ending and (folder / f"{stem}{ending}").is_file()]
    texts: dict[str, str] = {}
    if 2 * len(one.views) > len(one.stems) >= 2 * len(written):
        notes.append(f"{trigger}: captions from the views in the file names")
        if written:
            texts = _texts([folder / f"{stem}{ending}" for stem in written])
            notes.append(f"{trigger}: the {ending} files of {_named(written)} go into the recipe (texts)")
        bare = [stem for stem in one.stems if stem not in one.views and stem not in texts]
    elif written:
        table["captions"] = "files"
        if ending != ".txt":
            table["caption_files"] = ending
        notes.append(f"{trigger}: captions from the {ending} files")
        bare = [stem for stem in one.stems if stem not in written]
    else:
        table["captions"] = "fixed"
        notes.append(
            f"{trigger}: every caption is the trigger word; named f00 (from front), b13 … pictures get captions by view"
        )
        bare = []
    if bare:
        notes.append(f"{trigger}: the trigger word alone is the caption of {_named(bare)}")
    texts |= dict.fromkeys(bare, trigger)
    return table | ({"texts": texts} if texts else {})


def _texts(files: Sequence[Path]) -> dict[str, str]:
    """Return the captions in some files by name without ending; RecipeError names every file that has none."""
    from orchestrator.dataset import captions  # noqa: PLC0415 - only where there are both, names and texts

    texts: dict[str, str] = {}
    problems: list[Problem] = []
    for file in files:
        try:
            texts[file.stem] = captions.of_file(file) or ""
        except captions.CaptionError as error:
            problems.append(Problem(str(file), str(error), error.hint))
    if problems:
        raise RecipeError(problems)
    return texts


def _named(stems: Sequence[str]) -> str:
    """Return the first pictures of some, as a sentence names them."""
    return ", ".join(f'"{stem}"' for stem in stems[:5]) + (f" and {len(stems) - 5} more" if len(stems) > 5 else "")
