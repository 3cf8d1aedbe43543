"""Build a dataset: image folders, dataset.toml and a manifest."""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
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
from orchestrator.dataset.layout import make_layout
from orchestrator.dataset.problems import dataset_problems
from orchestrator.dataset.sources import key_params, scan, source_files
from orchestrator.errors import Problem, RecipeError, StepFailed
from orchestrator.system.files import sha256

if TYPE_CHECKING:
    from collections.abc import Callable

    from PIL.Image import Image

    from orchestrator.dataset.layout import Layout
    from orchestrator.dataset.training_folder import DatasetImage, TrainingFolder
    from orchestrator.recipe import Dataset, Validation

BUILDING: Final = "building.json"  # files of an unfinished build
SHEET: Final = "contact.webp"


@dataclass(frozen=True, slots=True)
class BuildResult:
    """Number of images of a build. ``unchanged`` if it wrote nothing."""

    images: int
    unchanged: bool


def build(
    dataset: Dataset,
    root: Path,
    output: Path,
    report: Callable[[int, int, str], None],
    validation: Validation | None = None,
) -> BuildResult:
    """Write the dataset to ``output``, unless it is there already.

    Args:
        dataset: the recipe's table.
        root: the project folder that the sources are relative to; its files are only read.
        output: receives the folders, dataset.toml, contact.webp (a tile of every image) and, last, dataset.json.
        report: called with the number of finished images, of all images, and a note.
        validation: chooses the images that are not trained.

    Raises:
        RecipeError: every problem at which the build or the trainer would stop. Nothing was written.
        StepFailed: every image that cannot be decoded.
    """
    count = _count_unchanged(output, dataset, root, validation)
    if count is not None:
        report(count, count, "nothing has changed")
        return BuildResult(count, unchanged=True)
    layout = make_layout(dataset, root, validation)
    problems = dataset_problems(layout, dataset, root)
    if problems:
        raise RecipeError(problems)
    total = sum(len(folder.images) for folder in layout.written())
    output.mkdir(parents=True, exist_ok=True)
    _clear(output)
    (output / BUILDING).write_text(json.dumps({"files": _names(dataset, layout)}), encoding="utf-8")
    untagged = _untagged(layout)
    numbers = itertools.count(1)
    total += len(untagged)
    captions = _tagged(dataset, root, untagged, lambda name: report(next(numbers), total, f"caption of {name}"))
    for folder in layout.written():
        (output / folder.path).mkdir(parents=True, exist_ok=True)
    prediction = buckets.predict_batches(layout, dataset)
    tiles = contact_tiles.arrange(prediction, contact_tiles.MOST)
    drawn = _write_images(dataset, layout, output, lambda done, name: report(len(untagged) + done, total, name), tiles)
    contact_tiles.save(contact_tiles.paste_sheets(tiles, drawn)[0], output / SHEET)
    for folder in layout.written():
        for image in folder.images:
            caption = captions.get(image.role, image.caption)
            if caption is not None:
                file = (output / folder.path / image.name).with_suffix(dataset.caption_extension)
                file.write_bytes(f"{caption}\n".encode())
    (output / sd_scripts_toml.FILE).write_bytes(sd_scripts_toml.text(layout, dataset).encode())
    table = {
        "schema": manifest.SCHEMA,
        "key": fingerprint(dataset, root, validation),
        **manifest.describe(dataset, layout, prediction, captions, tiles),
    }
    table["files"] = {name: (output / name).stat().st_size for name in sorted(_names(dataset, layout))}
    (output / naming.MANIFEST).write_bytes((json.dumps(table, ensure_ascii=False, indent=1) + "\n").encode())
    (output / BUILDING).unlink()
    return BuildResult(total, unchanged=False)


