"""Which files a dataset is made of: every source's pictures, found and given the words of their folder."""

from __future__ import annotations

import glob
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from orchestrator.dataset import image_headers, naming
from orchestrator.errors import Problem

if TYPE_CHECKING:
    from orchestrator.recipe import Dataset, Source

_COMPANIONS: Final = frozenset({".txt", ".caption", ".npz", ".json", ".toml", ".md", ".csv", ".ini", ".db"})
_MAGIC: Final = re.compile(r"[*?\[]")


@dataclass(frozen=True, slots=True)
class Original:
    """One picture of a source. ``role`` names it in keys and manifests: source and file, never a path of this machine."""

    role: str
    path: Path


@dataclass(frozen=True, slots=True)
class Group:
    """Pictures that share words and settings: one source, or one folder of a source that is read as it is."""

    source: str
    originals: tuple[Original, ...]
    class_tokens: str
    trigger: str
    tags: tuple[str, ...]
    repeats: int
    flip: bool
    flip_said: bool | None
    """What the recipe or the folder's name says about flips; None: nothing."""
    folder: str = ""
    """Name of the folder that is read as it is; empty: pictures to downscale."""


@dataclass(frozen=True, slots=True)
class Ignored:
    """What lies among the pictures and is not read, why, and what to do."""

    path: Path
    why: str
    hint: str


@dataclass(slots=True)
class Found:
    """What was found, and what is wrong with it."""

    groups: list[Group] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    ignored: list[Ignored] = field(default_factory=list)


def find(dataset: Dataset, root: Path) -> Found:
    """Return the groups of all sources, in the recipe's order; problems for what is missing. Reads folders, no file."""
    found = Found()
    for name, source in dataset.sources.items():
        match source.reading:
            case "pictures":
                _pictures(found, dataset, name, source, root)
            case "charframework":
                _charframework(found, dataset, name, source, root)
            case "kohya":
                _kohya(found, dataset, name, source, root)
    return found


def source_files(dataset: Dataset, root: Path) -> list[tuple[str, Path]]:
    """Return (role, path) of every file that the result depends on: originals, caption files, the tagger's model and tags."""
    result: list[tuple[str, Path]] = []
    for group in find(dataset, root).groups:
        source = dataset.sources[group.source]
        for original in group.originals:
            result.append((original.role, original.path))
            text = original.path.with_suffix(source.caption_files)
            if source.captions == "files" and text.is_file():
                result.append((original.role.removesuffix(original.path.suffix) + source.caption_files, text))
    if dataset.tagger_model and any(source.captions == "tagger" for source in dataset.sources.values()):
        model = root / dataset.tagger_model
        result += [("tagger/model", model), ("tagger/tags", model.with_name("selected_tags.csv"))]
    return result


def key_params(dataset: Dataset) -> dict[str, Any]:
    """Return the dataset's values as JSON for a key: without where the pictures lie, as they are known by role and content."""
    said: dict[str, Any] = dataset.model_dump(mode="json")
    for source in said["sources"].values():
        images = Path(source.pop("images"))
        if source["reading"] == "charframework":
            source["images"] = images.name  # it states the repeats: 4_krnk
    return said


def _pictures(found: Found, dataset: Dataset, name: str, source: Source, root: Path) -> None:
    where = f"dataset.sources.{name}.images"
    if _MAGIC.search(source.images) and not (root / source.images).is_dir():
        start = root / _MAGIC.split(source.images)[0].rpartition("/")[0]
        paths = sorted(Path(path) for path in glob.glob(str(root / source.images), recursive=True))  # noqa: PTH207 - ** and order
        files = [path for path in paths if not path.is_dir()]
    else:
        start = root / source.images
        if not start.is_dir():
            found.problems.append(Problem(where, f"no folder {source.images}", f"put the pictures there, or change {where}"))
            return
        files = _entries(found, start, where)
        for folder in _entries(found, start, where, folders=True):
            inside = sum(path.suffix.lower() in image_headers.ENDINGS for path in _entries(found, folder, where))
            if inside:
                why = f"is ignored, a folder below with {inside} picture{'s' if inside > 1 else ''}"
                found.ignored.append(Ignored(folder, why, f'to read them, too: {where} = "{source.images}/**/*"'))
    originals = _chosen(found, name, start, files)
    if not originals:
        found.problems.append(
            Problem(where, f"no picture in {source.images}", f"read are {', '.join(sorted(image_headers.ENDINGS))}")
        )
        return
    class_tokens = source.class_tokens or source.trigger
    repeats = source.repeats or dataset.repeats
    flip = dataset.flip_aug if source.flip is None else source.flip
    found.groups.append(Group(name, originals, class_tokens, source.trigger, source.tags, repeats, flip, source.flip))


