"""Measure a variant's images against those of the bare base model.

Every measure compares images of the same prompts and seeds, so that prompt and seed do not count.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from PIL import Image

from orchestrator.dataset import image_encoder, visual_descriptors
from orchestrator.dataset.naming import MANIFEST
from orchestrator.errors import Problem, StepFailed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from orchestrator.dataset.tagger import Tagger


class Describer(Protocol):
    """Turns images into vectors, and vectors into similarities."""

    name: str

    def describe(self, images: Iterable[Image.Image]) -> NDArray[np.float32]:
        """Return a row per image, (n, d)."""

    def similarity(self, left: NDArray[np.float32], right: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the similarity of each row of ``left`` to each of ``right``.

        It is at most 1.
        """


class LayoutAndEdges:
    """The describer that needs no model (``visual_descriptors``)."""

    name = visual_descriptors.NAME

    def describe(self, images: Iterable[Image.Image]) -> NDArray[np.float32]:
        """Return the descriptors of images, a row each."""
        return visual_descriptors.describe(images)

    def similarity(self, left: NDArray[np.float32], right: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return 1 - distance of each pair of rows."""
        return visual_descriptors.similarity(left, right)


class Encoder(image_encoder.ImageEncoder):
    """The describer by an ONNX encoder of the user."""

    def similarity(self, left: NDArray[np.float32], right: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the cosine of each pair of rows."""
        return image_encoder.similarity(left, right)


def describer(folder: Path | None) -> Describer:
    """Return the user's encoder, or the describer that needs no model.

    Args:
        folder: folder of an ONNX encoder, or None.

    Raises:
        NotReady: the encoder cannot be opened.
    """
    return Encoder(folder) if folder is not None else LayoutAndEdges()


@dataclass(frozen=True, slots=True)
class Measured:
    """Differences of a variant's images to those of the bare base model.

    ``likeness``: how much nearer the images are to the training images. ``freedom``: minus the distance that prompts without
    the trigger words moved, 0 at best. ``tag_recall``: how much more of the prompts' tags a tagger finds, None without one.
    """

    likeness: float
    freedom: float
    tag_recall: float | None = None


class BaseComparison:
    """Compares folders of images with those of the bare base model."""

    def __init__(
        self, by: Describer, trained: Sequence[Path], bare: Sequence[Path], free: Sequence[Path], tags: TagRecall | None = None
    ) -> None:
        """Describe the images that every variant is compared with.

        Args:
            by: the describer.
            trained: originals of the training.
            bare: images of the prompts by the base alone, in the order of the prompts.
            free: images of the prompts without trigger words by the base alone.
            tags: the tagger with the prompts.
        """
        self.by, self.tags = by, tags
        self.trained = by.describe(load(trained))
        self.bare, self.free = load(bare), by.describe(load(free))
        self.base_likeness = self._likeness(self.bare)
        self.base_recall = tags.of(self.bare) if tags is not None else None

    def of(self, images: Sequence[Path], free: Sequence[Path]) -> Measured:
        """Return the numbers of a variant, of images in the order of the base's."""
        drawn = load(images)
        moved = 1 - np.diag(self.by.similarity(self.by.describe(load(free)), self.free))
        recall = self.tags.of(drawn) - self.base_recall if self.tags is not None and self.base_recall is not None else None
        return Measured(self._likeness(drawn) - self.base_likeness, -float(moved.mean()), recall)

    def _likeness(self, images: Sequence[Image.Image]) -> float:
        """Return the mean similarity of images to their nearest training image."""
        return float(self.by.similarity(self.by.describe(images), self.trained).max(axis=1).mean())


class TagRecall:
    """Share of the prompts' tags that a tagger finds."""

    def __init__(self, tagger: Tagger, threshold: float, prompts: Sequence[str]) -> None:
        """Keep the tags of each prompt that the tagger can find."""
        self._tagger, self._threshold = tagger, threshold
        vocabulary = tagger.vocabulary()
        self._tags = [{tag.strip() for tag in prompt.split(",")} & vocabulary for prompt in prompts]

    def of(self, images: Sequence[Image.Image]) -> float:
        """Return the share of tags found, over the images of all prompts."""
        hits = total = 0
        for image, tags in zip(images, self._tags, strict=True):
            hits += len(tags.intersection(self._tagger.tags(image, self._threshold))) if tags else 0
            total += len(tags)
        return hits / total if total else 0.0


def load(paths: Sequence[Path]) -> list[Image.Image]:
    """Return decoded images.

    Raises:
        StepFailed: every image that is missing or broken.
    """
    images: list[Image.Image] = []
    problems: list[Problem] = []
    for path in paths:
        try:
            with Image.open(path) as file:
                images.append(file.convert("RGB"))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            problems.append(Problem(str(path), f"cannot be read: {error}", "run the same command with --force"))
    if problems:
        raise StepFailed(problems)
    return images


def training_images(dataset: Path) -> list[Path]:
    """Return the largest trained copy of each original of the subject.

    Args:
        dataset: folder of a finished dataset step.

    Raises:
        StepFailed: its manifest cannot be read.
    """
    try:
        pictures: list[Mapping[str, Any]] = json.loads((dataset / MANIFEST).read_text("utf-8"))["pictures"]
    except (OSError, ValueError, KeyError) as error:
        raise StepFailed(Problem(str(dataset / MANIFEST), f"cannot be read: {error}", "run the dataset step again")) from error
    largest: dict[str, Mapping[str, Any]] = {}
    for picture in pictures:
        source = str(picture["source"])
        if not picture["regularization"] and (source not in largest or largest[source]["size"] < picture["size"]):
            largest[source] = picture
    return [dataset / str(picture["file"]) for picture in largest.values()]
