"""PEFT's merge_and_unload is the truth for the adapters that it saves."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from lycoris.kohya import create_network_from_weights
from safetensors.torch import save_file
from torch import nn

from orchestrator.errors import RecipeError
from orchestrator.models import names
from orchestrator.weights.convert import convert
from orchestrator.weights.families import deltas, kinds
from orchestrator.weights.inspect import inspect
from orchestrator.weights.io import peft as settings_of_peft
from weights_samples import modules

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.weights.io.dtypes import Floats

peft = pytest.importorskip("peft", reason="a tool of the extra dev")

LAYERS: dict[str, tuple[int, int, int | None]] = {
    "down_blocks.0.attentions.0.proj_in": (8, 8, 1),
    "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q": (12, 8, None),
    "down_blocks.0.resnets.0.conv1": (12, 8, 3),
    "down_blocks.0.resnets.0.conv2": (12, 12, 3),
    "mid_block.attentions.0.transformer_blocks.0.ff.net.0.proj": (32, 8, None),
    "mid_block.attentions.0.transformer_blocks.0.attn1.to_v": (8, 8, None),
}
"""Path -> (out, in, kernel or None for a linear layer), some of them square."""
TARGETS = sorted({path.rpartition(".")[2] for path in LAYERS})
PATTERNS: dict[str, Any] = {
    "rank_pattern": {"conv1": 2, r"down_blocks\.\d+\..*to_q": 6},
    "alpha_pattern": {"mid_block.+proj": 5, "attn1.to_q": 3, "conv2": 10},
}
"""PEFT matches them as regular expressions that end a path; `conv2` and `proj` alone are endings too."""
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "lora": ("LoraConfig", {"r": 4, "lora_alpha": 6}),
    "patterns": ("LoraConfig", {"r": 4, "lora_alpha": 6, **PATTERNS}),
    "rank-stabilized": ("LoraConfig", {"r": 4, "lora_alpha": 6, "use_rslora": True, **PATTERNS}),
    "dora": ("LoraConfig", {"r": 4, "lora_alpha": 6, "use_dora": True}),
    "dora-patterns": ("LoraConfig", {"r": 4, "lora_alpha": 6, "use_dora": True, "use_rslora": True, **PATTERNS}),
    "loha": ("LoHaConfig", {"r": 2, "alpha": 8}),
    "loha-tucker": ("LoHaConfig", {"r": 2, "alpha": 8, "use_effective_conv2d": True, **PATTERNS}),
    "lokr": ("LoKrConfig", {"r": 2, "alpha": 3, **PATTERNS}),
    "lokr-whole": ("LoKrConfig", {"r": 32, "alpha": 8, "alpha_pattern": {"conv1": 5}, "rank_pattern": {"conv2": 16}}),
    "lokr-decomposed": ("LoKrConfig", {"r": 1, "alpha": 8, "decompose_both": True, "decompose_factor": 4}),
    "lokr-tucker": ("LoKrConfig", {"r": 1, "alpha": 8, "use_effective_conv2d": True, "decompose_factor": 2}),
}


def _model() -> nn.Module:
    """Return a model of SD1's paths with small random layers."""
    generator = torch.Generator().manual_seed(0)
    model = nn.Module()
    for path, (outputs, inputs, kernel) in LAYERS.items():
        *parents, last = path.split(".")
        parent = model
        for name in parents:
            if not hasattr(parent, name):
                parent.add_module(name, nn.Module())
            parent = getattr(parent, name)
        parent.add_module(last, nn.Conv2d(inputs, outputs, kernel, padding="same") if kernel else nn.Linear(inputs, outputs))
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    return model


def _adapted(folder: Path, name: str, **more: Any) -> tuple[Path, dict[str, Floats], dict[str, Floats]]:
    """Return an adapter that PEFT saved, its deltas by PEFT, and the base weights."""
    kind, settings = CONFIGS[name]
    base = _model()
    targets = {} if "target_modules" in more else {"target_modules": TARGETS}
    model = peft.get_peft_model(copy.deepcopy(base), getattr(peft, kind)(**targets, **settings, **more))
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.5
    model.save_pretrained(folder)
    merged = model.merge_and_unload()
    weights = {names.kohya(path, "sd1"): base.get_submodule(path).weight.detach().numpy() for path in LAYERS}
    changes = {
        names.kohya(path, "sd1"): (merged.get_submodule(path).weight - base.get_submodule(path).weight).detach().numpy()
        for path in LAYERS
    }
    checkpoint = {f"unet/{path}.weight": base.get_submodule(path).weight.detach().contiguous() for path in LAYERS}
    save_file(checkpoint, folder / "base.safetensors")
    return folder / "adapter_model.safetensors", changes, weights


def _deltas(path: Path, base: dict[str, Floats]) -> dict[str, Floats]:
    changes = {}
    for name, parts in modules(path).items():
        kind = kinds.recognize({part: value.shape for part, value in parts.items()})
        assert kind is not None
        changes[name] = deltas.delta(kind, parts, base[name]).reshape(base[name].shape)
    return changes


def _same(ours: dict[str, Floats], theirs: dict[str, Floats]) -> None:
    assert ours.keys() == theirs.keys()
    for name, change in theirs.items():
        np.testing.assert_allclose(ours[name], change, rtol=2e-5, atol=2e-5 * float(np.abs(change).max()), err_msg=name)


