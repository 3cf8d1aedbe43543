"""Training images with captions and buckets, and batches of every epoch.

Every random choice comes from a generator that is seeded by (seed, purpose, number), never from a running state, so a resumed
run makes the same choices as an uninterrupted one.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from PIL import Image

from orchestrator.dataset.buckets import share_regularization
from orchestrator.errors import Problem, RecipeError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from orchestrator.dataset.buckets import BucketRules, Fit
    from orchestrator.dataset.training_folder import Size
    from orchestrator.engines.embedded.trainer.dataset_config import DatasetSection, SubsetSection

SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".bmp"))


@dataclass(frozen=True, slots=True)
class TrainingImage:
    """One training image: file, size, caption, bucket, repeats per epoch.

    The size is in pixels. The caption is that of the file.
    """

    path: Path
    size: Size
    caption: str
    subset: SubsetSection
    fit: Fit
    repeats: int


@dataclass(frozen=True, slots=True)
class ImageGroup:
    """A dataset of the configuration with its images."""

    dataset: DatasetSection
    images: tuple[TrainingImage, ...]
    regularization: int = 0
    """Regularization images with their num_repeats, as sd-scripts' banner counts them."""

    def by_bucket(self) -> dict[Size, list[TrainingImage]]:
        """Return the images of each bucket with repeats, in order of bucket size."""
        result: dict[Size, list[TrainingImage]] = {}
        for image in self.images:
            result.setdefault(image.fit.bucket, []).extend([image] * image.repeats)
        return dict(sorted(result.items()))

    def batches(self) -> int:
        """Return the number of batches of one epoch.

        Each bucket is cut by itself, so its last batch may be short.
        """
        return sum(math.ceil(len(images) / self.dataset.batch_size) for images in self.by_bucket().values())

    def count(self) -> int:
        """Return the number of training images with repeats."""
        return sum(image.repeats for image in self.images if not image.subset.is_reg)


@dataclass(frozen=True, slots=True)
class ImageSample:
    """One image in one batch, with its caption, mirroring and recoloring."""

    image: TrainingImage
    caption: str
    flipped: bool
    color_seed: int | None


