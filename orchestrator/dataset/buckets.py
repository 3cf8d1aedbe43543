"""Predict the trainer's buckets, batches and epochs.

Written from the behaviour of sd-scripts v0.10.1 (library/train_util.py, BucketManager and DreamBoothDataset). Tests compare it
with sd-scripts' own numbers (tests/data/buckets.json).
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.dataset.layout import Layout
    from orchestrator.dataset.training_folder import DatasetImage, Size, TrainingFolder
    from orchestrator.recipe import Dataset, Training

_TABLES: Final = {
    "12GB": {(512, 512): 4, (768, 512): 3, (512, 768): 3, (768, 768): 2, (1024, 512): 2, (512, 1024): 2},
}


@dataclass(frozen=True, slots=True)
class Fit:
    """Bucket of an image, and its size before the centre crop."""

    bucket: Size
    resized: Size

    @property
    def crop_loss(self) -> float:
        """Share of the resized image, 0..1, that the crop removes."""
        return 1 - self.bucket[0] * self.bucket[1] / (self.resized[0] * self.resized[1])


@dataclass(frozen=True, slots=True)
class BucketedImage:
    """One image in its bucket.

    ``repeats`` of regularization images are those that the trainer computes.
    """

    folder: TrainingFolder
    image: DatasetImage
    fit: Fit
    repeats: int


@dataclass(frozen=True, slots=True)
class Bucket:
    """One bucket of one resolution class. ``count`` includes repeats."""

    resolution: Size
    size: Size
    batch_size: int
    images: tuple[BucketedImage, ...]

    @property
    def count(self) -> int:
        return sum(image.repeats for image in self.images)

    @property
    def batches(self) -> int:
        return -(-self.count // self.batch_size)

    @property
    def missing(self) -> int:
        """Number of images that the last batch lacks."""
        return self.batches * self.batch_size - self.count


@dataclass(frozen=True, slots=True)
class Prediction:
    """Numbers that the trainer will print.

    "num train images * repeats", "num reg images", "num batches per epoch".
    """

    images: int
    """Images in the built folders, regularization included."""
    images_x_repeats: int
    regularization_x_repeats: int
    batches_per_epoch: int
    buckets: tuple[Bucket, ...]
    unbucketed: tuple[tuple[TrainingFolder, DatasetImage], ...]
    """Images at which the trainer would stop: a side below bucket_reso_steps, or an extreme aspect ratio."""

    @property
    def largest(self) -> Bucket | None:
        """Largest bucket of the largest class with images of the subject."""
        trained = [bucket for bucket in self.buckets if any(not image.folder.regularization for image in bucket.images)]
        return max(trained, key=lambda bucket: (math.prod(bucket.resolution), math.prod(bucket.size)), default=None)


def predict_batches(layout: Layout, dataset: Dataset) -> Prediction:
    """Return the trainer's numbers for ``layout``."""
    buckets: list[Bucket] = []
    unbucketed: list[tuple[TrainingFolder, DatasetImage]] = []
    for resolution, folders in layout.classes():
        rules = BucketRules.of(dataset, resolution)
        groups: dict[Size, list[BucketedImage]] = defaultdict(list)
        for folder, image, repeats in _repeated(folders):
            fit = rules.fit(image.size)
            if fit is None:
                unbucketed.append((folder, image))
            else:
                groups[fit.bucket].append(BucketedImage(folder, image, fit, repeats))
        size_of_batch = batch_size(dataset, resolution)
        buckets += [Bucket(resolution, size, size_of_batch, tuple(images)) for size, images in sorted(groups.items())]
    train = [folder for folder in layout.folders if not folder.regularization]
    regularization = [folder for folder in layout.folders if folder.regularization]
    return Prediction(
        images=sum(len(folder.images) for folder in layout.folders),
        images_x_repeats=_with_repeats(train),
        regularization_x_repeats=_with_repeats(regularization),
        batches_per_epoch=sum(bucket.batches for bucket in buckets),
        buckets=tuple(buckets),
        unbucketed=tuple(unbucketed),
    )


