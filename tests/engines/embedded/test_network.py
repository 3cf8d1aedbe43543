"""Networks: the lean form against LyCORIS' own modules, every algorithm it trains, names, presets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import embedded_tiny as tiny
from orchestrator.engines.embedded.trainer import (
    cli_options,
    lycoris_network,
    model,
    network,
    network_spec,
    stacked_network,
    target_modules,
)
from orchestrator.engines.embedded.trainer.train_network import main
from orchestrator.errors import RecipeError
from orchestrator.models import layers, sd1

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from pathlib import Path

PRESET = tiny.PRESET


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        torch.set_num_threads(1)
        yield


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.model(tmp_path_factory.mktemp("model") / "base")


@pytest.fixture(scope="module")
def preset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("preset") / "preset.toml"
    file.write_text(PRESET)
    return file


def asked(base: Path, *words: str, **said: Any) -> argparse.Namespace:
    return cli_options.parse(tiny.arguments(base, base / "none.toml", base / "out", *words, **said))


def answer(loaded: model.DiffusionModel, built: network_spec.BuiltNetwork) -> torch.Tensor:
    """What the U-Net says to a fixed question through the text encoder, so that both halves count."""
    torch.manual_seed(1)
    built.network.rebuild()
    text = model.encode_text(loaded, model.tokens(loaded, ["krnk, cat ears", "a b"]), 2)
    result: torch.Tensor = loaded.unet(torch.randn(2, 4, 8, 8), torch.tensor([500, 20]), text, return_dict=False)[0]
    return result


def randomized(built: network_spec.BuiltNetwork) -> dict[str, torch.Tensor]:
    """Give every factor a value, so that nothing is zero; the file's tensors."""
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in built.network.parameters():
            parameter.normal_(std=0.3)
    return built.network.saved()


@pytest.mark.parametrize(("algorithm", "tucker"), [("locon", "True"), ("locon", "False"), ("loha", "True"), ("loha", "False")])
def test_lean_equals_lycoris(base: Path, preset: Path, algorithm: str, tucker: str) -> None:
    words = (
        "--network_module",
        "lycoris.kohya",
        "--network_args",
        f"algo={algorithm}",
        f"use_tucker={tucker}",
        f"preset={preset}",
    )
    want = network_spec.read(asked(base, *words, "conv_dim=3", "conv_alpha=2"))
    here, there = model.load(base), model.load(base)
    mine = network.build(here, want)
    assert isinstance(mine.network, stacked_network.StackedNetwork)
    tensors = randomized(mine)
    theirs = lycoris_network.build(there, want, None)
    own_names = {key: value.shape for key, value in theirs.network.saved().items()}
    assert {key: value.shape for key, value in tensors.items()} == own_names
    theirs.network.load(tensors)
    expected = answer(there, theirs)
    torch.testing.assert_close(answer(here, mine), expected, rtol=2e-4, atol=2e-4)
    answer(here, mine).square().mean().backward()
    assert all(parameter.grad is not None and bool(parameter.grad.abs().sum() > 0) for parameter in mine.network.parameters())


def test_networks_lora_equals_the_added_output(base: Path) -> None:
    """networks.lora with a dropout of 0.5 in evaluation adds the adapter's output; without dropout the weight is rebuilt."""
    here, there = model.load(base), model.load(base)
    mine = network.build(here, network_spec.read(asked(base, *tiny.LORA)))
    tensors = randomized(mine)
    theirs = network.build(there, network_spec.read(asked(base, *tiny.LORA, network_dropout=0.5)))
    assert (mine.stacked, theirs.stacked) == (True, False)
    assert (theirs.text_modules, theirs.unet_modules) == (mine.text_modules, mine.unet_modules) == (12, 278)
    theirs.network.load(tensors)
    theirs.network.train(mode=False)
    torch.testing.assert_close(answer(here, mine), answer(there, theirs), rtol=2e-4, atol=2e-4)


def test_a_fresh_network_changes_nothing(base: Path) -> None:
    plain = model.load(base)
    silent = network_spec.BuiltNetwork(_Silent(), nn.ModuleList(), nn.ModuleList(), 0, 0, stacked=True)
    expected = answer(plain, silent)
    loaded = model.load(base)
    built = network.build(loaded, network_spec.read(asked(base, *tiny.LORA)))
    torch.testing.assert_close(answer(loaded, built), expected, rtol=1e-5, atol=1e-5)


class _Silent:
    def rebuild(self) -> None:
        """Nothing to do."""


