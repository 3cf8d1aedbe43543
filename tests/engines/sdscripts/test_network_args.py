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


PRESET = "/w/preset.toml"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"family": "lora"}, []),
        ({"family": "lora", "conv_dim": 4, "conv_alpha": 1.5}, ["conv_dim=4", "conv_alpha=1.5"]),
        ({"family": "locon"}, ["conv_dim=0", "algo=locon", f"preset={PRESET}"]),
        (
            {"family": "locon", "conv_dim": 4, "conv_alpha": 2.0, "tucker": True, "bypass": True},
            ["conv_dim=4", "conv_alpha=2", "algo=locon", "use_tucker=True", "bypass_mode=True", f"preset={PRESET}"],
        ),
        ({"family": "full"}, ["algo=full", f"preset={PRESET}"]),
        # kohya.py reads "False" of decompose_both as true.
        (
            {"family": "lokr", "args": {"decompose_both": False, "rs_lora": False, "factor": 8}},
            ["conv_dim=0", "algo=lokr", f"preset={PRESET}", "rs_lora=False", "factor=8"],
        ),
        (
            {"family": "lokr", "args": {"decompose_both": True}},
            ["conv_dim=0", "algo=lokr", f"preset={PRESET}", "decompose_both=True"],
        ),
    ],
)
def test_the_arguments_of_a_family(fields: dict[str, Any], expected: list[str]) -> None:
    network = Network(dim=8, alpha=4.0, **fields)
    assert network_args.arguments(network, "" if network.family == "lora" else PRESET) == expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"family": "dylora", "dim": 8, "conv_dim": 4}, []),
        ({"family": "dylora", "dim": 6, "conv_dim": 2, "args": {"block_size": 2}}, []),
        (
            {"family": "dylora", "dim": 6, "conv_dim": 9},
            [
                ("network.dim", "is 6; dylora takes a multiple of its block_size, 4"),
                ("network.conv_dim", "is 9; dylora takes a multiple of its block_size, 4"),
            ],
        ),
        ({"family": "dylora", "dim": 6, "args": {"block_size": 0}}, []),
        ({"family": "loha", "args": {"use_scalar": 1}}, [("network.args.use_scalar", "is 1; takes true or false")]),
        ({"family": "lokr", "args": {"factor": True}}, [("network.args.factor", "is True; takes a whole number")]),
        ({"family": "lokr", "args": {"factor": -1}}, []),
        ({"family": "lora", "args": {"block_dims": 4}}, [("network.args.block_dims", "is 4; takes text")]),
        ({"family": "loha", "args": {"module_dropout": 1}}, []),
        (
            {"family": "loha", "args": {"module_dropout": 1.1}},
            [("network.args.module_dropout", "is 1.1; takes a number from 0 to 1")],
        ),
        (
            {"family": "loha", "args": {"loraplus_lr_ratio": -1}},
            [("network.args.loraplus_lr_ratio", "is -1; takes a number of at least 0")],
        ),
        ({"family": "loha", "args": {"loraplus_lr_ratio": 16}}, []),
        ({"family": "loha", "args": {"constrain": 1}}, [("network.args.constrain", "loha takes no such argument")]),
        (
            {"family": "loha", "args": {"constraint": 1}},
            [("network.args.constraint", "loha takes no such argument (diag-oft, boft does)")],
        ),
        ({"family": "loha", "args": {"network_dim": 1}}, [("network.args.network_dim", "set network.dim instead")]),
        ({"family": "full", "bypass": True}, [("network.bypass", "full has no bypass mode that works")]),
        (
            {"family": "locon", "bypass": True, "args": {"dora_wd": True}},
            [("network.bypass", "dora_wd normalizes the rebuilt weight, which bypass mode does not build")],
        ),
        ({"family": "locon", "args": {"dora_wd": True}}, []),
        ({"family": "lora", "dropout": 0.1}, []),
        ({"family": "lora", "args": {"down_lr_weight": "1", "block_alphas": "1"}}, []),
    ],
)
def test_values_that_a_family_misreads_are_named(fields: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    assert list(network_args.problems(Network(**{"dim": 8, "alpha": 4.0, **fields}))) == expected


@pytest.mark.parametrize(
    ("fields", "resume", "resize", "merge"),
    [
        ({"family": "lora"}, False, False, False),
        ({"family": "locon"}, False, False, False),
        ({"family": "locon", "tucker": True}, False, True, True),
        ({"family": "locon", "args": {"dora_wd": True}}, False, True, True),
        ({"family": "locon", "args": {"dora_wd": False, "use_scalar": False}}, False, False, False),
        ({"family": "locon", "args": {"use_scalar": True}}, True, False, False),
        ({"family": "full", "args": {"use_scalar": True}}, False, True, True),
        ({"family": "loha"}, False, True, True),
        ({"family": "dylora"}, True, True, True),
    ],
)
def test_programs_that_would_corrupt_a_network(fields: dict[str, Any], resume: bool, resize: bool, merge: bool) -> None:
    network = Network(**{"dim": 8, "alpha": 4.0, **fields})
    reasons = (network_args.no_resume(network), network_args.no_resize(network), network_args.no_merge(network))
    assert tuple(map(bool, reasons)) == (resume, resize, merge)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "True"),
        (64, "64"),
        (64.0, "64"),
        (4.4e-05, "4.4e-05"),
        (-0.5, "-0.5"),
        (2.0**53, "9007199254740992.0"),
        (2.0**52, "4503599627370496"),
        ("a b", "a b"),
    ],
)
def test_numbers_have_the_form_of_sd_scripts(value: float | str, text: str) -> None:
    assert network_args.text(value) == text


def test_an_option_is_its_name_with_its_values() -> None:
    assert network_args.option("lowram", True) == ["--lowram"]
    assert network_args.option("lowram", False) == []
    assert network_args.option("steps", 8) == ["--steps", "8"]
    assert network_args.option("base_weights", ("a", "b")) == ["--base_weights", "a", "b"]