def _charframework(found: Found, dataset: Dataset, name: str, source: Source, root: Path) -> None:
    repeats, _ = naming.repeats((root / source.images).name)
    for folder, originals in _folders(found, name, source, root):
        words = naming.charframework(folder)
        said = words.flip if source.flip is None else source.flip
        group = Group(
            source=name,
            originals=originals,
            class_tokens=source.class_tokens or words.class_tokens,
            trigger=source.trigger or words.trigger,
            tags=source.tags or words.tags,
            repeats=source.repeats or repeats or dataset.repeats,
            flip=dataset.flip_aug if said is None else said,
            flip_said=said,
            folder=folder,
        )
        found.groups.append(group)


def _kohya(found: Found, dataset: Dataset, name: str, source: Source, root: Path) -> None:
    for folder, originals in _folders(found, name, source, root):
        repeats, words = naming.repeats(folder)
        where = f"{source.images}/{folder}"
        if repeats is None:
            what = "has no number of repeats in front; sd-scripts ignores it"
            found.problems.append(Problem(where, what, f"name it 1_{folder}, or move it away"))
            continue
        if repeats < 1:
            why = "is ignored, as by sd-scripts: it says 0 repeats"
            found.ignored.append(Ignored(root / where, why, f"to train on it, name it 1_{words}"))
            continue
        flip = dataset.flip_aug if source.flip is None else source.flip
        class_tokens = source.class_tokens or words
        said = source.flip
        count = source.repeats or repeats
        found.groups.append(Group(name, originals, class_tokens, source.trigger, source.tags, count, flip, said, folder))


def _folders(found: Found, name: str, source: Source, root: Path) -> list[tuple[str, tuple[Original, ...]]]:
    """Return the folders with pictures below a source's folder, by name."""
    where = f"dataset.sources.{name}.images"
    start = root / source.images
    if not start.is_dir():
        found.problems.append(Problem(where, f"no folder {source.images}", f"put the folders there, or change {where}"))
        return []
    result = []
    for path in _entries(found, start, where):
        if path.suffix.lower() in image_headers.ENDINGS:
            found.ignored.append(
                Ignored(path, "is ignored: it lies beside the folders of pictures", "move it into one of them")
            )
    for folder in _entries(found, start, where, folders=True):
        originals = _chosen(found, name, start, _entries(found, folder, where))
        if originals:
            result.append((folder.name, originals))
    if not result:
        found.problems.append(Problem(where, f"no folder with pictures in {source.images}", "it holds folders of pictures"))
    return result


def _entries(found: Found, folder: Path, where: str, *, folders: bool = False) -> list[Path]:
    """Return what stands in ``folder``, by name: folders, or everything else, links to nowhere included."""
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() == folders and not path.name.startswith("."))
    except OSError as error:
        found.problems.append(Problem(where, f"{folder} cannot be read: {error.strerror}", "mend its permissions"))
        return []


def _chosen(found: Found, name: str, start: Path, files: list[Path]) -> tuple[Original, ...]:
    chosen = []
    for path in files:
        if path.suffix.lower() in image_headers.ENDINGS:
            chosen.append(Original(f"{name}/{path.relative_to(start).as_posix()}", path))
        elif path.suffix.lower() not in _COMPANIONS:
            hint = f"read are {', '.join(sorted(image_headers.ENDINGS))}; save it as one of them"
            found.ignored.append(Ignored(path, "is ignored: no picture by its ending", hint))
    return tuple(chosen)
