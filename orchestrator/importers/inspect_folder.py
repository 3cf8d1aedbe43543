"""Inspect a folder of images and suggest a source for it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from orchestrator.dataset import captions, image_headers, naming
from orchestrator.errors import Problem, RecipeError, counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

_CAPTION_ENDINGS: Final = (".txt", ".caption")
_TALL: Final = 1.3  # height / width from which an image shows a whole figure


@dataclass(frozen=True, slots=True)
class FolderSummary:
    """Images of one folder."""

    folder: Path
    stems: tuple[str, ...]
    sizes: tuple[tuple[int, int], ...]
    """(width, height) in pixels, upright."""
    texts: dict[str, int]
    """Number of caption files by ending."""
    views: dict[str, str]
    """f or b by stem, of the images named by view."""

    @property
    def widest(self) -> int:
        """Width of the widest image."""
        return max(width for width, _ in self.sizes)

    @property
    def framing(self) -> str:
        """Return b if the images show whole figures, else f."""
        if self.views:
            return "b" if "b" in self.views.values() else "f"
        tall = sum(height >= _TALL * width for width, height in self.sizes)
        return "b" if 2 * tall > len(self.sizes) else "f"

    def describe(self) -> str:
        """Return one line about the folder."""
        widths, heights = zip(*self.sizes, strict=True)
        texts = ", ".join(f"{count} with {ending}" for ending, count in self.texts.items()) or "no caption files"
        sides = f"{min(widths)}..{max(widths)} x {min(heights)}..{max(heights)}"
        return f"{self.folder}: {counted(len(self.stems), 'image')}, {sides}, {len(self.views)} named by view, {texts}"


def image_files(folder: Path) -> list[Path]:
    """Return the images of a folder by name, without hidden ones.

    A dataset does not read these: macOS writes ._a.png beside a.png.
    """
    files = (path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    return sorted(path for path in files if path.suffix.lower() in image_headers.ENDINGS)


def subfolders(folder: Path) -> list[Path]:
    """Return the folders in a folder by name, without hidden ones."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def count_caption_files(images: Iterable[Path]) -> Counter[str]:
    """Return the number of caption files of images, by ending."""
    return Counter(ending for path in images for ending in _CAPTION_ENDINGS if path.with_suffix(ending).is_file())


def inspect(folder: Path) -> FolderSummary:
    """Inspect a folder by its image headers and file names.

    No image is decoded.

    Raises:
        RecipeError: the folder does not exist, holds no image, or holds unreadable images.
    """
    if not folder.is_dir():
        raise RecipeError(Problem(str(folder), "is not a folder", "python -m orchestrator new SUBJECT --images DIR"))
    files = image_files(folder)
    if not files:
        below = [path.name for path in subfolders(folder)]
        hint = f"its folders are {', '.join(below[:5])}: choose one of them, or see  dataset import" if below else ""
        raise RecipeError(
            Problem(str(folder), "holds no images", hint or f"images end in {', '.join(sorted(image_headers.ENDINGS))}")
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
    views = {path.stem: view.framing for path in files if (view := naming.view(path.stem)) is not None}
    return FolderSummary(folder, tuple(path.stem for path in files), tuple(sizes), dict(count_caption_files(files)), views)


def suggest_type(summaries: Sequence[FolderSummary]) -> str:
    """Return the type of LoRA that the images suggest."""
    bodies = sum(summary.framing == "b" for summary in summaries)
    return "group" if bodies > 1 else ("body" if bodies else "face")


def explain_type(summaries: Sequence[FolderSummary]) -> str:
    """Return the reason for a suggested type."""
    named = any(summary.views for summary in summaries)
    return "by the file names (f: upper body, b: full body)" if named else "by the shape of the images"


def source_table(summary: FolderSummary, trigger: str, noun: str, root: Path, notes: list[str]) -> dict[str, Any]:
    """Return the table of one source: its folder, words and captions.

    Adds the reasons to ``notes``.

    Args:
        summary: the folder.
        trigger: its trigger words.
        noun: the class of its subject: character, style or object.
        root: the project folder.
        notes: what was decided, and why.
    """
    folder = summary.folder.resolve()
    inside = folder.is_relative_to(root.resolve())
    where = folder.relative_to(root.resolve()).as_posix() if inside else folder.as_posix()
    first = trigger.partition(",")[0]
    table: dict[str, Any] = {"images": where or ".", "trigger": trigger, "class_tokens": f"{first} {noun}"}
    ending = max(summary.texts, key=lambda ending: summary.texts[ending], default="")
    captioned = [stem for stem in summary.stems if ending and (folder / f"{stem}{ending}").is_file()]
    if 2 * len(summary.views) > len(summary.stems) >= 2 * len(captioned):
        notes.append(f"{trigger}: captions from the views in the file names")
        if captioned:
            notes.append(f"{trigger}: {_quoted(captioned)} have a {ending} file, which comes first")
        bare = [stem for stem in summary.stems if stem not in summary.views and stem not in captioned]
    elif captioned:
        table["captions"] = "files"
        notes.append(f"{trigger}: captions from the {ending} files")
        bare = [stem for stem in summary.stems if stem not in captioned]
    else:
        table["captions"] = "files"
        notes.append(f"{trigger}: every caption is the trigger word, until a .txt file lies beside an image")
        notes.append(f"{trigger}: images named f00 (from the front), b13 … would get captions by view")
        bare = []
    if captioned and ending != ".txt":
        table["caption_files"] = ending
    if bare:
        notes.append(f"{trigger}: the trigger word alone is the caption of {_quoted(bare)}")
    _check_captions([folder / f"{stem}{ending}" for stem in captioned])
    return table


def _check_captions(files: Sequence[Path]) -> None:
    """Raise RecipeError with every caption file that cannot be used."""
    problems: list[Problem] = []
    for file in files:
        try:
            captions.from_file(file)
        except captions.CaptionError as error:
            problems.append(Problem(str(file), str(error), error.hint))
    if problems:
        raise RecipeError(problems)


def _quoted(stems: Sequence[str]) -> str:
    """Return the first five stems in quotes, and the number of the others."""
    return ", ".join(f'"{stem}"' for stem in stems[:5]) + (f" and {len(stems) - 5} more" if len(stems) > 5 else "")
