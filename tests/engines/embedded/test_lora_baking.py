"""Networks baked into a model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import embedded_tiny as tiny
from orchestrator.engines.embedded.trainer import (
    lora_baking,
    model,
)

FAMILIES = {
    "lora": tiny.LORA,
    "locon": tiny.locon(Path("preset.toml")),
    "loha": tiny.loha(Path("preset.toml")),
    "lokr": ("--network_module", "lycoris.kohya", "--network_args", "algo=lokr", "factor=2", "preset=preset.toml"),
    "norms": ("--network_module", "lycoris.kohya", "--network_args", "algo=locon", "train_norm=True", "preset=preset.toml"),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_baked_weights_equal_those_of_training(base: Path, preset: Path, tmp_path: Path, family: str) -> None:
    words = [word.replace("preset.toml", str(preset)) for word in FAMILIES[family]]
    file = tmp_path / f"{family}.safetensors"
    built, trained = tiny.network_file(base, words, file)
    built.network.train(mode=False)
    plain = model.load(base)
    baked = lora_baking.BakedModel(plain, [file])
    baked.set([1.0])

    def prediction(loaded: model.DiffusionModel) -> torch.Tensor:
        torch.manual_seed(1)
        text = model.encode_text(loaded, model.tokens(loaded, ["krnk, cat ears"]), 2)
        result: torch.Tensor = loaded.unet(torch.randn(1, 4, 8, 8), torch.tensor([300]), text, return_dict=False)[0]
        return result

    with torch.no_grad():
        built.network.rebuild()
        torch.testing.assert_close(prediction(plain), prediction(trained), rtol=1e-3, atol=1e-3)


def test_networks_add_up_and_can_be_removed(base: Path, lora: Path) -> None:
    loaded = model.load(base)
    layer = loaded.unet.down_blocks[0].resnets[0].conv1
    weight = layer.weight.detach().clone()
    baked = lora_baking.BakedModel(loaded, [lora, lora])
    baked.set([0.25, 0.5])
    both = layer.weight.detach().clone()
    baked.set([0.75, 0.0])
    torch.testing.assert_close(both, layer.weight.detach())
    assert not torch.equal(both, weight)
    baked.set([0.0, 0.0])
    assert torch.equal(layer.weight, weight)
