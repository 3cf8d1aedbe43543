"""Link a built dataset for a training with caches on disk.

See training.cache_latents and training.cache_text_encoder_outputs = "disk".

sd-scripts writes latents and outputs of text encoders beside the images, and a built dataset is never changed. So the training
reads links in its own work folder. The caches beside them belong to its models and are deleted with the links.
"""

from __future__ import annotations

import json
import re
import shutil
from typing import TYPE_CHECKING, Final

from orchestrator.dataset.naming import MANIFEST

if TYPE_CHECKING:
    from pathlib import Path

FOLDER: Final = "latents"


def link_images(built: Path, work: Path) -> None:
    """Link every image and caption below ``work``/latents.

    Latents in that folder stay.

    Raises:
        OSError: the dataset cannot be read, or the work folder cannot be written.
        ValueError: the dataset's manifest is not JSON.
    """
    for name in json.loads((built / MANIFEST).read_text("utf-8"))["files"]:
        link, target = work / FOLDER / name, built.absolute() / name
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink() or link.readlink() != target:
            link.unlink(missing_ok=True)
            link.symlink_to(target)


def clear(work: Path) -> None:
    """Remove the links and the latents beside them."""
    if (work / FOLDER).is_dir():
        shutil.rmtree(work / FOLDER)


def latent_caches(image: Path) -> list[Path]:
    """Return sd-scripts' caches of latents and text outputs of an image."""
    if image.suffix != ".png":
        return []
    pattern = re.compile(re.escape(image.stem) + r"(_\d+x\d+(_\w+)?|_[a-z0-9]+_te)?\.npz")
    return [path for path in image.parent.glob("*.npz") if pattern.fullmatch(path.name)]
