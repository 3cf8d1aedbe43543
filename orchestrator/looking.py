"""What lies in a folder of pictures: sizes, views, caption files, and what kind of LoRA that suggests."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from orchestrator.dataset import headers, naming
from orchestrator.errors import Problem, RecipeError

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
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.suffix.lower() in headers.ENDINGS)
    if not files:
        below = [one.name for one in sorted(folder.iterdir()) if one.is_dir() and not one.name.startswith(".")]
        hint = f"its folders are {', '.join(below[:5])}: name one of them, or see  dataset import" if below else ""
        raise RecipeError(
            Problem(str(folder), "holds no picture", hint or f"pictures end in {', '.join(sorted(headers.ENDINGS))}")
        )
    sizes: list[tuple[int, int]] = []
    problems: list[Problem] = []
    for path in files:
        try:
            header = headers.read(path)
        except headers.UnreadableError as error:
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
