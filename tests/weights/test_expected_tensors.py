"""Predicted modules and bytes against the released files and against LyCORIS."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator.engines.sdscripts import network_args
from orchestrator.errors import NotReady
from orchestrator.models import layers
from orchestrator.models.bases import flux, sd1, sdxl
from orchestrator.recipe import Network, Preset, Recipe, loader
from orchestrator.weights.families import expected_tensors, module_shapes

if TYPE_CHECKING:
    from orchestrator.models.layers import Model

ROOT = Path(__file__).resolve().parents[2]
INVENTORY = ROOT / "tests" / "data" / "recordings" / "sd15-lora-modules.json"


def recipe(name: str) -> Recipe:
    return loader.recipe(ROOT / "recipes", name).recipe


def changed(base: Recipe, **network: Any) -> Recipe:
    return base.model_copy(update={"network": base.network.model_copy(update=network)})


@pytest.mark.parametrize(("name", "size"), [("krnk-lora3x3", 311476924), ("krnk-locon", 212845244), ("krnk-loha", 100893372)])
def test_the_released_sizes_are_predicted_to_the_byte(name: str, size: int) -> None:
    message = expected_tensors.predict(recipe(name), sd1.MODEL)
    assert message == expected_tensors.Predicted(size, 350, 72, 278)


def test_lycoris_with_its_own_preset_trains_four_modules_more() -> None:
    full = changed(recipe("krnk-locon"), tucker=False, preset=None)
    assert expected_tensors.predict(full, sd1.MODEL) == expected_tensors.Predicted(313371332, 354, 72, 282)


def test_the_modules_are_those_of_the_released_files() -> None:
    for name in ("krnk-lora3x3", "krnk-locon"):
        modules = expected_tensors.modules(recipe(name), sd1.MODEL)
        assert {module.name: [module.out, module.in_, module.kernel, module.conv] for module in modules} == json.loads(
            INVENTORY.read_text("utf-8")
        )
        assert len(modules) == 350


def test_without_conv_dim_only_the_attention_blocks_are_trained() -> None:
    message = expected_tensors.predict(changed(recipe("krnk-lora3x3"), conv_dim=None, conv_alpha=None), sd1.MODEL)
    assert message is not None
    assert (message.text_encoder, message.unet) == (72, 192)


def test_precision_and_halves_change_the_prediction() -> None:
    base = recipe("krnk-lora3x3")
    for training, size, modules in (
        ({"save_precision": "float"}, 2 * 311476924, 350),
        ({"train": "unet"}, None, 278),
        ({"train": "text_encoder"}, None, 72),
    ):
        other = base.model_copy(update={"training": base.training.model_copy(update=training)})
        message = expected_tensors.predict(other, sd1.MODEL)
        assert message is not None
        assert message.modules == modules
        assert size is None or message.tensor_bytes == size


@pytest.mark.parametrize(
    ("preset", "model", "predicted"),
    [
        (Preset(unet_target_name=("img_in",)), flux.MODEL, False),
        (Preset(unet_target_module=("DoubleStreamBlock",)), flux.MODEL, True),
        (None, flux.MODEL, True),
        (Preset(unet_target_name=("conv_in",)), sd1.MODEL, True),
    ],
)
def test_layers_outside_the_blocks_have_no_formula_where_only_blocks_are_known(
    preset: Preset | None, model: Model, *, predicted: bool
) -> None:
    made = expected_tensors.predict(changed(recipe("krnk-locon"), preset=preset), model)
    assert (made is not None) == predicted


@pytest.mark.parametrize("argument", ["train_norm", "block_dims", "conv_block_dims", "down_lr_weight"])
def test_arguments_that_change_the_tensors_have_no_formula(argument: str) -> None:
    base = recipe("krnk-locon")
    for value in (0, 1):
        made = expected_tensors.predict(changed(base, args={**base.network.args, argument: value}), sd1.MODEL)
        assert (made is None) == bool(value)


def test_sdxl_has_722_attention_layers_and_two_text_encoders() -> None:
    model_layers = layers.layers(sdxl.MODEL)
    assert sum("Transformer2DModel" in layer.classes for layer in model_layers) == 722
    assert sum(layer.name.startswith("lora_te1_") for layer in model_layers) == 72
    assert sum(layer.name.startswith("lora_te2_") for layer in model_layers) == 192
    names = [layer.name for layer in model_layers]
    assert len(names) == len(set(names))
    assert "lora_unet_output_blocks_5_2_conv" in names
    assert "lora_unet_input_blocks_4_1_transformer_blocks_1_attn2_to_k" in names


def test_a_model_folder_gives_its_own_sizes(tmp_path: Path) -> None:
    for part, config in (("unet", sd1.MODEL.unet), ("text_encoder", sd1.MODEL.text_encoders[0].config)):
        (tmp_path / part).mkdir()
        (tmp_path / part / "config.json").write_text(json.dumps(config), "utf-8")
    ours = sd1.folder_model(tmp_path)
    assert list(layers.layers(ours)) == list(layers.layers(sd1.MODEL))
    (tmp_path / "unet" / "config.json").write_text("{", "utf-8")
    with pytest.raises(NotReady, match="config"):
        sd1.folder_model(tmp_path)


def test_factorization_is_that_of_lycoris() -> None:
    functional = pytest.importorskip("lycoris.functional", reason="needs lycoris-lora")
    for dimension, factor in itertools.product((1, 4, 127, 128, 250, 320, 360, 768, 1280, 2560, 10240), (-1, 2, 4, 8, 10, 16)):
        pair = module_shapes.factorization(dimension, factor)
        assert pair == functional.factorization(dimension, factor), (dimension, factor)
        assert all(isinstance(size, int) for size in pair)


CASES: list[dict[str, Any]] = [
    {"family": "locon"},
    {"family": "locon", "tucker": True},
    {"family": "locon", "args": {"dora_wd": True}},
    {"family": "locon", "args": {"dora_wd": True, "wd_on_output": False}},
    {"family": "loha"},
    {"family": "loha", "tucker": True},
    {"family": "lokr"},
    {"family": "lokr", "dim": 4, "conv_dim": 4, "tucker": True, "args": {"factor": 4}},
    {"family": "lokr", "dim": 2, "conv_dim": 2, "args": {"decompose_both": True, "unbalanced_factorization": True}},
    {"family": "lokr", "args": {"full_matrix": True}},
    {"family": "dylora"},
    {"family": "glora"},
    {"family": "full", "conv_dim": None},
    {"family": "diag-oft", "args": {"rescaled": True}},
    {"family": "boft", "dim": 10, "conv_dim": 10, "args": {"rescaled": True}},
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: " ".join(str(value) for value in case.values()))
def test_every_tensor_of_lycoris_is_predicted(case: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The real modules on layers of SD1.5 save these names and shapes."""
    torch = pytest.importorskip("torch", reason="needs torch")
    kohya = pytest.importorskip("lycoris.kohya", reason="needs lycoris-lora")
    monkeypatch.setattr(kohya.logger, "disabled", True)
    network = Network(**{"dim": 8, "alpha": 4.0, "conv_dim": 8, "preset": Preset(), **case})
    kinds = [torch.nn.Linear(320, 640), torch.nn.Linear(768, 320, bias=False)]
    kinds += [torch.nn.Conv2d(320, 640, 3), torch.nn.Conv2d(640, 320, 1), torch.nn.Conv2d(320, 4, 3)]
    predicted: dict[str, tuple[int, ...]] = {}
    for number, layer in enumerate(kinds):
        conv = isinstance(layer, torch.nn.Conv2d)
        out, in_ = (layer.out_channels, layer.in_channels) if conv else (layer.out_features, layer.in_features)
        side = layer.kernel_size[0] if conv else 1
        module = layers.ModelLayer(f"lora_unet_block_{number}", out, in_, side, conv, layer.bias is not None)
        shapes = module_shapes.of(network, module)
        assert shapes is not None
        predicted |= {f"{module.name}.{part}": shape for part, shape in shapes.items()}
    unet = torch.nn.Module()
    unet.block = type("Transformer2DModel", (torch.nn.ModuleList,), {})(kinds)
    given = dict(argument.split("=", 1) for argument in network_args.arguments(network, ""))
    net = kohya.create_network(1.0, network.dim, network.alpha, None, torch.nn.Module(), unet, **given)
    net.apply_to(torch.nn.Module(), unet, False, True)
    assert predicted == {name: tuple(value.shape) for name, value in net.state_dict().items()}


def test_a_boft_that_cannot_be_split_is_not_predicted() -> None:
    network = Network(family="boft", dim=8, alpha=1.0, conv_dim=8)
    assert module_shapes.of(network, layers.ModelLayer("x", 320, 320, 1, conv=False)) is None
    assert module_shapes.of(network, layers.ModelLayer("x", 768, 320, 1, conv=False)) is not None


@pytest.mark.parametrize(("outputs", "split"), [(10, None), (12, None), (8, (4, 2)), (16, (4, 4)), (6, None), (2, (2, 1))])
def test_a_boft_divides_its_outputs_into_a_power_of_two(outputs: int, split: tuple[int, int] | None) -> None:
    """Blocks are even and of at most 4: 10 is no 4 times 2."""
    assert module_shapes._power2(outputs, 4) == split