@pytest.mark.parametrize("algorithm", ["lora", "loha"])
@pytest.mark.parametrize("tucker", [True, False])
def test_what_is_saved_can_be_loaded(base: Path, algorithm: str, *, tucker: bool) -> None:
    def made() -> stacked_network.StackedNetwork:
        text, unet = target_modules.find(model.load(base), ALL, target_modules.AdapterRanks(4, 2.0, 3, 1.0))
        return stacked_network.StackedNetwork(text, unet, algorithm, tucker=tucker)

    one, two = made(), made()
    for parameter in one.parameters():
        nn.init.normal_(parameter)
    two.load(one.saved())
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    with pytest.raises(ValueError, match="has shape"):
        two.load({key: torch.zeros(1, 1) for key in one.saved()})


ALL = target_modules.LayerSelection(target_modules.UNET_ATTENTION + target_modules.UNET_CONVOLUTION)


def test_names_and_shapes_are_those_that_the_plan_predicts(base: Path) -> None:
    """The plan knows a file's layers without torch; what the engine adapts must be the same ones."""
    text, unet = target_modules.find(model.load(base), ALL, target_modules.AdapterRanks(4, 2.0, 4, 2.0))
    known = {layer.name for layer in leaves(base)}
    assert {target.name for target in text + unet} <= known
    assert len(text) == 12
    assert len(unet) == 278


def leaves(base: Path) -> Any:
    return layers.layers(sd1.folder_model(base))


def test_selection_of_networks_lora_and_of_presets(base: Path) -> None:
    loaded = model.load(base)
    counts = {}
    for name, words in {
        "lora": ("--network_module", "networks.lora"),
        "lora3x3": tiny.LORA,
        "full": ("--network_module", "lycoris.kohya"),
        "attn-mlp": ("--network_module", "lycoris.kohya", "--network_args", "preset=attn-mlp"),
    }.items():
        want = network_spec.read(asked(base, *words))
        text, unet = target_modules.find(loaded, network_spec.selection(want), network_spec.ranks(want))
        counts[name] = (len(text), len(unet))
    assert counts == {"lora": (12, 192), "lora3x3": (12, 278), "full": (12, 282), "attn-mlp": (12, 192)}


def test_text_encoder_names_do_not_depend_on_the_version_of_transformers(base: Path) -> None:
    loaded = model.load(base)
    names = [name for name, _ in target_modules.text_root(loaded.text_encoder).named_modules()]
    newer = [name for name, _ in target_modules.text_root(loaded.text_encoder.text_model).named_modules()]
    assert "text_model.encoder.layers.0.self_attn.q_proj" in names
    assert "text_model.encoder.layers.0.self_attn.q_proj" in newer


ALGORITHMS = {
    "lokr": ("algo=lokr", "factor=2"),
    "dylora": ("algo=dylora",),
    "glora": ("algo=glora",),
    "diag-oft": ("algo=diag-oft",),
    "boft": ("algo=boft",),
    "dora": ("algo=locon", "dora_wd=True"),
    "dropout": ("algo=loha", "rank_dropout=0.2", "module_dropout=0.1"),
    "norms": ("algo=locon", "train_norm=True"),
}


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_other_algorithms_train(base: Path, preset: Path, tmp_path: Path, name: str) -> None:
    toml = tiny.dataset(tmp_path / "set.toml", tiny.pictures(tmp_path / "a"))
    words = ("--network_module", "lycoris.kohya", "--network_args", f"preset={preset}", *ALGORITHMS[name])
    assert main(tiny.arguments(base, toml, tmp_path, *words, max_train_steps=2)) == 0
    tensors = load_file(tmp_path / "krnk.safetensors")
    assert any(key.startswith("lora_te_text_model_encoder_layers_0_") for key in tensors)
    assert any(key.startswith("lora_unet_down_blocks_0_resnets_0_conv1.") for key in tensors)
    assert all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values())


def test_lycoris_class_settings_are_put_back(base: Path, preset: Path) -> None:
    before = list(lycoris_network.LycorisNetworkKohya.UNET_TARGET_REPLACE_NAME)
    words = ("--network_module", "lycoris.kohya", "--network_args", f"preset={preset}", "algo=lokr")
    network.build(model.load(base), network_spec.read(asked(base, *words)))
    assert before == lycoris_network.LycorisNetworkKohya.UNET_TARGET_REPLACE_NAME


@pytest.mark.parametrize("algorithm", ["ia3", "full"])
def test_what_lycoris_cannot_train_is_refused(base: Path, algorithm: str) -> None:
    words = ("--network_module", "lycoris.kohya", "--network_args", f"algo={algorithm}")
    with pytest.raises(RecipeError, match=f"algo {algorithm} cannot be trained with lycoris-lora 3.4.0"):
        network.build(model.load(base), network_spec.read(asked(base, *words)))
