"""The training pictures: found, captioned, placed in buckets, and handed out as batches.

Everything random is drawn from generators that are seeded by (seed, purpose, number), never from a running state, so a
resumed run sees exactly what an uninterrupted one would have seen.
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
    from orchestrator.dataset.layout import Size
    from orchestrator.engines.embedded.trainer.dataset_config import Dataset, Subset

ENDINGS = frozenset((".png", ".jpg", ".jpeg", ".webp", ".bmp"))


@dataclass(frozen=True, slots=True)
class Picture:
    """One training picture: its file, its size in pixels, its caption, its bucket, and its repeats an epoch."""

    path: Path
    size: Size
    caption: str
    subset: Subset
    fit: Fit
    repeats: int


@dataclass(frozen=True, slots=True)
class Group:
    """A dataset with its pictures."""

    dataset: Dataset
    pictures: tuple[Picture, ...]
    regularization: int = 0
    """Regularization pictures with num_repeats, before they are shared out; what sd-scripts' banner counts."""

    def by_bucket(self) -> dict[Size, list[Picture]]:
        """Pictures of each bucket, repeats included; buckets in order of size."""
        result: dict[Size, list[Picture]] = {}
        for picture in self.pictures:
            result.setdefault(picture.fit.bucket, []).extend([picture] * picture.repeats)
        return dict(sorted(result.items()))

    def batches(self) -> int:
        """Batches of one epoch: each bucket is cut by itself, its last batch may be short."""
        return sum(math.ceil(len(pictures) / self.dataset.batch_size) for pictures in self.by_bucket().values())

    def count(self) -> int:
        """Training pictures with repeats."""
        return sum(picture.repeats for picture in self.pictures if not picture.subset.is_reg)


@dataclass(frozen=True, slots=True)
class Sample:
    """One picture as one batch shows it."""

    picture: Picture
    caption: str
    flipped: bool
    color_seed: int | None


def derive(seed: int, purpose: str, *numbers: int) -> int:
    """A 63-bit seed from the run's seed, a purpose and numbers; the same on every machine."""
    text = ":".join((str(seed), purpose, *map(str, numbers)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def find(datasets: Sequence[Dataset]) -> tuple[Group, ...]:
    """Find every subset's pictures and captions.

    Raises:
        RecipeError: a folder is missing or empty, a picture cannot be read or placed, or there is nothing to train on.
    """
    problems: list[Problem] = []
    groups = tuple(_group(dataset, problems) for dataset in datasets)
    if not problems and not any(group.count() for group in groups):
        problems.append(
            Problem(
                "dataset",
                "No data found. Please verify the dataset",
                "give [[datasets.subsets]] with an image_dir that has pictures",
            )
        )
    if problems:
        raise RecipeError(problems)
    return groups


def _group(dataset: Dataset, problems: list[Problem]) -> Group:
    train: list[Picture] = []
    reg: list[Picture] = []
    seen: set[tuple[Path, bool]] = set()
    for subset in dataset.subsets:
        if subset.num_repeats < 1 or (subset.image_dir, subset.is_reg) in seen:
            why = "num_repeats is below 1" if subset.num_repeats < 1 else "the same folder stands twice"
            problems.append(Problem(str(subset.image_dir), why, "sd-scripts would leave this subset out silently"))
            continue
        seen.add((subset.image_dir, subset.is_reg))
        (reg if subset.is_reg else train).extend(_subset(dataset, subset, problems))
    shares = share_regularization([picture.repeats for picture in reg], sum(picture.repeats for picture in train))
    shared = [replace(picture, repeats=share) for picture, share in zip(reg, shares, strict=True) if share]
    return Group(dataset, (*train, *shared), sum(picture.repeats for picture in reg))


def _subset(dataset: Dataset, subset: Subset, problems: list[Problem]) -> list[Picture]:
    folder = subset.image_dir
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in ENDINGS) if folder.is_dir() else []
    if not files:
        what = "no pictures in this folder" if folder.is_dir() else "not a folder"
        problems.append(Problem(str(folder), f"No data found. Please verify: {what}", "build the dataset first"))
    found: list[Picture] = []
    for path in files:
        try:
            with Image.open(path) as image:
                size = image.size
            fit = _fit(dataset.rules, size)
            caption = _caption(path, subset)
        except (OSError, ValueError) as error:
            problems.append(Problem(str(path), str(error)))
            continue
        found.append(Picture(path, size, caption, subset, fit, subset.num_repeats))
    return found


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
        message = (
            f"a picture of {size[0]}x{size[1]} has no bucket: a side is below bucket_reso_steps {rules.bucket_reso_steps}"
        )
        raise ValueError(message)
    return fit


def _caption(path: Path, subset: Subset) -> str:
    """First line of the caption file; without one the class tokens, without those an empty text."""
    file = path.with_suffix(subset.caption_extension) if subset.caption_extension.startswith(".") else None
    if file is not None and file.is_file():
        lines = file.read_text(encoding="utf-8").splitlines()
        if not lines:
            message = f"caption file is empty: {file.name}"
            raise ValueError(message)
        return lines[0].strip()
    return subset.class_tokens or ""


def epoch_batches(groups: Sequence[Group], seed: int, epoch: int) -> list[list[Picture]]:
    """The batches of one epoch in their order: buckets shuffled, cut, and all batches of all datasets shuffled."""
    draw = random.Random(derive(seed, "epoch", epoch))  # noqa: S311 - an order, not a secret
    batches: list[list[Picture]] = []
    for group in groups:
        for pictures in group.by_bucket().values():
            draw.shuffle(pictures)
            size = group.dataset.batch_size
            batches += [pictures[i : i + size] for i in range(0, len(pictures), size)]
    draw.shuffle(batches)
    return batches


def samples(batch: Sequence[Picture], seed: int, number: int, epoch: int) -> list[Sample]:
    """Draw what batch ``number`` (counted over the whole run) does with its pictures: flip, colors, caption."""
    seeds = (derive(seed, "sample", number, i) for i in range(len(batch)))
    draws = (random.Random(own) for own in seeds)  # noqa: S311 - a coin, not a secret
    return [_sample(picture, draw, epoch) for picture, draw in zip(batch, draws, strict=True)]


def _sample(picture: Picture, draw: random.Random, epoch: int) -> Sample:
    subset = picture.subset
    flipped = draw.random() < 0.5 and subset.flip_aug
    # sd-scripts and albumentations alike: a third of the pictures is changed at all.
    color_seed = draw.getrandbits(32) if draw.random() <= 0.33 and subset.color_aug else None
    return Sample(picture, _written(picture.caption, subset, draw, epoch), flipped, color_seed)


def _written(caption: str, subset: Subset, draw: random.Random, epoch: int) -> str:
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


def tag_frequency(pictures: Sequence[Picture]) -> dict[str, dict[str, int]]:
    """Folder name -> tag -> in how many pictures' captions, as sd-scripts writes it into ``ss_tag_frequency``."""
    result: dict[str, Counter[str]] = {}
    for picture in pictures:
        tags = (tag.strip().lower() for tag in picture.caption.split(","))
        result.setdefault(picture.subset.image_dir.name, Counter()).update(tag for tag in tags if tag)
    return {folder: dict(counts) for folder, counts in result.items()}
