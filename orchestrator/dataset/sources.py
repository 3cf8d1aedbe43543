"""Scan the source folders of a dataset for originals."""

from __future__ import annotations

import contextlib
import glob
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from orchestrator.dataset import image_headers, naming
from orchestrator.errors import Problem, counted, near_miss

if TYPE_CHECKING:
    from orchestrator.recipe import Dataset, Source, Validation

_COMPANIONS: Final = frozenset({".txt", ".caption", ".npz", ".json", ".toml", ".md", ".csv", ".ini", ".db"})
_MAGIC: Final = re.compile(r"[*?\[]")


@dataclass(frozen=True, slots=True)
class Original:
    """One image of a source.

    ``role`` is its name in keys and manifests: source and file, without a path of this machine.
    """

    role: str
    path: Path


@dataclass(frozen=True, slots=True)
class OriginalGroup:
    """Originals that share words and settings.

    They are one source, or one folder of a source that is read unchanged.
    """

    source: str
    originals: tuple[Original, ...]
    class_tokens: str
    trigger: str
    tags: tuple[str, ...]
    repeats: int
    flip: bool
    explicit_flip: bool | None
    """Flips as set by the recipe or the folder's name; None if neither sets them."""
    folder: str = ""
    """Name of the folder that is read unchanged; empty for images to downscale."""


@dataclass(frozen=True, slots=True)
class Ignored:
    """File or folder that is not read, the reason, and the remedy."""

    path: Path
    why: str
    hint: str


@dataclass(slots=True)
class SourceScan:
    """Result of a scan."""

    groups: list[OriginalGroup] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    ignored: list[Ignored] = field(default_factory=list)


def scan(dataset: Dataset, root: Path) -> SourceScan:
    """Return the images of all sources, in the recipe's order."""
    result = SourceScan()
    for name, source in dataset.sources.items():
        match source.reading:
            case "pictures":
                _images(result, dataset, name, source, root)
            case "charframework":
                _charframework(result, dataset, name, source, root)
            case "kohya":
                _kohya(result, dataset, name, source, root)
    return result


def source_files(dataset: Dataset, root: Path) -> list[tuple[str, Path]]:
    """Return (role, path) of every file that a build reads."""
    result: list[tuple[str, Path]] = []
    for group in scan(dataset, root).groups:
        source = dataset.sources[group.source]
        for original in group.originals:
            result.append((original.role, original.path))
            text = original.path.with_suffix(source.caption_files)
            if source.captions != "fixed" and text.is_file():
                result.append((original.role.removesuffix(original.path.suffix) + source.caption_files, text))
    if dataset.tagger_model and any(source.captions == "tagger" for source in dataset.sources.values()):
        model = root / dataset.tagger_model
        result += [("tagger/model", model), ("tagger/tags", model.with_name("selected_tags.csv"))]
    return result


def key_params(dataset: Dataset, validation: Validation | None = None) -> dict[str, Any]:
    """Return the dataset's values as JSON for a key, with its held-out images.

    Without the folders of images, as role and content identify them.
    """
    params: dict[str, Any] = dataset.model_dump(mode="json")
    for source in params["sources"].values():
        images = Path(source.pop("images"))
        if source["reading"] == "charframework":
            source["images"] = images.name  # it contains the repeats: 4_krnk
    if validation is not None:
        params["held_out"] = validation.choice()
    return params


def _images(result: SourceScan, dataset: Dataset, name: str, source: Source, root: Path) -> None:
    where = f"dataset.sources.{name}.images"
    if _MAGIC.search(source.images) and not (root / source.images).is_dir():
        start = root / _MAGIC.split(source.images)[0].rpartition("/")[0]
        paths = sorted(Path(path) for path in glob.glob(str(root / source.images), recursive=True))  # noqa: PTH207 - ** and order
        files = [path for path in paths if not path.is_dir()]
    else:
        start = root / source.images
        if not start.is_dir():
            result.problems.append(_missing(where, source, root, "images"))
            return
        files = _entries(result, start, where)
        for folder in _entries(result, start, where, folders=True):
            inside = sum(path.suffix.lower() in image_headers.ENDINGS for path in _entries(result, folder, where))
            if inside:
                why = f"is ignored, a subfolder with {counted(inside, 'image')}"
                result.ignored.append(Ignored(folder, why, f'to read it, too: {where} = "{source.images}/**/*"'))
    originals = _originals(result, name, start, files)
    if not originals:
        result.problems.append(
            Problem(where, f"no images in {source.images}", f"images end in {', '.join(sorted(image_headers.ENDINGS))}")
        )
        return
    class_tokens = source.class_tokens or source.trigger
    repeats = source.repeats or dataset.repeats
    flip = dataset.flip_aug if source.flip is None else source.flip
    result.groups.append(OriginalGroup(name, originals, class_tokens, source.trigger, source.tags, repeats, flip, source.flip))


