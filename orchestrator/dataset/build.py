"""The program of the dataset step: folders, captions, dataset.toml and a manifest, from a request."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Final

from orchestrator.dataset import (
    buckets,
    contact_tiles,
    image_headers,
    image_io,
    latent_links,
    manifest,
    naming,
    sd_scripts_toml,
)
from orchestrator.dataset import problems as preflight
from orchestrator.dataset.layout import make_layout
from orchestrator.dataset.sources import find, key_params, source_files
from orchestrator.errors import Problem, RecipeError, StepFailed

if TYPE_CHECKING:
    from collections.abc import Callable

    from PIL.Image import Image

    from orchestrator.dataset.layout import Folder, Layout, Picture
    from orchestrator.recipe import Dataset

BUILDING: Final = "building.json"  # what a build that has not ended may have written
SHEET: Final = "contact.webp"


@dataclass(frozen=True, slots=True)
class Built:
    """What a build did: pictures written, and whether all was there already."""

    pictures: int
    unchanged: bool


def build(dataset: Dataset, root: Path, output: Path, report: Callable[[int, int, str], None]) -> Built:
    """Write the dataset to ``output``; nothing is written when it holds the same dataset already.

    Args:
        dataset: what to build.
        root: the project folder that the sources are relative to; its files are only read.
        output: receives the folders, dataset.toml, contact.webp (a tile of every picture) and, last, dataset.json.
        report: called with pictures done, pictures in all, and a note.

    Raises:
        RecipeError: every problem at which the build or the trainer would stop; nothing was written.
        StepFailed: pictures that cannot be decoded, all of them.
    """
    known = _complete(output, dataset, root)
    if known is not None:
        report(known, known, "nothing has changed")
        return Built(known, unchanged=True)
    plan = make_layout(dataset, root)
    problems = preflight.dataset_problems(plan, dataset, root)
    if problems:
        raise RecipeError(problems)
    total = sum(len(folder.pictures) for folder in plan.folders)
    output.mkdir(parents=True, exist_ok=True)
    _clear(output)
    (output / BUILDING).write_text(json.dumps({"files": _names(dataset, plan)}), encoding="utf-8")
    untagged = _untagged(plan)
    steps = count(1)
    total += len(untagged)
    captions = _tagged(dataset, root, untagged, lambda name: report(next(steps), total, f"caption of {name}"))
    for folder in plan.folders:
        (output / folder.path).mkdir(parents=True, exist_ok=True)
    prediction = buckets.predict_batches(plan, dataset)
    shown = contact_tiles.places(prediction, contact_tiles.MOST)
    small = _write_pictures(dataset, plan, output, lambda done, name: report(len(untagged) + done, total, name), shown)
    contact_tiles.save(contact_tiles.sheets(shown, small)[0], output / SHEET)
    for folder in plan.folders:
        for picture in folder.pictures:
            caption = captions.get(picture.role, picture.caption)
            if caption is not None:
                text = (output / folder.path / picture.name).with_suffix(dataset.caption_extension)
                text.write_bytes(f"{caption}\n".encode())
    (output / sd_scripts_toml.FILE).write_bytes(sd_scripts_toml.text(plan, dataset).encode())
    said = {
        "schema": manifest.SCHEMA,
        "key": fingerprint(dataset, root),
        **manifest.described(dataset, plan, prediction, captions, shown),
    }
    said["files"] = {name: (output / name).stat().st_size for name in sorted(_names(dataset, plan))}
    (output / naming.MANIFEST).write_bytes((json.dumps(said, ensure_ascii=False, indent=1) + "\n").encode())
    (output / BUILDING).unlink()
    return Built(total, unchanged=False)


def fingerprint(dataset: Dataset, root: Path) -> str:
    """Return the sha256 over the dataset's values and the content of every file it depends on."""
    digests = []
    for role, path in source_files(dataset, root):
        with path.open("rb") as file:
            digests.append([role, hashlib.file_digest(file, "sha256").hexdigest()])
    said = {"schema": manifest.SCHEMA, "dataset": key_params(dataset), "sources": sorted(digests)}
    return hashlib.sha256(json.dumps(said, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def _complete(output: Path, dataset: Dataset, root: Path) -> int | None:
    """Return how many pictures ``output`` holds if it is this dataset, every file with its recorded size; else None.

    No picture is looked at, only its content's digest: what was sound with these files and values is sound.
    """
    try:
        said = json.loads((output / naming.MANIFEST).read_text(encoding="utf-8"))
        whole = all((output / name).stat().st_size == size for name, size in said["files"].items())
        same = whole and not find(dataset, root).problems and said["key"] == fingerprint(dataset, root)
        return int(said["images"]) if same else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # not there, not whole, or an original that cannot be read: the layout says which


def _clear(output: Path) -> None:
    """Remove what an earlier build, finished or not, wrote into ``output``, and nothing else."""
    for record in (output / naming.MANIFEST, output / BUILDING):
        try:
            names = list(json.loads(record.read_text(encoding="utf-8"))["files"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
        record.unlink()
        for name in names:
            path = output / str(name)
            if path.resolve().is_relative_to(output.resolve()):
                path.unlink(missing_ok=True)
                for cache in latent_links.latent_caches(
                    path
                ):  # the trainer would believe the latents of the picture that is gone
                    cache.unlink()
                if path.parent != output and path.parent.is_dir() and not any(path.parent.iterdir()):
                    path.parent.rmdir()


def _names(dataset: Dataset, plan: Layout) -> list[str]:
    """Return the files that a build writes, apart from the manifest; a caption for every picture that has one."""
    names = [sd_scripts_toml.FILE, SHEET]
    for folder in plan.folders:
        for picture in folder.pictures:
            names.append(f"{folder.path}/{picture.name}")
            if picture.caption is not None or folder.tagger:
                names.append(Path(names[-1]).with_suffix(dataset.caption_extension).as_posix())
    return names


def _write_pictures(
    dataset: Dataset,
    plan: Layout,
    output: Path,
    report: Callable[[int, str], None],
    shown: dict[contact_tiles.Key, contact_tiles.Tile],
) -> dict[contact_tiles.Key, Image]:
    """Write every picture and return the tiles; each original is decoded once, by one thread, for all its sizes."""
    work: dict[tuple[Path, str], list[tuple[Folder, Picture]]] = defaultdict(list)
    for folder in plan.folders:
        color = dataset.sources[folder.source].background_color or dataset.background_color
        for picture in folder.pictures:
            work[picture.original, color].append((folder, picture))
    problems: list[Problem] = []
    small: dict[contact_tiles.Key, Image] = {}
    done = 0
    with image_io.quiet(), ThreadPoolExecutor(image_io.threads()) as pool:
        futures = {
            pool.submit(_write, source, wanted, dataset.downscale, output, shown): (source[0], wanted)
            for source, wanted in work.items()
        }
        for future in as_completed(futures):
            original, wanted = futures[future]
            try:
                small |= future.result()
            except image_headers.UnreadableError as error:
                problems.append(Problem(str(original), str(error), "replace it, or move it away"))
            done += len(wanted)
            report(done, original.name)
    if problems:
        raise StepFailed(sorted(problems, key=lambda problem: problem.where))
    return small


def _write(
    source: tuple[Path, str],
    wanted: list[tuple[Folder, Picture]],
    downscale: str,
    output: Path,
    shown: dict[contact_tiles.Key, contact_tiles.Tile],
) -> dict[contact_tiles.Key, Image]:
    """Write one original at all its sizes; return its tiles. A plain 8-bit RGB PNG is copied for its own size."""
    plain = image_headers.read(source[0]).plain
    image = image_io.load(*source)  # decoded even when it is only copied: a truncated file must not pass
    small = {}
    for folder, picture in wanted:
        path = output / folder.path / picture.name
        scaled = image_io.resized(image, picture.size, downscale)
        if plain and picture.size == picture.original_size:
            shutil.copyfile(source[0], path)
        else:
            image_io.save(scaled, path)
        if tile := shown.get((folder.path, picture.name)):
            small[folder.path, picture.name] = contact_tiles.small(scaled, tile)
    return small


def _untagged(plan: Layout) -> dict[str, tuple[Folder, Picture]]:
    """Return role -> one place of the pictures that the tagger captions."""
    tagged = {picture.role: (folder, picture) for folder in plan.folders if folder.tagger for picture in folder.pictures}
    return {role: pair for role, pair in tagged.items() if pair[1].caption is None}


def _tagged(
    dataset: Dataset, root: Path, untagged: dict[str, tuple[Folder, Picture]], seen: Callable[[str], None]
) -> dict[str, str]:
    """Return role -> caption of the pictures that the tagger captions."""
    if not untagged:
        return {}
    from orchestrator.dataset import tagger  # noqa: PLC0415 - numpy and onnxruntime, an extra

    return tagger.captions(dataset, root, untagged, seen)