@pytest.mark.parametrize("name", CONFIGS)
def test_converted_adapters_have_the_deltas_of_peft(tmp_path: Path, name: str) -> None:
    source, theirs, base = _adapted(tmp_path, name)
    for form in ("kohya", "full"):
        output = tmp_path / f"{form}.safetensors"
        convert(source, output, form, base_model=tmp_path / "base.safetensors" if form == "full" else None)
        _same(_deltas(output, base), theirs)


# LyCORIS 3.4.0 cannot load the core of a LoKr, nor a decomposed first matrix beside a whole second one.
@pytest.mark.parametrize("name", [name for name in CONFIGS if name not in {"lokr-tucker", "lokr-decomposed"}])
def test_lycoris_loads_converted_adapters(tmp_path: Path, name: str) -> None:
    source, theirs, base = _adapted(tmp_path, name)
    convert(source, tmp_path / "out.safetensors", "kohya")
    model = _model()
    network, _ = create_network_from_weights(1.0, str(tmp_path / "out.safetensors"), None, None, model)
    assert len(network.unet_loras) == len(theirs)
    for path, (_, inputs, kernel) in LAYERS.items():
        layer = model.get_submodule(path)
        (module,) = (module for module in network.unet_loras if module.lora_name == names.kohya(path, "sd1"))
        signal = torch.randn(2, inputs, *((5, 5) if kernel else ()), generator=torch.Generator().manual_seed(2))
        ours = module.forward(signal).detach().numpy()  # its get_diff_weight applies alpha / rank twice
        layer.weight.data = torch.from_numpy(base[module.lora_name] + theirs[module.lora_name])
        np.testing.assert_allclose(ours, layer(signal).detach().numpy(), rtol=1e-4, atol=1e-3, err_msg=path)


def test_files_without_their_settings_have_no_known_alpha(tmp_path: Path) -> None:
    source, _, _ = _adapted(tmp_path, "loha")
    assert inspect(source).to_json()["alphas"] == {"8": 6}
    assert not convert(source, tmp_path / "with.safetensors", "kohya").lacks_scales
    (tmp_path / "adapter_config.json").unlink()
    report = inspect(source).to_json()
    assert (report["alphas"], report["lacks_scales"]) == ({}, True)
    assert "not known without adapter_config.json" in convert(source, tmp_path / "out.safetensors", "kohya").table()[-1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"peft_type": "ADALORA"}, "ADALORA of PEFT is not a LoRA"),
        ({"init_lora_weights": "pissa_niter_4"}, "pissa_niter_4 changed the base model"),
        ({"fan_in_fan_out": True, "layer_replication": [[0, 4]]}, "(?s)fan_in_fan_out.+layer_replication"),
        ({"alpha_pattern": {"(a+)+b": 2}}, "repeats too much"),
        ({"alpha_pattern": {"(to_q": 2}}, "is not a regular expression"),
        ({"lora_alpha": 0}, "is 0, which turns the LoRA off"),
        ({"lora_alpha": 3, "lora_bias": True}, "lora_bias"),
    ],
)
def test_settings_with_another_delta_are_refused(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    source, _, _ = _adapted(tmp_path, "lora")
    config = tmp_path / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text("utf-8")) | settings), "utf-8")
    with pytest.raises(RecipeError, match=message):
        convert(source, tmp_path / "out.safetensors", "full")


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("IA3Config", {"target_modules": TARGETS, "feedforward_modules": ["proj"]}, "IA3"),
        ("OFTConfig", {"target_modules": ["to_q", "to_v"], "oft_block_size": 4}, "OFT"),
        ("VeraConfig", {"target_modules": ["to_q"], "r": 2}, "VERA"),
        ("HRAConfig", {"target_modules": ["to_q"], "r": 2}, "HRA"),
        ("FourierFTConfig", {"target_modules": ["to_q"], "n_frequency": 8}, "FOURIERFT"),
        ("AdaLoraConfig", {"target_modules": ["to_q"], "total_step": 9}, "(?i)adalora"),
        ("LoraConfig", {"target_modules": ["to_q"], "modules_to_save": ["conv1"]}, "modules_to_save"),
    ],
)
def test_other_adapters_of_peft_are_refused_by_name(tmp_path: Path, kind: str, settings: dict[str, Any], message: str) -> None:
    model = peft.get_peft_model(_model(), getattr(peft, kind)(**settings))
    model.save_pretrained(tmp_path)
    source = tmp_path / "adapter_model.safetensors"
    for remove in (False, True):
        if remove:
            (tmp_path / "adapter_config.json").unlink()
        with pytest.raises(RecipeError, match=message) as caught:
            inspect(source)
        assert len(caught.value.problems) == 1


@pytest.mark.parametrize("pattern", [{}, {"rank_pattern": {"to_q": 4}}, {"alpha_pattern": {"to_q": 8}}])
def test_a_bias_is_read_where_every_scale_is_one(tmp_path: Path, pattern: dict[str, Any]) -> None:
    """PEFT scales the bias too, and the bias of kohya's names is not scaled."""
    settings = {"r": 8, "lora_alpha": 8, "lora_bias": True, **pattern}
    assert [name for name, _, _ in settings_of_peft._refusals(settings)] == (["lora_bias"] if pattern else [])
