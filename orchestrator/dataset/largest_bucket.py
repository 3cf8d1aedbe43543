"""The largest bucket of a built dataset as a dataset of its own, to measure what a step of it costs."""

from __future__ import annotations

import json
import math
import tomllib
from pathlib import Path
from typing import Any

from orchestrator.dataset import sd_scripts_toml
from orchestrator.dataset.naming import MANIFEST


def link_images(built: Path, folder: Path) -> None:
    """Link the pictures of the largest bucket, with captions, below ``folder``, and write its dataset.toml.

    Raises:
        OSError: the dataset cannot be read, or ``folder`` cannot be written.
        ValueError: it has no pictures.
        KeyError: its manifest is not what a build writes.
    """
    said: list[dict[str, Any]] = json.loads((built / MANIFEST).read_text("utf-8"))["pictures"]
    table = tomllib.loads((built / sd_scripts_toml.FILE).read_text("utf-8"))
    first = max((one for one in said if not one["regularization"]), key=_size)
    chosen = [Path(one["file"]) for one in said if _size(one) == _size(first) and one["bucket"] == first["bucket"]]
    for picture in chosen:
        for name in (picture, picture.with_suffix(table["general"]["caption_extension"])):
            if (built / name).exists():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).symlink_to(built.absolute() / name)
    parents = {picture.parent.as_posix() for picture in chosen}
    (one,) = (one for one in table["datasets"] if one["resolution"] == first["resolution"])
    one["subsets"] = [subset for subset in one["subsets"] if subset["image_dir"] in parents]
    (folder / sd_scripts_toml.FILE).write_text(sd_scripts_toml.dump({"general": table["general"], "datasets": [one]}), "utf-8")


def _size(picture: dict[str, Any]) -> tuple[int, int]:
    return math.prod(picture["resolution"]), math.prod(picture["bucket"])
