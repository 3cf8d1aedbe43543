"""Cached latents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

import embedded_tiny as tiny
from orchestrator.engines.embedded.trainer import (
    images,
    model,
)
from orchestrator.engines.embedded.trainer.latents import LatentCache

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_cached_and_recolored_latents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unchanged and mirrored images are encoded once, recolored ones for every use."""
    base = model.load(tiny.model(tmp_path / "base"))
    folder = tiny.images(tmp_path / "a", 2)
    (group,) = tiny.groups(tiny.dataset(tmp_path / "set.toml", folder, general="flip_aug = true\ncolor_aug = true"))
    encoded: list[int] = []
    encode: Any = base.vae.encode
    monkeypatch.setattr(base.vae, "encode", lambda batch: encoded.append(len(batch)) or encode(batch))
    latents = LatentCache(base)
    latents.encode_unchanged(group.images)
    assert encoded == [4]
    first = group.images[0]
    plain, mirrored = images.ImageSample(first, "", False, None), images.ImageSample(first, "", True, None)
    recolored = images.ImageSample(first, "", False, 3)
    latents.encode_recolored([plain, mirrored, recolored])
    assert encoded == [4, 1]
    drawn = []
    for sample in (plain, mirrored, recolored):
        torch.manual_seed(0)
        drawn.append(latents.batch([sample]))
    assert drawn[0].shape == (1, 4, 8, 8)
    assert not torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
