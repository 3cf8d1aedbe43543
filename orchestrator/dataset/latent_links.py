"""Latents on disk: sd-scripts writes them beside the pictures, and a built dataset is never changed.

So a training that asks for them (training.cache_latents = "disk") sees links to the pictures, in its own work folder: what
it leaves beside them is its own, of its own VAE, and goes when it is done.
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
    """Link every picture and caption of a built dataset below ``work``/latents; latents that lie there already stay.

    Raises:
        OSError: the dataset cannot be read, or the work folder cannot be written.
        ValueError: the dataset's manifest is not what a build writes.
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


def latent_caches(picture: Path) -> list[Path]:
    """Return what sd-scripts' cache_latents_to_disk left beside a picture: ``f00.npz``, ``f00_0512x0512_sd.npz``."""
    if picture.suffix != ".png":
        return []
    pattern = re.compile(re.escape(picture.stem) + r"(_\d+x\d+(_\w+)?)?\.npz")
    return [path for path in picture.parent.glob("*.npz") if pattern.fullmatch(path.name)]
