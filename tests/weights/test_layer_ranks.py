"""Layers and ranks that a recipe chooses, against the real network modules of sd-scripts.

The number of modules is that of create_network of sd-scripts v0.10.1 with these arguments, on layers of the full size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from engine_recipes import load, variant
from orchestrator import engines
from orchestrator.engines.sdscripts import network_args, result_checks
from orchestrator.models.registry import ARCHITECTURES, ArchitectureName
from orchestrator.weights.families import expected_tensors, layer_ranks

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.recipe import Recipe

Case = tuple[ArchitectureName, dict[str, Any], dict[str, str], int, dict[int, int]]
CASES: list[Case] = [
    (
        "flux",
        {"blocks": ("D00-D02", "S05", "S07-S09")},
        {"train_double_block_indices": "0-2", "train_single_block_indices": "5,7-9"},
        114,
        {4: 114},
    ),
    (
        "flux",
        {"blocks": ("S00",), "layer_dims": {"img_mlp": 2, "mlp": 0}},
        {
            "train_double_block_indices": "none",
            "train_single_block_indices": "0",
            "network_reg_dims": "img_mlp=2,mlp=0",
        },
        89,
        {2: 38, 4: 51},
    ),
    (
        "flux",
        {"args": {"img_attn_dim": 0, "single_dim": 8, "single_mod_dim": 2}},
        {"img_attn_dim": "0", "single_dim": "8", "single_mod_dim": "2"},
        338,
        {8: 76, 2: 38, 4: 224},
    ),
    (
        "sd3-medium",
        {"blocks": ("J00-J03", "J23"), "args": {"x_mlp_dim": 8, "context_mod_dim": 0}},
        {"train_block_indices": "0-3,23", "x_mlp_dim": "8", "context_mod_dim": "0"},
        306,
        {8: 10, 4: 296},
    ),
    (
        "anima",
        {"layer_dims": {r"blocks\.(0|1)\..*": 8, ".*mlp.*": 0}, "exclude": (".*cross_attn.*",)},
        {"network_reg_dims": r"blocks\.(0|1)\..*=8,.*mlp.*=0", "exclude_patterns": "['.*cross_attn.*']"},
        228,
        {8: 12, 4: 216},
    ),
    ("lumina", {"args": {"attn_dim": 2, "mod_dim": 0, "refiner_dim": 8}}, {"attn_dim": "2"}, 333, {2: 60, 8: 12, 4: 261}),
    (
        "hunyuan-image",
        {"blocks": ("D00", "S00-S38")},
        {"network_reg_dims": ("double_blocks_(1|2|3|4|5|6|7|8|9|10|11|12|13|14|15|16|17|18|19)_=0,single_blocks_(39)_=0")},
        127,
        {4: 127},
    ),
]


def chosen(architecture: ArchitectureName, network: dict[str, Any]) -> Recipe:
    base = load("krnk-lora3x3")
    plain = {"dim": 4, "alpha": 1.0, "conv_dim": None, "conv_alpha": None, "args": {}, "preset": None}
    return base.model_copy(
        update={
            "network": base.network.model_copy(update={**plain, **network}),
            "base": base.base.model_copy(update={"architecture": architecture}),
        }
    )


@pytest.mark.parametrize(("architecture", "network", "arguments", "modules", "ranks"), CASES)
def test_chosen_layers_are_those_of_the_trainer(
    architecture: ArchitectureName,
    network: dict[str, Any],
    arguments: dict[str, str],
    modules: int,
    ranks: dict[int, int],
) -> None:
    recipe, model = chosen(architecture, network), ARCHITECTURES[architecture].model
    given = dict(argument.split("=", 1) for argument in network_args.of(recipe, ""))
    assert arguments.items() <= given.items()
    rank = layer_ranks.ranks(recipe)
    counted: dict[int, int] = {}
    for layer in expected_tensors.modules(recipe, model):
        counted[rank(layer)] = counted.get(rank(layer), 0) + 1
    assert counted == ranks
    predicted = expected_tensors.predict(recipe, model)
    assert predicted is not None
    assert predicted.modules == modules
    values = sum(rank(one) * (one.in_ + one.out) + 1 for one in expected_tensors.modules(recipe, model))
    assert predicted.tensor_bytes == 2 * values
    assert result_checks.expected(recipe, None, None)["U-Net modules"] == predicted.unet


def included(**network: Any) -> set[str]:
    """Return the layers that Anima trains beyond its usual ones, and those that it lacks with a minus."""
    model = ARCHITECTURES["anima"].model
    usual, made = (
        {layer.dotted for layer in expected_tensors.modules(chosen("anima", each), model)} for each in ({}, network)
    )
    return (made - usual) | {f"-{name}" for name in usual - made}


def test_included_layers_are_trained_by_the_rules_of_the_network_module() -> None:
    """networks/lora_anima.py create_modules: classes, then patterns of whole names, then ranks."""
    final = {"final_layer.linear", "final_layer.adaln_modulation.1", "final_layer.adaln_modulation.2"}
    assert included(include=("final_layer.*",)) == final
    assert included(include=("final_layer",)) == set()  # a part of a name
    assert included(include=(".*_embedder.*",)) == {"x_embedder.proj.1", *(f"t_embedder.1.linear_{one}" for one in (1, 2))}
    assert len(included(include=(r"blocks\.\d+\.adaln_modulation_mlp.*",))) == 56
    assert included(include=("llm_adapter.*",)) == set()  # without train_llm_adapter
    assert included(include=(r"blocks\.0\..*q_proj",), exclude=(r"blocks\.0\..*",)) == {
        *(f"-blocks.0.{name}" for name in ("mlp.layer1", "mlp.layer2")),
        *(f"-blocks.0.{part}_attn.{name}" for part in ("self", "cross") for name in ("k_proj", "v_proj", "output_proj")),
    }
    assert included(include=("final_layer.*",), layer_dims={".*adaln.*": 0}) == {"final_layer.linear"}


@pytest.mark.parametrize(
    ("network", "modules", "values"),
    [
        ({"include": ("x_embedder.*",)}, 281, 4 * (2048 + 68) + 1),
        ({"include": (".*t_embedder.*",)}, 282, 4 * (2 * 2048 + 4 * 2048) + 2),
        ({"include": ("final_layer.*",)}, 283, 4 * (64 + 2048 + 2048 + 256 + 256 + 2 * 2048) + 3),
        (
            {"include": ("final_layer.*",), "layer_dims": {"final_layer.*": 2}},
            283,
            2 * (64 + 2 * 2048 + 2 * 256 + 2 * 2048) + 3,
        ),
    ],
)
def test_bytes_of_included_layers_are_predicted(network: dict[str, Any], modules: int, values: int) -> None:
    model = ARCHITECTURES["anima"].model
    usual, made = (expected_tensors.predict(chosen("anima", each), model) for each in ({}, network))
    assert usual is not None
    assert made is not None
    assert (made.unet, made.tensor_bytes - usual.tensor_bytes) == (modules, 2 * values)


def test_named_text_encoders_are_trained_and_predicted(tmp_path: Path) -> None:
    text = """unset = ["training.text_encoder_lr"]
[training]
train = "both"
cache_text_encoder_outputs = "no"
text_encoders = ["clip_l", "t5xxl"]
"""
    recipe = variant(tmp_path, "_algorithms/lora1x1", "_base/flux", text=text)
    assert engines.get("sd-scripts").check(recipe) == []
    assert network_args.of(recipe, "") == ["train_t5xxl=True"]
    predicted = expected_tensors.predict(recipe, expected_tensors.of(recipe))
    assert predicted is not None
    assert predicted.text_encoder == 72 + 168


def test_every_rate_of_a_list_reaches_the_command(tmp_path: Path) -> None:
    text = '[training]\ntrain = "both"\ntext_encoder_lr = [1e-5, 0.0]\n'
    recipe = variant(tmp_path, "_algorithms/lora1x1", "_base/flux", text=text)
    assert engines.get("sd-scripts").check(recipe) == []
    inputs = {name: tmp_path / name for name in ("dataset", "checkpoint", "clip_l", "t5xxl", "ae")}
    command = engines.get("sd-scripts").train(recipe, inputs, tmp_path, None)
    position = command.argv.index("--text_encoder_lr")
    assert command.argv[position + 1 : position + 3] == ("1e-05", "0")
