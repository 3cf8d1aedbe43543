"""Caption images by a WD14-style ONNX tagger.

It needs the extra ``tagger`` (onnxruntime).
"""

from __future__ import annotations

import csv
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from PIL import Image

from orchestrator.dataset import captions as wording
from orchestrator.dataset import image_io
from orchestrator.dataset.onnx_session import open_model
from orchestrator.errors import NotReady, Problem, StepFailed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from orchestrator.dataset.training_folder import DatasetImage, TrainingFolder
    from orchestrator.recipe import Dataset

TAGS: Final = "selected_tags.csv"
_GENERAL: Final = "0"  # category of the tag list; 4 are characters, 9 ratings
_SMILEYS: Final = frozenset(
    {
        "0_0",
        "(o)_(o)",
        "+_+",
        "+_-",
        "._.",
        "<o>_<o>",
        "<|>_<|>",
        "=_=",
        ">_<",
        "3_3",
        "6_9",
        ">_o",
        "@_@",
        "^_^",
        "o_o",
        "u_u",
        "x_x",
        "|_|",
        "||_||",
    }
)


@dataclass(frozen=True, slots=True)
class Tag:
    """One output of the model."""

    name: str
    category: str


def captions(
    dataset: Dataset, root: Path, images: dict[str, tuple[TrainingFolder, DatasetImage]], report: Callable[[str], None]
) -> dict[str, str]:
    """Return role -> caption of the images.

    A caption has the trigger and tags of the source, then the model's tags above the threshold, the best first.

    One thread per image: the sums inside the model then do not depend on the number of cores. ``report`` is called with the
    name of every finished image.

    Raises:
        NotReady: the extra or the model's files are missing.
        StepFailed: the model is not a WD14-style tagger.
    """
    tagger = Tagger(root / dataset.tagger_model)
    blocked = {plain(tag) for tag in dataset.tag_blacklist}

    def caption(item: tuple[TrainingFolder, DatasetImage]) -> str:
        folder, image = item
        source = dataset.sources[folder.source]
        color = source.background_color or dataset.background_color
        tags = tagger.tags(image_io.load(image.original, color), dataset.tagger_threshold)
        own = wording.fixed(folder.trigger, source.tags)
        excluded = {plain(tag) for tag in own.split(",")} | blocked
        report(image.name)
        return wording.joined((own, *(tag for tag in tags if tag not in excluded)))

    with image_io.without_warnings(), ThreadPoolExecutor(image_io.thread_count()) as pool:
        return dict(zip(images, pool.map(caption, images.values()), strict=True))


class Tagger:
    """A WD14-style model with its tag list."""

    def __init__(self, model: Path) -> None:
        """Open the model.

        Raises:
            NotReady: the extra or the model's files are missing.
            StepFailed: the model is not a WD14-style tagger.
        """
        self.model = model
        self.list = read_tags(model.with_name(TAGS))
        self._session, self._side = _session(model)

    def tags(self, image: Image.Image, threshold: float) -> list[str]:
        """Return the general tags of an image above a threshold, the best first.

        Raises:
            StepFailed: the tag list belongs to another model.
        """
        scores = _scores(self._session, _square(image, self._side))
        if len(scores) != len(self.list):
            what = f"returns {len(scores)} scores for {len(self.list)} tags in {TAGS}"
            raise StepFailed(Problem(str(self.model), what, "use the tag list of this model"))
        return chosen(self.list, scores, threshold)

    def vocabulary(self) -> set[str]:
        """Return the general tags that the model can find, as words."""
        return {plain(tag.name) for tag in self.list if tag.category == _GENERAL}


def chosen(tags: list[Tag], scores: list[float], threshold: float) -> list[str]:
    """Return the general tags above a threshold, as words."""
    pairs = [
        (score, tag.name) for tag, score in zip(tags, scores, strict=True) if tag.category == _GENERAL and score >= threshold
    ]
    return [plain(name) for _, name in sorted(pairs, key=lambda pair: (-pair[0], pair[1]))]


def plain(tag: str) -> str:
    """Return a tag as words.

    ``looking_at_viewer`` becomes ``looking at viewer``; smileys stay.
    """
    tag = tag.strip()
    return tag if tag in _SMILEYS else tag.replace("_", " ")


def read_tags(path: Path) -> list[Tag]:
    """Read the tag list of a model.

    It is a CSV with ``name`` and ``category``, one line per output.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return [Tag(row["name"], row["category"]) for row in csv.DictReader(file)]
    except OSError as error:
        raise NotReady(
            Problem(str(path), f"cannot be read: {error.strerror}", "it belongs beside the tagger's ONNX file")
        ) from error
    except KeyError as error:
        raise NotReady(Problem(str(path), f"has no column {error}", "columns tag_id,name,category,count")) from error


def _session(model: Path) -> tuple[Any, int]:
    """Return an inference session and the side of its square input in pixels."""
    session = open_model(model, "set dataset.tagger_model", threads=1)
    shape = session.get_inputs()[0].shape
    if len(shape) != 4 or shape[3] != 3 or not isinstance(shape[1], int) or shape[1] != shape[2]:
        raise StepFailed(Problem(str(model), f"takes {shape}, not [n, side, side, 3] as WD14 taggers do", "use another model"))
    return session, shape[1]


def _square(image: Image.Image, side: int) -> Image.Image:
    """Return the image in the middle of a white square.

    The taggers were trained on such squares, of ``side`` pixels.
    """
    longest = max(image.size)
    square = Image.new("RGB", (longest, longest), "#ffffff")
    square.paste(image, ((longest - image.width) // 2, (longest - image.height) // 2))
    return square.resize((side, side), Image.Resampling.BICUBIC)


def _scores(session: Any, image: Image.Image) -> list[float]:
    """Return the model's scores, 0..1, for one image.

    Its input is float32 BGR 0..255, [1, side, side, 3].
    """
    pixels = np.asarray(image, dtype=np.float32)[None, :, :, ::-1]
    output = session.run(None, {session.get_inputs()[0].name: np.ascontiguousarray(pixels)})[0]
    return [float(score) for score in output[0]]