def derive(seed: int, purpose: str, *numbers: int) -> int:
    """Return a 63-bit seed from the run's seed, a purpose and numbers.

    It is the same on every machine.
    """
    text = ":".join((str(seed), purpose, *map(str, numbers)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def find(datasets: Sequence[DatasetSection]) -> tuple[ImageGroup, ...]:
    """Find the images and captions of every subset.

    Raises:
        RecipeError: a folder is missing or empty, an image cannot be read or has no bucket, or there is nothing to train on.
    """
    problems: list[Problem] = []
    groups = tuple(_group(dataset, problems) for dataset in datasets)
    if not problems and not any(group.count() for group in groups if not group.dataset.validation):
        problems.append(
            Problem(
                "dataset",
                "No data found. Please verify the dataset",
                "add [[datasets.subsets]] with an image_dir that has images",
            )
        )
    if problems:
        raise RecipeError(problems)
    return groups


def _group(dataset: DatasetSection, problems: list[Problem]) -> ImageGroup:
    train: list[TrainingImage] = []
    reg: list[TrainingImage] = []
    folders: set[tuple[Path, bool]] = set()
    for subset in dataset.subsets:
        if subset.num_repeats < 1 or (subset.image_dir, subset.is_reg) in folders:
            why = "num_repeats is below 1" if subset.num_repeats < 1 else "the same folder is listed twice"
            problems.append(Problem(str(subset.image_dir), why, "sd-scripts would skip this subset silently"))
            continue
        folders.add((subset.image_dir, subset.is_reg))
        (reg if subset.is_reg else train).extend(_subset(dataset, subset, problems))
    shares = share_regularization([image.repeats for image in reg], sum(image.repeats for image in train))
    shared = [replace(image, repeats=share) for image, share in zip(reg, shares, strict=True) if share]
    return ImageGroup(dataset, (*train, *shared), sum(image.repeats for image in reg))


def _subset(dataset: DatasetSection, subset: SubsetSection, problems: list[Problem]) -> list[TrainingImage]:
    folder = subset.image_dir
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES) if folder.is_dir() else []
    if not files:
        what = "no images in this folder" if folder.is_dir() else "not a folder"
        problems.append(Problem(str(folder), f"No data found. Please verify: {what}", "build the dataset first"))
    images: list[TrainingImage] = []
    for path in files:
        try:
            with Image.open(path) as file:
                size = file.size
            fit = _fit(dataset.rules, size)
            caption = _caption(path, subset)
        except (OSError, ValueError) as error:
            problems.append(Problem(str(path), str(error)))
            continue
        repeats = 1 if dataset.validation else subset.num_repeats
        images.append(TrainingImage(path, size, caption, subset, fit, repeats))
    return images


def _fit(rules: BucketRules, size: Size) -> Fit:
    """Return the bucket of an image.

    Raises:
        ValueError: a side is below one step, or the image needs a bucket and bucketing is off.
    """
    if not rules.enable_bucket and size != rules.resolution:
        message = f"is {size[0]}x{size[1]}, the resolution is {rules.resolution}, and bucketing is off"
        raise ValueError(message)
    fit = rules.fit(size)
    if fit is None:
        message = f"an image of {size[0]}x{size[1]} has no bucket: a side is below bucket_reso_steps {rules.bucket_reso_steps}"
        raise ValueError(message)
    return fit


def _caption(path: Path, subset: SubsetSection) -> str:
    """Return the caption file's first line, the class tokens, or ""."""
    file = path.with_suffix(subset.caption_extension) if subset.caption_extension.startswith(".") else None
    if file is not None and file.is_file():
        lines = file.read_text(encoding="utf-8").splitlines()
        if not lines:
            message = f"caption file is empty: {file.name}"
            raise ValueError(message)
        return lines[0].strip()
    return subset.class_tokens or ""


def epoch_batches(groups: Sequence[ImageGroup], seed: int, epoch: int) -> list[list[TrainingImage]]:
    """Return the shuffled batches of one epoch.

    Each bucket is shuffled and cut, then the batches of all datasets are shuffled.
    """
    draw = random.Random(derive(seed, "epoch", epoch))  # noqa: S311 - an order, not a secret
    batches: list[list[TrainingImage]] = []
    for group in groups:
        for images in group.by_bucket().values():
            draw.shuffle(images)
            size = group.dataset.batch_size
            batches += [images[i : i + size] for i in range(0, len(images), size)]
    draw.shuffle(batches)
    return batches


def samples(batch: Sequence[TrainingImage], seed: int, number: int, epoch: int) -> list[ImageSample]:
    """Draw flip, colors and caption of every image in a batch.

    ``number`` counts batches over the whole run.
    """
    seeds = (derive(seed, "sample", number, i) for i in range(len(batch)))
    draws = (random.Random(image_seed) for image_seed in seeds)  # noqa: S311 - a coin, not a secret
    return [_sample(image, draw, epoch) for image, draw in zip(batch, draws, strict=True)]


def _sample(image: TrainingImage, draw: random.Random, epoch: int) -> ImageSample:
    subset = image.subset
    flipped = draw.random() < 0.5 and subset.flip_aug
    # sd-scripts and albumentations recolor a third of the images.
    color_seed = draw.getrandbits(32) if draw.random() <= 0.33 and subset.color_aug else None
    return ImageSample(image, _shown_caption(image.caption, subset, draw, epoch), flipped, color_seed)


def _shown_caption(caption: str, subset: SubsetSection, draw: random.Random, epoch: int) -> str:
    every = subset.caption_dropout_every_n_epochs
    if draw.random() < subset.caption_dropout_rate or (every > 0 and epoch % every == 0):
        return ""
    text = " ".join(part for part in (subset.caption_prefix, caption, subset.caption_suffix) if part)
    if subset.shuffle_caption or subset.caption_tag_dropout_rate > 0:
        tags = [tag.strip() for tag in text.strip().split(subset.caption_separator)]
        kept, rest = tags[: subset.keep_tokens], tags[subset.keep_tokens :]
        if subset.shuffle_caption:
            draw.shuffle(rest)
        rest = [tag for tag in rest if draw.random() >= subset.caption_tag_dropout_rate]
        text = ", ".join(kept + rest)
    return text


def tag_frequency(images: Sequence[TrainingImage]) -> dict[str, dict[str, int]]:
    """Count each tag's captions by folder name (``ss_tag_frequency``)."""
    result: dict[str, Counter[str]] = {}
    for image in images:
        tags = (tag.strip().lower() for tag in image.caption.split(","))
        result.setdefault(image.subset.image_dir.name, Counter()).update(tag for tag in tags if tag)
    return {folder: dict(counts) for folder, counts in result.items()}
