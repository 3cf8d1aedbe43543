"""Deltas of every family, as LyCORIS computes them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from orchestrator.weights.families import deltas, kinds
from orchestrator.weights.families.kinds import ModuleKind
from weights_samples import CONV, LAYERS, TE, tensors

torch = pytest.importorskip("torch", reason="torch is not installed: there is no LyCORIS to compare with")
pytest.importorskip("lycoris", reason="lycoris-lora is not installed")

SHAPES = {"linear": (16, 8, None), "1x1": (8, 12, 1), "3x3": (16, 8, 3)}


def _module(algo: str, layer: tuple[int, int, int | None], **options: Any) -> Any:
    from lycoris.modules import boft, diag_oft, full, glora, ia3, locon, loha, lokr  # noqa: PLC0415

    classes = {
        "lora": locon.LoConModule,
        "loha": loha.LohaModule,
        "lokr": lokr.LokrModule,
        "full": full.FullModule,
        "ia3": ia3.IA3Module,
        "glora": glora.GLoRAModule,
        "diag-oft": diag_oft.DiagOFTModule,
        "boft": boft.ButterflyOFTModule,
    }
    outputs, inputs, kernel = layer
    torch.manual_seed(7)
    base = torch.nn.Conv2d(inputs, outputs, kernel, bias=False) if kernel else torch.nn.Linear(inputs, outputs, bias=False)
    options = {"lora_dim": 4, "alpha": 2, **options}
    made = classes[algo]("it", base, 1.0, **options)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3)
    return made.eval(), base


def _parts(module: Any) -> dict[str, Any]:
    return {name: value.detach().float().numpy() for name, value in module.state_dict().items()}


def _probed(module: Any, base: Any) -> Any:
    """The module's addition to the layer's weight.

    It is computed from the output for every unit input.
    """
    with torch.no_grad():
        if isinstance(base, torch.nn.Linear):
            unit = torch.eye(base.in_features)
            return (module(unit) - base(unit)).T.numpy()
        kernel = base.kernel_size
        unit = torch.eye(base.in_channels * kernel[0] * kernel[1]).reshape(-1, base.in_channels, *kernel)
        return (module(unit) - base(unit)).reshape(len(unit), -1).T.numpy()


CASES = [
    ("lora", {}),
    ("lora", {"use_tucker": True}),
    ("lora", {"use_scalar": True}),
    ("lora", {"rs_lora": True}),
    ("loha", {}),
    ("loha", {"use_tucker": True}),
    ("lokr", {}),
    ("lokr", {"use_tucker": True, "lora_dim": 1, "alpha": 0.5}),
    ("lokr", {"decompose_both": True, "lora_dim": 1, "alpha": 0.5, "factor": 4}),
    ("lokr", {"full_matrix": True}),
    ("lokr", {"lora_dim": 1, "alpha": 3}),
    ("ia3", {}),
    ("ia3", {"train_on_input": True}),
    ("glora", {}),
    ("diag-oft", {}),
    ("diag-oft", {"constraint": 0.01}),
    ("diag-oft", {"rescaled": True}),
    ("boft", {}),
    ("boft", {"rescaled": True}),
    ("lora", {"weight_decompose": True}),
    ("lora", {"weight_decompose": True, "wd_on_out": False}),
    ("loha", {"weight_decompose": True}),
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("algo", "options"), CASES, ids=str)
def test_deltas_are_those_of_lycoris(algo: str, options: dict[str, Any], shape: str) -> None:
    module, base = _module(algo, SHAPES[shape], **options)
    parts = _parts(module)
    kind = kinds.recognize({part: value.shape for part, value in parts.items()})
    assert kind is not None
    weight = base.weight.detach().numpy()
    computed = deltas.delta(kind, parts, weight if kind.needs_base or "dora_scale" in parts else None)
    np.testing.assert_allclose(computed.reshape(len(weight), -1), _probed(module, base), atol=3e-6)


def test_whole_differences_and_norms_are_stored_unchanged() -> None:
    rng = np.random.default_rng(1)
    full = tensors("full", (12, 8, 3), 4, rng)
    assert deltas.delta(ModuleKind.FULL, full) is full["diff"]
    norm = tensors("norm", (12, 8, None), 4, rng)
    assert deltas.delta(ModuleKind.NORM, norm) is norm["w_norm"]


def test_dylora_has_the_keys_of_lora() -> None:
    from lycoris.modules.dylora import DyLoraModule  # noqa: PLC0415

    module = DyLoraModule("it", torch.nn.Conv2d(8, 12, 3, bias=False), 1.0, lora_dim=4, alpha=2, block_size=2)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter))
    parts = _parts(module)
    assert kinds.recognize({part: value.shape for part, value in parts.items()}) is ModuleKind.LORA
    up, down = torch.cat(list(module.up_list), 1), torch.cat(list(module.down_list))
    expected = (0.5 * (up @ down)).detach().numpy()
    np.testing.assert_allclose(deltas.delta(ModuleKind.LORA, parts).reshape(12, -1), expected, atol=1e-5)


def test_scale_is_alpha_over_rank_and_one_without() -> None:
    parts = tensors("lora", LAYERS[CONV], 4, np.random.default_rng(0))
    assert deltas.scale(ModuleKind.LORA, parts) == 0.5
    assert deltas.scale(ModuleKind.LORA, {**parts, "alpha": np.array(0, np.float32)}) == 1
    del parts["alpha"]
    assert deltas.scale(ModuleKind.LORA, parts) == 1


def test_a_delta_without_its_base_is_an_error() -> None:
    parts = tensors("diag-oft", LAYERS[TE], 4, np.random.default_rng(0))
    with pytest.raises(ValueError, match="base model"):
        deltas.delta(ModuleKind.DIAG_OFT, parts)
