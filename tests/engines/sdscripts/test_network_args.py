"""Limits of the network families, measured with the real LyCORIS."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest

from engine_recipes import problems, variant
from orchestrator.engines.sdscripts import engine as sdscripts
from orchestrator.engines.sdscripts import (
    network_args,
)
from orchestrator.recipe import Network

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("no_checkout")


def test_families_that_cannot_resume_are_rejected_with_states(tmp_path: Path) -> None:
    for part, args in (
        ("_algorithms/dylora", ""),
        ("_algorithms/loha", "[network.args]\nuse_scalar = true\n"),
    ):
        text = "[training]\nstate_every_n_steps = 100\n" + args
        assert "could not be resumed" in problems(tmp_path, text, part), part
    for part in ("_algorithms/lokr", "_algorithms/full"):
        assert problems(tmp_path, "[training]\nstate_every_n_steps = 100\n", part) == ""
    text = '[network]\nweights = "x.safetensors"\n'
    assert "loads nothing of a DyLoRA file" in problems(tmp_path, text, "_algorithms/dylora")


@pytest.mark.parametrize("family", [family for family in network_args.ARGS if family not in ("lora", "full")])
def test_lycoris_trains_no_convolutions_without_conv_dim(family: str) -> None:
    """LyCORIS would take the linear rank for them (kohya.py create_network)."""
    assert "conv_dim=0" in network_args.arguments(Network(family=family, dim=8, alpha=4.0), "")


def test_networks_lora_and_full_take_no_rank_of_convolutions_by_themselves() -> None:
    for family in ("lora", "full"):
        assert not [arg for arg in network_args.arguments(Network(family=family, dim=8, alpha=4.0), "") if "conv_dim" in arg]


# Without networks.lora, sd-scripts' own: its parameters are its state.
@pytest.mark.parametrize("family", [family for family in network_args.ARGS if family != "lora"])
def test_the_families_that_resume_are_those_that_lycoris_loads_back(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Save and load the real modules as accelerate does, like no_resume."""
    torch = pytest.importorskip("torch", reason="needs torch")
    kohya = pytest.importorskip("lycoris.kohya", reason="needs lycoris-lora")
    monkeypatch.setattr(kohya.logger, "disabled", True)

    def network(**args: Any) -> tuple[Network, Any]:
        rank = 10 if family == "boft" else 8
        recipe = Network(family=family, dim=rank, alpha=4.0, conv_dim=None if family == "full" else rank, args=args)
        torch.manual_seed(1)
        unet = torch.nn.Module()
        layers = [torch.nn.Linear(64, 160), torch.nn.Conv2d(64, 160, 3)]
        unet.block = type("Transformer2DModel", (torch.nn.ModuleList,), {})(layers)
        options = dict(argument.split("=", 1) for argument in network_args.arguments(recipe, ""))
        net = kohya.create_network(1.0, recipe.dim, recipe.alpha, None, torch.nn.Module(), unet, **options)
        net.apply_to(torch.nn.Module(), unet, False, True)
        return recipe, net

    for args in ({}, {"use_scalar": True}) if "use_scalar" in network_args.ARGS[family] else ({},):
        recipe, first = network(**args)
        for parameter in first.parameters():
            parameter.data.normal_()
        state = {name: value.clone() for name, value in first.state_dict().items()}
        _, second = network(**args)
        try:
            second.load_state_dict(state)
            restored = dict(second.named_parameters())
            works = all(torch.allclose(value, restored[name], atol=1e-5) for name, value in first.named_parameters())
        except RuntimeError:
            works = False
        assert works == (network_args.no_resume(recipe) == ""), (family, args)


# Without a DyLoRA that has no bypass: it draws its blocks anew in every forward.
@pytest.mark.parametrize(
    ("family", "bypass"),
    [*itertools.product(["locon", "loha", "lokr", "glora", "diag-oft", "boft"], [False, True]), ("dylora", True)],
)
def test_accepted_dropouts_drop_something_out(family: str, bypass: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two forwards of the real modules differ in training and every bypass mode works, or the recipe is rejected."""
    torch = pytest.importorskip("torch", reason="needs torch")
    kohya = pytest.importorskip("lycoris.kohya", reason="needs lycoris-lora")
    monkeypatch.setattr(kohya.logger, "disabled", True)
    for name in ("dropout", "rank_dropout", "module_dropout"):
        more: dict[str, Any] = {"dropout": 0.5} if name == "dropout" else {"args": {name: 0.5}}
        rank = 10 if family == "boft" else 8
        recipe = Network(family=family, dim=rank, alpha=4.0, conv_dim=rank, bypass=bypass, **more)  # type: ignore[arg-type]
        torch.manual_seed(1)
        unet = torch.nn.Module()
        layers = [torch.nn.Linear(64, 160), torch.nn.Conv2d(64, 160, 3)]
        unet.block = type("Transformer2DModel", (torch.nn.ModuleList,), {})(layers)
        options: dict[str, Any] = dict(argument.split("=", 1) for argument in network_args.arguments(recipe, ""))
        options |= {"dropout": 0.5} if name == "dropout" else {}
        net = kohya.create_network(1.0, rank, 4.0, None, torch.nn.Module(), unet, **options)
        net.apply_to(torch.nn.Module(), unet, False, True)
        for parameter in net.parameters():
            parameter.data.normal_()
        net.train()
        images = (torch.randn(3, 64), torch.randn(3, 64, 8, 8))
        try:
            drops = all(
                any(not torch.allclose(layer(image), layer(image)) for _ in range(8))
                for layer, image in zip(layers, images, strict=True)
            )
        except RuntimeError:
            drops = False
        assert drops == (not list(network_args.problems(recipe))), (family, bypass, name)


def test_the_locked_lycoris_cannot_train_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch", reason="needs torch")
    full = pytest.importorskip("lycoris.modules.full", reason="needs lycoris-lora")
    module = full.FullModule("x", torch.nn.Linear(4, 4))
    module.apply_to()
    with pytest.raises(AttributeError, match="no attribute 'weight'"):
        module.forward(torch.zeros(1, 4))
    packages = tmp_path / "lib" / "python3.11" / "site-packages"
    for name in (
        "torch",
        "accelerate",
        "transformers",
        "diffusers",
        "bitsandbytes",
        "lycoris",
        "lycoris_lora-3.4.0.dist-info",
    ):
        (packages / name).mkdir(parents=True)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").touch()
    (tmp_path / "pyvenv.cfg").touch()
    monkeypatch.setenv("SD_SCRIPTS_PYTHON", str(tmp_path / "bin" / "python"))
    recipe = variant(tmp_path, "_algorithms/full")
    assert "cannot train full" in "\n".join(str(problem) for problem in sdscripts.preflight(recipe))
    (packages / "lycoris_lora-3.4.0.dist-info").rename(packages / "lycoris_lora-3.2.0.post2.dist-info")
    assert "lycoris-lora" not in "\n".join(str(problem) for problem in sdscripts.preflight(recipe))
