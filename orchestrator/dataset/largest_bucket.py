"""Make the largest bucket of a built dataset a dataset of its own."""

from __future__ import annotations

import json
import math
import tomllib
from pathlib import Path
from typing import Any

from orchestrator.dataset import sd_scripts_toml
from orchestrator.dataset.naming import MANIFEST


def link_images(built: Path, folder: Path) -> None:
    """Link the images of the largest bucket below ``folder``.

    Their captions are linked, too, and a dataset.toml is written.

    Raises:
        OSError: the dataset cannot be read, or ``folder`` cannot be written.
        ValueError: it has no images.
        KeyError: its manifest lacks a key.
    """
    images: list[dict[str, Any]] = json.loads((built / MANIFEST).read_text("utf-8"))["pictures"]
    table = tomllib.loads((built / sd_scripts_toml.FILE).read_text("utf-8"))
    first = max((image for image in images if not image["regularization"]), key=_size)
    same = [image for image in images if _size(image) == _size(first) and image["bucket"] == first["bucket"]]
    chosen = [Path(image["file"]) for image in same]
    for path in chosen:
        for name in (path, path.with_suffix(table["general"]["caption_extension"])):
            if (built / name).exists():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).symlink_to(built.absolute() / name)
    parents = {path.parent.as_posix() for path in chosen}
    trained = (dataset for dataset in table["datasets"] if not dataset.get("validation_split"))
    (dataset,) = (dataset for dataset in trained if dataset["resolution"] == first["resolution"])
    dataset["subsets"] = [subset for subset in dataset["subsets"] if subset["image_dir"] in parents]
    (folder / sd_scripts_toml.FILE).write_text(
        sd_scripts_toml.dump({"general": table["general"], "datasets": [dataset]}), "utf-8"
    )


def _size(image: dict[str, Any]) -> tuple[int, int]:
    return math.prod(image["resolution"]), math.prod(image["bucket"])