def _charframework(result: SourceScan, dataset: Dataset, name: str, source: Source, root: Path) -> None:
    repeats, _ = naming.repeats((root / source.images).name)
    for folder, originals in _folders(result, name, source, root):
        words = naming.charframework(folder)
        flip = words.flip if source.flip is None else source.flip
        group = OriginalGroup(
            source=name,
            originals=originals,
            class_tokens=source.class_tokens or words.class_tokens,
            trigger=source.trigger or words.trigger,
            tags=source.tags or words.tags,
            repeats=source.repeats or repeats or dataset.repeats,
            flip=dataset.flip_aug if flip is None else flip,
            explicit_flip=flip,
            folder=folder,
        )
        result.groups.append(group)


def _kohya(result: SourceScan, dataset: Dataset, name: str, source: Source, root: Path) -> None:
    for folder, originals in _folders(result, name, source, root):
        repeats, words = naming.repeats(folder)
        where = f"{source.images}/{folder}"
        if repeats is None:
            what = "has no number of repeats in front; sd-scripts ignores it"
            result.problems.append(Problem(where, what, f"name it 1_{folder}, or move it away"))
            continue
        if repeats < 1:
            why = "is ignored, as by sd-scripts: its name has 0 repeats"
            result.ignored.append(Ignored(root / where, why, f"to train on it, name it 1_{words}"))
            continue
        flip = dataset.flip_aug if source.flip is None else source.flip
        class_tokens = source.class_tokens or words
        group = OriginalGroup(
            source=name,
            originals=originals,
            class_tokens=class_tokens,
            trigger=source.trigger,
            tags=source.tags,
            repeats=source.repeats or repeats,
            flip=flip,
            explicit_flip=source.flip,
            folder=folder,
        )
        result.groups.append(group)


def _folders(result: SourceScan, name: str, source: Source, root: Path) -> list[tuple[str, tuple[Original, ...]]]:
    """Return the folders with images in a source's folder, by name."""
    where = f"dataset.sources.{name}.images"
    start = root / source.images
    if not start.is_dir():
        result.problems.append(_missing(where, source, root, "folders"))
        return []
    folders = []
    for path in _entries(result, start, where):
        if path.suffix.lower() in image_headers.ENDINGS:
            result.ignored.append(Ignored(path, "is ignored: it is beside the folders of images", "move it into one of them"))
    for folder in _entries(result, start, where, folders=True):
        originals = _originals(result, name, start, _entries(result, folder, where))
        if originals:
            folders.append((folder.name, originals))
    if not folders:
        result.problems.append(Problem(where, f"no folder with images in {source.images}", "it contains folders of images"))
    return folders


def _missing(where: str, source: Source, root: Path, what: str) -> Problem:
    """Return the problem of a source without its folder, with the near miss beside it."""
    folder, beside = root / source.images, list[str]()
    with contextlib.suppress(OSError):
        beside = sorted(path.name for path in folder.parent.iterdir() if path.is_dir())
    return Problem(
        where, f"no folder {source.images}{near_miss(folder.name, beside)}", f"put the {what} there, or change {where}"
    )


def _entries(result: SourceScan, folder: Path, where: str, *, folders: bool = False) -> list[Path]:
    """Return the folders, or the other entries, of ``folder``.

    By name, with broken links.
    """
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() == folders and not path.name.startswith("."))
    except OSError as error:
        result.problems.append(Problem(where, f"{folder} cannot be read: {error.strerror}", "fix its permissions"))
        return []


def _originals(result: SourceScan, name: str, start: Path, files: list[Path]) -> tuple[Original, ...]:
    originals = []
    for path in files:
        if path.suffix.lower() in image_headers.ENDINGS:
            originals.append(Original(f"{name}/{path.relative_to(start).as_posix()}", path))
        elif path.suffix.lower() not in _COMPANIONS:
            hint = f"save it as one of {', '.join(sorted(image_headers.ENDINGS))}"
            result.ignored.append(Ignored(path, "is ignored: not an image by its ending", hint))
    return tuple(originals)