def epochs(batches_per_epoch: int, training: Training) -> int:
    """Return "num epochs", 0 without batches."""
    updates = _updates(batches_per_epoch, training)
    return -(-steps(batches_per_epoch, training) // updates) if updates else 0


def steps(batches_per_epoch: int, training: Training) -> int:
    """Return the steps of a training, 0 for epochs without batches.

    As train_network.py: max_train_epochs * ceil(batches / gradient_accumulation_steps).
    """
    return training.steps or (training.epochs or 0) * _updates(batches_per_epoch, training)


def _updates(batches_per_epoch: int, training: Training) -> int:
    """Return the optimizer steps of an epoch."""
    return -(-batches_per_epoch // (training.gradient_accumulation_steps or 1))


def batch_size(dataset: Dataset, resolution: Size) -> int:
    """Return the batch size of a resolution class.

    By its name as WxH, else ``default``, else 1.
    """
    if dataset.batch_table != "own":
        return _TABLES[dataset.batch_table].get(resolution, 1)
    return dataset.batch_size.get(f"{resolution[0]}x{resolution[1]}", dataset.batch_size.get("default", 1))


@dataclass(frozen=True, slots=True)
class BucketRules:
    """Bucket settings of one resolution class."""

    resolution: Size
    enable_bucket: bool
    bucket_no_upscale: bool
    min_bucket_reso: int = 256
    max_bucket_reso: int = 1024
    bucket_reso_steps: int = 64

    @classmethod
    def of(cls, dataset: Dataset, resolution: Size) -> BucketRules:
        """Return the rules of a recipe's dataset."""
        return cls(
            resolution,
            dataset.enable_bucket,
            dataset.bucket_no_upscale,
            dataset.min_bucket_reso,
            dataset.max_bucket_reso,
            dataset.bucket_reso_steps,
        )

    def bounds(self) -> tuple[int, int]:
        """Return the smallest and largest side of buckets in pixels.

        min_bucket_reso is rounded down and max_bucket_reso up to whole steps, as by the trainer.
        """
        steps = self.bucket_reso_steps
        return self.min_bucket_reso // steps * steps, -(-self.max_bucket_reso // steps) * steps

    def fit(self, size: Size) -> Fit | None:
        """Return the bucket of an image, None if the trainer rejects it."""
        if not self.enable_bucket:
            return self._cover(size, self.resolution)
        if not self.bucket_no_upscale:
            shapes = self.shapes()
            if not shapes:
                return None
            ratio = size[0] / size[1]
            # min() keeps the first of equals, and the list is sorted.
            nearest = min(shapes, key=lambda shape: abs(shape[0] / shape[1] - ratio))
            return self._cover(size, size if size in shapes else nearest)
        return self._shrink(size)

    def shapes(self) -> list[Size]:
        """Return the predefined buckets, sorted.

        They have at most the area of the class, and sides in whole steps.
        """
        step = self.bucket_reso_steps
        least, most = self.bounds()
        area = self.resolution[0] * self.resolution[1]
        square = int(math.sqrt(area) // step) * step
        shapes = {(square, square)}
        for width in range(least, most + 1, step):
            height = min(most, area // width // step * step) if width else 0
            if height >= least and height > 0:
                shapes |= {(width, height), (height, width)}
        return sorted(shape for shape in shapes if shape[0] > 0)

    @staticmethod
    def _cover(size: Size, bucket: Size) -> Fit:
        """Resize so that the bucket is covered, then crop."""
        by_height = size[0] / size[1] > bucket[0] / bucket[1]
        scale = bucket[1] / size[1] if by_height else bucket[0] / size[0]
        return Fit(bucket, (int(size[0] * scale + 0.5), int(size[1] * scale + 0.5)))

    def _shrink(self, size: Size) -> Fit | None:
        """Shrink to the area of the class, then crop to whole steps."""
        step = self.bucket_reso_steps
        area = self.resolution[0] * self.resolution[1]
        resized = size
        if size[0] * size[1] > area:
            ratio = size[0] / size[1]
            width = math.sqrt(area * ratio)
            # Either side can be cut to whole steps; the shape nearer to the image's wins.
            by_width = self._whole(width)
            by_height = self._whole(area / width)
            if by_width == 0 or by_height == 0 or self._whole(by_width / ratio) == 0:
                return None
            error_by_width = abs(by_width / self._whole(by_width / ratio) - ratio)
            error_by_height = abs(self._whole(by_height * ratio) / by_height - ratio)
            if error_by_width < error_by_height:
                resized = (by_width, int(by_width / ratio + 0.5))
            else:
                resized = (int(by_height * ratio + 0.5), by_height)
        bucket = (resized[0] // step * step, resized[1] // step * step)
        return Fit(bucket, resized) if bucket[0] and bucket[1] else None

    def _whole(self, length: float) -> int:
        return int(length + 0.5) // self.bucket_reso_steps * self.bucket_reso_steps


def _with_repeats(folders: Sequence[TrainingFolder]) -> int:
    return sum(folder.repeats * len(folder.images) for folder in folders)


def _repeated(folders: Sequence[TrainingFolder]) -> list[tuple[TrainingFolder, DatasetImage, int]]:
    """Return every image of a class with its repeats."""
    result = [(folder, image, folder.repeats) for folder in folders if not folder.regularization for image in folder.images]
    pool = [(folder, image) for folder in folders if folder.regularization for image in folder.images]
    shares = share_regularization([folder.repeats for folder, _ in pool], sum(repeats for _, _, repeats in result))
    return result + [(*pair, count) for pair, count in zip(pool, shares, strict=True) if count]


def share_regularization(repeats: Sequence[int], total: int) -> list[int]:
    """Return the repeats of regularization images.

    ``total`` is the number of images of the subject, repeats included.

    In the first round each image counts with its own repeats, then once more each, until they are as many as the subject's.
    Images that are not reached have 0 and are not used.
    """
    shares = [0] * len(repeats)
    for number, index in enumerate(cycle(range(len(repeats)))):
        if total <= 0:
            break
        share = repeats[index] if number < len(repeats) else 1
        shares[index] += share
        total -= share
    return shares
