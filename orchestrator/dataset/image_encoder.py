"""Embed images by an ONNX encoder of the user: CLIP, DINO, CCIP.

It needs the extra ``tagger`` (onnxruntime). Nothing is fetched: the folder holds the model and its preprocessor_config.json,
whose keys are those of image processors on the Hub.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from PIL import Image

from orchestrator.dataset.onnx_session import open_model
from orchestrator.errors import NotReady, Problem

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

CONFIG: Final = "preprocessor_config.json"
MODELS: Final = ("vision_model.onnx", "model_feat.onnx", "model.onnx")
"""Names of the model in its folder or in ``onnx/``, by preference. Any other name, if it is the only one."""
_OUTPUTS: Final = ("image_embeds", "pooler_output", "embedding", "output", "last_hidden_state")
_MEAN: Final = (0.48145466, 0.4578275, 0.40821073)
_STD: Final = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """Input of an encoder: size in pixels, crop, scale and normalization.

    ``shortest``: the image is scaled to this shorter side and cropped in the middle; otherwise stretched to ``size``.
    """

    size: tuple[int, int]
    shortest: int | None
    resample: int
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]


class ImageEncoder:
    """An encoder with its preprocessing."""

    def __init__(self, folder: Path) -> None:
        """Open the encoder in ``folder``.

        Raises:
            NotReady: the extra or a file is missing, or the model takes something else than images.
        """
        self.folder = folder
        self.name = folder.name
        model = _model(folder)
        self._prepared = preprocessing(folder / CONFIG)
        self._session = open_model(model, "the encoder's folder holds another model")
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or len(inputs[0].shape) != 4:
            names = ", ".join(f"{each.name} {each.shape}" for each in inputs)
            hint = "an encoder takes images alone [n, 3, height, width]: of CLIP the vision model, vision_model.onnx"
            raise NotReady(Problem(str(model), f"takes {names}", hint))
        self._input = inputs[0].name
        outputs = [output.name for output in self._session.get_outputs()]
        self._output = next((name for name in _OUTPUTS if name in outputs), outputs[0])

    def describe(self, images: Iterable[Image.Image]) -> NDArray[np.float32]:
        """Return a row of length 1 per image, (n, d)."""
        rows = [self._row(image) for image in images]
        return np.stack(rows) if rows else np.zeros((0, 1), np.float32)

    def _row(self, image: Image.Image) -> NDArray[np.float32]:
        output = self._session.run([self._output], {self._input: prepared(image, self._prepared)})[0][0]
        vector = np.asarray(output[0] if output.ndim == 2 else output, dtype=np.float32).ravel()  # the class token of a ViT
        return vector / max(float(np.linalg.norm(vector)), 1e-12)


def similarity(left: NDArray[np.float32], right: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the cosines (n, m) of rows of ``left`` (n, d), ``right`` (m, d)."""
    return np.asarray(left @ right.T, dtype=np.float32)


def prepared(image: Image.Image, how: Preprocessing) -> NDArray[np.float32]:
    """Return the input of one image, float32 [1, 3, height, width]."""
    image = image.convert("RGB")
    width, height = how.size
    if how.shortest is None:
        image = image.resize(how.size, Image.Resampling(how.resample))
    else:
        factor = how.shortest / min(image.size)
        scaled = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
        image = image.resize(scaled, Image.Resampling(how.resample))
        left, top = (image.width - width) // 2, (image.height - height) // 2
        image = image.crop((left, top, left + width, top + height))
    pixels = np.asarray(image, dtype=np.float32) * np.float32(how.scale)
    pixels = np.asarray((pixels - np.asarray(how.mean, np.float32)) / np.asarray(how.std, np.float32), dtype=np.float32)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], dtype=np.float32)


def preprocessing(path: Path) -> Preprocessing:
    """Read the preprocessing of an encoder.

    Raises:
        NotReady: the file is missing or holds no usable size.
    """
    hint = f"{CONFIG} of the model on the Hub; at least size, image_mean, image_std"
    try:
        return _preprocessing(json.loads(path.read_text("utf-8")))
    except OSError as error:
        raise NotReady(Problem(str(path), f"cannot be read: {error.strerror}", hint)) from error
    except (ValueError, TypeError, AttributeError) as error:
        raise NotReady(Problem(str(path), f"is not a usable image processor: {error}", hint)) from error


def _preprocessing(table: dict[str, Any]) -> Preprocessing:
    size = _sides(table.get("crop_size") if table.get("do_center_crop") else table.get("size"))
    size = size or _sides(table.get("size"))
    scaled = table.get("size")
    shortest = scaled.get("shortest_edge") if isinstance(scaled, dict) else scaled if table.get("do_center_crop") else None
    size = size or ((shortest, shortest) if isinstance(shortest, int) else None)
    if size is None or min(size) < 1:
        raise ValueError("has no size")
    normalized = table.get("do_normalize", True)
    return Preprocessing(
        size=size,
        shortest=int(shortest) if shortest is not None else None,
        resample=int(table.get("resample", Image.Resampling.BICUBIC)),
        scale=float(table.get("rescale_factor", 1 / 255)) if table.get("do_rescale", True) else 1.0,
        mean=tuple(map(float, table.get("image_mean", _MEAN))) if normalized else (0.0,) * 3,
        std=tuple(map(float, table.get("image_std", _STD))) if normalized else (1.0,) * 3,
    )


def _sides(value: Any) -> tuple[int, int] | None:
    """Return width and height of a size of an image processor."""
    match value:
        case int():
            return (value, value)
        case {"width": int(width), "height": int(height)}:
            return (width, height)
        case _:
            return None


def _model(folder: Path) -> Path:
    candidates = [path for name in MODELS for path in (folder / name, folder / "onnx" / name)]
    model = next((path for path in candidates if path.is_file()), None)
    others = sorted(folder.glob("*.onnx"))
    if model is None and len(others) != 1:
        what = f"holds {len(others)} ONNX files" if others else "holds no ONNX file"
        raise NotReady(Problem(str(folder), what, f"an encoder is one of {', '.join(MODELS)} with its {CONFIG}"))
    return model or others[0]
