"""Hashes of images and their cache."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dataset_cases import SOURCE, VIEWS, face, made
from orchestrator.dataset import lint
from orchestrator.dataset.lint import image_hash

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_a_second_check_decodes_nothing(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = lint.hash_cache(good)
    table = made(sources={"krnk": SOURCE}, vocabulary=VIEWS)
    first = lint.check(table, good, cache=cache).as_json()
    decoded: list[str] = []
    real = image_hash.hash_image

    def spy(path: Path) -> image_hash.ImageHash:
        decoded.append(path.name)
        return real(path)

    monkeypatch.setattr(image_hash, "hash_image", spy)
    assert lint.check(table, good, cache=cache).as_json() == first
    assert decoded == []
    face(70).save(good / "data" / "f01.png")
    lint.check(table, good, cache=cache)
    assert decoded == ["f01.png"]
    cache.put({"broken": [1, 2, 3, 4, 5]})
    assert lint.check(table, good, cache=cache).errors() == []
    assert len(decoded) == 4