def fingerprint(dataset: Dataset, root: Path, validation: Validation | None = None) -> str:
    """Return the SHA-256 of the values and files of a dataset."""
    digests = [[role, sha256(path)] for role, path in source_files(dataset, root)]
    values = {"schema": manifest.SCHEMA, "dataset": key_params(dataset, validation), "sources": sorted(digests)}
    return hashlib.sha256(json.dumps(values, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def _count_unchanged(output: Path, dataset: Dataset, root: Path, validation: Validation | None) -> int | None:
    """Return the number of images if ``output`` is this dataset.

    None if it is another dataset, or if a file has not its recorded size.

    Images are digested and not decoded: they were decoded when the same files were built with the same values.
    """
    try:
        table = json.loads((output / naming.MANIFEST).read_text(encoding="utf-8"))
        whole = all((output / name).stat().st_size == size for name, size in table["files"].items())
        same = whole and not scan(dataset, root).problems and table["key"] == fingerprint(dataset, root, validation)
        return int(table["images"]) if same else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # missing, incomplete, or an unreadable original, which the layout reports


def _clear(output: Path) -> None:
    """Remove the files of an earlier build, finished or not."""
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
                for cache in latent_links.latent_caches(path):  # the trainer would use the latents of a deleted image
                    cache.unlink()
                if path.parent != output and path.parent.is_dir() and not any(path.parent.iterdir()):
                    path.parent.rmdir()


def _names(dataset: Dataset, layout: Layout) -> list[str]:
    """Return the files of a build except the manifest."""
    names = [sd_scripts_toml.FILE, SHEET]
    for folder in layout.written():
        for image in folder.images:
            names.append(f"{folder.path}/{image.name}")
            if image.caption is not None or folder.tagger:
                names.append(Path(names[-1]).with_suffix(dataset.caption_extension).as_posix())
    return names


def _write_images(
    dataset: Dataset,
    layout: Layout,
    output: Path,
    report: Callable[[int, str], None],
    tiles: dict[contact_tiles.Key, contact_tiles.Tile],
) -> dict[contact_tiles.Key, Image]:
    """Write every image and return the pixels of the tiles."""
    work: dict[tuple[Path, str], list[tuple[TrainingFolder, DatasetImage]]] = defaultdict(list)
    for folder in layout.written():
        color = dataset.sources[folder.source].background_color or dataset.background_color
        for image in folder.images:
            work[image.original, color].append((folder, image))
    problems: list[Problem] = []
    drawn: dict[contact_tiles.Key, Image] = {}
    done = 0
    with image_io.without_warnings(), ThreadPoolExecutor(image_io.thread_count()) as pool:
        futures = {
            pool.submit(_write, source, targets, dataset.downscale, output, tiles): (source[0], len(targets))
            for source, targets in work.items()
        }
        for future in as_completed(futures):
            original, count = futures[future]
            try:
                drawn |= future.result()
            except image_headers.UnreadableError as error:
                problems.append(Problem(str(original), str(error), "replace it, or move it away"))
            done += count
            report(done, original.name)
    if problems:
        raise StepFailed(sorted(problems, key=lambda problem: problem.where))
    return drawn


def _write(
    source: tuple[Path, str],
    targets: list[tuple[TrainingFolder, DatasetImage]],
    downscale: str,
    output: Path,
    tiles: dict[contact_tiles.Key, contact_tiles.Tile],
) -> dict[contact_tiles.Key, Image]:
    """Write one original at all its sizes and return its tiles.

    A plain 8-bit RGB PNG is copied at its own size.
    """
    plain = image_headers.read(source[0]).plain
    pixels = image_io.load(*source)  # also of an original that is only copied, to find truncated files
    drawn = {}
    for folder, image in targets:
        path = output / folder.path / image.name
        scaled = image_io.resized(pixels, image.size, downscale)
        if plain and image.size == image.original_size:
            shutil.copyfile(source[0], path)
        else:
            image_io.save(scaled, path)
        if tile := tiles.get((folder.path, image.name)):
            drawn[folder.path, image.name] = contact_tiles.crop(scaled, tile)
    return drawn


def _untagged(layout: Layout) -> dict[str, tuple[TrainingFolder, DatasetImage]]:
    """Return role -> one folder and image, for the tagger."""
    tagged = {image.role: (folder, image) for folder in layout.written() if folder.tagger for image in folder.images}
    return {role: pair for role, pair in tagged.items() if pair[1].caption is None}


def _tagged(
    dataset: Dataset, root: Path, untagged: dict[str, tuple[TrainingFolder, DatasetImage]], report: Callable[[str], None]
) -> dict[str, str]:
    """Return role -> caption of the images that the tagger captions."""
    if not untagged:
        return {}
    from orchestrator.dataset import tagger  # noqa: PLC0415 - numpy and onnxruntime, an extra

    return tagger.captions(dataset, root, untagged, report)
