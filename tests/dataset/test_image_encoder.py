"""An ONNX image encoder.

Preprocessing, embeddings, and files that are none.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from onnx_models import CLIP, encoder, field, model_bytes, value
from orchestrator.dataset import image_encoder
from orchestrator.dataset.image_encoder import CONFIG, ImageEncoder, prepared, preprocessing
from orchestrator.errors import NotReady

if TYPE_CHECKING:
    from pathlib import Path


def test_embeddings_have_length_1_and_their_cosines_compare_images(tmp_path: Path) -> None:
    opened = ImageEncoder(encoder(tmp_path / "clip-small"))
    images = [Image.new("RGB", (12, 20), colour) for colour in ((255, 0, 0), (250, 10, 5), (0, 0, 255))]
    rows = opened.describe(images)
    assert np.allclose(np.linalg.norm(rows, axis=1), 1)
    assert np.allclose(rows[0] * 3**0.5, (1, -1, -1), atol=1e-5)
    cosines = image_encoder.similarity(rows, rows)
    assert cosines[0, 1] > 0.98 > cosines[0, 2]
    assert opened.name == "clip-small"


def test_the_model_is_found_below_onnx_or_alone(tmp_path: Path) -> None:
    folder = encoder(tmp_path / "hub")
    (folder / "onnx").mkdir()
    (folder / "vision_model.onnx").rename(folder / "onnx" / "vision_model.onnx")
    ImageEncoder(folder)
    ImageEncoder(encoder(tmp_path / "alone", "any.onnx"))


@pytest.mark.parametrize(
    ("config", "size", "shortest"),
    [
        (CLIP, (8, 8), 8),
        ({"size": {"height": 6, "width": 4}}, (4, 6), None),
        ({"size": 7}, (7, 7), None),
        ({"size": {"shortest_edge": 5}}, (5, 5), 5),
        ({"size": 9, "do_center_crop": True, "crop_size": 6}, (6, 6), 9),
    ],
)
def test_sizes_of_image_processors(
    tmp_path: Path, config: dict[str, Any], size: tuple[int, int], shortest: int | None
) -> None:
    (tmp_path / CONFIG).write_text(json.dumps(config))
    how = preprocessing(tmp_path / CONFIG)
    assert (how.size, how.shortest) == (size, shortest)
    assert prepared(Image.new("RGB", (30, 20)), how).shape == (1, 3, size[1], size[0])


def test_the_middle_of_a_wide_image_is_read(tmp_path: Path) -> None:
    (tmp_path / CONFIG).write_text(json.dumps(CLIP))
    image = Image.new("RGB", (24, 8), "black")
    image.paste("white", (8, 0, 16, 8))
    assert np.allclose(prepared(image, preprocessing(tmp_path / CONFIG)), 1)


def test_folders_that_hold_no_encoder_are_named(tmp_path: Path) -> None:
    with pytest.raises(NotReady, match="holds no ONNX file"):
        ImageEncoder(tmp_path)
    folder = encoder(tmp_path / "a")
    (folder / CONFIG).unlink()
    with pytest.raises(NotReady, match=r"preprocessor_config\.json  cannot be read"):
        ImageEncoder(folder)
    with pytest.raises(NotReady, match="is not a usable image processor: has no size"):
        ImageEncoder(encoder(tmp_path / "b", config={}))
    (encoder(tmp_path / "c") / "vision_model.onnx").write_bytes(b"no model")
    with pytest.raises(NotReady, match="is not a usable ONNX model"):
        ImageEncoder(tmp_path / "c")
    several = encoder(tmp_path / "d", "x.onnx")
    (several / "y.onnx").write_bytes(b"")
    with pytest.raises(NotReady, match="holds 2 ONNX files"):
        ImageEncoder(several)


def test_a_model_of_text_and_images_is_refused(tmp_path: Path) -> None:
    folder = encoder(tmp_path / "both")
    node = field(1, "pixel_values") + field(2, "out") + field(4, "Identity")
    other = field(1, "input_ids") + field(2, "ids") + field(4, "Identity")
    graph = field(1, node, other) + field(2, "both")
    graph += field(11, value("pixel_values", "n", 3, 8, 8), value("input_ids", "n", 4, 4, 4))
    graph += field(12, value("out", "n", 3, 8, 8), value("ids", "n", 4, 4, 4))
    (folder / "vision_model.onnx").write_bytes(model_bytes(graph))
    with pytest.raises(NotReady, match=r"takes pixel_values .*input_ids"):
        ImageEncoder(folder)
