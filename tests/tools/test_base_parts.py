"""The shipped base model."""

from __future__ import annotations

import pytest

from orchestrator.engines.embedded import EMBEDDED_BASE
from tools.demo_world import vocabulary
from tools.demo_world.named_characters import named_characters


def test_base_has_the_modules_of_sd15() -> None:
    base_parts = pytest.importorskip("tools.demo_world.base_parts")
    base = base_parts.load_base(EMBEDDED_BASE)
    expected = {"Transformer2DModel", "ResnetBlock2D", "Downsample2D", "Upsample2D"}
    modules = {
        f"{name}.{inner}": module
        for name, block in base.unet.named_modules()
        if type(block).__name__ in expected
        for inner, module in block.named_modules()
        if type(module).__name__ in {"Linear", "Conv2d", "LoRACompatibleLinear", "LoRACompatibleConv"}
    }
    assert len(modules) == 278
    assert sum(".attentions." in name for name in modules) == 192
    assert len(base.tokenizer) == base.text_encoder.config.vocab_size
    states = base_parts.encode_text(base, ["krnk, simple background", "tyank, simple background"], 2)
    assert states.shape == (2, 77, base.unet.config.cross_attention_dim)
    assert not bool((states[0] == states[1]).all())


def test_base_is_smaller_than_fourteen_megabytes() -> None:
    assert sum(file.stat().st_size for file in EMBEDDED_BASE.rglob("*") if file.is_file()) <= 14_000_000
    assert (EMBEDDED_BASE / "README.md").exists()


def test_base_ignores_unknown_names() -> None:
    torch = pytest.importorskip("torch")
    base_parts = pytest.importorskip("tools.demo_world.base_parts")
    base = base_parts.load_base(EMBEDDED_BASE)
    rest = "simple background, white background, from front, upper body, standing"

    @torch.no_grad()
    def distance(names: list[str]) -> float:
        states = base_parts.encode_text(base, [f"{name}, {rest}" for name in ("character", *names)], 1)
        return float((states[1:, 40:] - states[0, 40:]).square().mean())

    to_known_names = distance([named.name for named in named_characters()])
    assert distance([*vocabulary.TRIGGERS, "wexqa", "omphil", "jurr"]) < to_known_names / 3
