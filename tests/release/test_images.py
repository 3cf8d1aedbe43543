"""The preview and its parameters."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from PIL import Image

from bundles import folder

if TYPE_CHECKING:
    from pathlib import Path


def test_the_preview_holds_its_parameters(runs: Path) -> None:
    path = folder(runs, "krnk-locon")
    with Image.open(path / "krnk-locon.png") as picture:
        text = picture.info["parameters"]
        assert min(picture.size) >= 512
    lines = text.splitlines()
    assert lines[0].startswith("krnk, simple background")
    assert lines[0].endswith("<lora:krnk-locon:1>")
    assert lines[1] == "Negative prompt: worst quality, low quality"
    settings = dict(pair.split(": ", 1) for pair in re.split(r", (?=[A-Z])", lines[2]))
    assert settings["Steps"] == "28"
    assert settings["Sampler"] == "Euler a"
    assert settings["Seed"] == "31337"
    assert settings["Model"] == "Defmix-v2.0"
