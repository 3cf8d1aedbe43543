"""Network modules and their arguments as [network]."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.importers import layer_choices
from orchestrator.importers.network import network
from orchestrator.importers.notes import ImportedSettings


def imported(
    module: str, args: dict[str, Any] | None = None, architecture: str = "sd1", **options: Any
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the table, and disposition, key and reason of each note by its name."""
    settings = ImportedSettings("cat", "sd-scripts TOML", extra={"architecture": architecture})
    table, family = network(settings, {"network_module": module, "network_args": args or {}, **options})
    assert family == table["family"]
    return table, {note.name: f"{note.disposition}: {note.where}: {note.why}" for note in settings.notes}


LYCORIS = "lycoris.kohya"


def test_a_network_that_states_nothing_is_a_lora_of_rank_4_and_alpha_1() -> None:
    assert imported("networks.lora")[0] == {"family": "lora", "dim": 4, "alpha": 1}


@pytest.mark.parametrize(
    ("module", "args", "architecture", "family"),
    [
        ("networks.lora", {}, "sd1", "lora"),
        ("networks.lora", {}, "sdxl", "lora"),
        ("networks.lora_flux", {}, "flux", "lora"),
        (LYCORIS, {}, "sd1", "locon"),  # its default
        (LYCORIS, {"algo": "lora"}, "sd1", "locon"),
        (LYCORIS, {"algo": "LoKr"}, "sd1", "lokr"),
        (LYCORIS, {"algo": "diag-oft"}, "sd1", "diag-oft"),
    ],
)
def test_the_family_of_a_module(module: str, args: dict[str, str], architecture: str, family: str) -> None:
    table, notes = imported(module, args, architecture)
    assert table["family"] == family
    assert notes["network_module"] == "kept: network.family: "
    assert notes.get("algo") == ("kept: network.family: " if args else None)


@pytest.mark.parametrize(
    ("module", "args", "what", "lost"),
    [
        ("networks.oft", {"block_size": "4"}, "networks.oft", {"block_size"}),
        ("networks.lora_fa", {"rank_dropout": "0.1", "loraplus_lr_ratio": "4"}, "networks.lora_fa", {"rank_dropout"}),
        (LYCORIS, {"algo": "ia3", "conv_dim": "4"}, "LyCORIS ia3", set()),
    ],
)
def test_an_unsupported_module_is_lost_with_its_arguments(
    module: str, args: dict[str, str], what: str, lost: set[str]
) -> None:
    """But ranks of convolutions, and rates of both factors, which a LoRA has too."""
    table, notes = imported(module, args)
    assert table["family"] == "lora"
    assert notes["network_module"] == f"lost: network.family: recipes cannot train {what}; lora is used"
    assert {name for name in args if notes[name] == f"lost: : of {what}, which recipes cannot train"} == lost
    assert table.get("conv_dim") == (4 if "conv_dim" in args else None)
    assert table.get("args", {}).keys() == {name for name in args if name.startswith("loraplus")}


@pytest.mark.parametrize(
    ("args", "options", "expected"),
    [
        ({}, {"network_alpha": 0}, {"dim": 8, "alpha": 8}),  # the trainer takes the rank
        ({}, {"network_alpha": "0.5"}, {"dim": 8, "alpha": 0.5}),
        ({"conv_dim": "4"}, {}, {"dim": 8, "alpha": 1, "conv_dim": 4}),
        ({"conv_dim": "4", "conv_alpha": "0"}, {}, {"dim": 8, "alpha": 1, "conv_dim": 4, "conv_alpha": 4}),
        ({"conv_dim": "4", "conv_alpha": "2"}, {}, {"dim": 8, "alpha": 1, "conv_dim": 4, "conv_alpha": 2}),
        ({"conv_dim": "0"}, {}, {"dim": 8, "alpha": 1}),
    ],
)
def test_ranks_and_alphas_of_a_lora(args: dict[str, str], options: dict[str, Any], expected: dict[str, float]) -> None:
    assert imported("networks.lora", args, network_dim=8, **options)[0] == {"family": "lora"} | expected


@pytest.mark.parametrize(
    ("args", "alpha", "expected", "note"),
    [
        ({}, 2, {"conv_dim": 8}, "changed: network.conv_dim: LyCORIS uses network_dim"),
        ({}, 0, {"conv_dim": 8, "conv_alpha": 8}, "changed: network.conv_dim: LyCORIS uses network_dim"),
        ({"conv_dim": "4", "conv_alpha": "2"}, 2, {"conv_dim": 4, "conv_alpha": 2}, "kept: network.conv_dim: "),
        ({"conv_dim": "0.0", "conv_alpha": "2"}, 2, {}, "changed: : rank 0: no convolutions are trained"),
    ],
)
def test_lycoris_trains_convolutions_unless_their_rank_is_0(
    args: dict[str, str], alpha: float, expected: dict[str, float], note: str
) -> None:
    table, notes = imported(LYCORIS, {"algo": "loha"} | args, network_dim=8, network_alpha=alpha)
    assert {key: table[key] for key in ("conv_dim", "conv_alpha") if key in table} == expected
    assert notes["conv_dim"].startswith(note)
    full = imported(LYCORIS, {"algo": "full"}, network_dim=8)[0]
    assert "conv_dim" not in full, "whole weights have no rank"


OFF = "kept: : off, as in a recipe without it"


@pytest.mark.parametrize(
    ("name", "value", "key", "read", "note"),
    [
        ("use_tucker", "True", "tucker", True, "kept: network.tucker: "),
        ("use_cp", "True", "tucker", True, "kept: network.tucker: "),
        ("use_tucker", "False", "tucker", None, OFF),
        ("bypass_mode", True, "bypass", True, "kept: network.bypass: "),
        ("dropout", "0.1", "dropout", 0.1, "kept: network.dropout: "),
        ("dropout", "0", "dropout", None, OFF),
    ],
)
def test_an_argument_with_a_key_of_its_own(name: str, value: Any, key: str, read: Any, note: str) -> None:
    table, notes = imported(LYCORIS, {"algo": "loha", name: value})
    assert (table.get(key), notes[name], "args" in table) == (read, note, False)


@pytest.mark.parametrize(
    ("name", "value", "read", "note"),
    [
        ("rank_dropout", "0.5", 0.5, "kept: network.args.rank_dropout: "),
        ("rank_dropout", "0", None, OFF),
        ("module_dropout", "0.0", None, OFF),
        ("dora_wd", "False", None, OFF),
        ("use_scalar", "", None, OFF),
        ("factor", "8.0", 8, "kept: network.args.factor: "),
        ("decompose_both", "False", None, "changed: network.args.decompose_both: off here; there it is the text False"),
        ("decompose_both", "True", True, "kept: network.args.decompose_both: "),
    ],
)
def test_any_other_argument_is_kept_unless_it_is_off(name: str, value: str, read: Any, note: str) -> None:
    table, notes = imported(LYCORIS, {"algo": "lokr", name: value})
    assert table.get("args", {}).get(name) == read
    assert notes[name].startswith(note)


@pytest.mark.parametrize(
    ("value", "read"), [("1,2, 3", "1,2,3"), ([1, 2, 3], "1,2,3"), ("2", "2"), ("sine", None), ("1;2", None)]
)
def test_lists_of_blocks_are_texts_of_numbers(value: Any, read: str | None) -> None:
    table, notes = imported("networks.lora", {"block_dims": value})
    assert str(table.get("args", {}).get("block_dims", "")).replace(" ", "") == (read or "")
    assert notes["block_dims"].startswith("kept" if read else "lost: : ")


def test_a_file_to_continue_and_a_dropout() -> None:
    table, _ = imported("networks.lora", network_weights="C:\\old.safetensors", network_dropout="0.25")
    assert (table["weights"], table["dropout"]) == ("old.safetensors", 0.25)
    assert imported("networks.lora", network_dropout=0)[0].keys() == {"family", "dim", "alpha"}


@pytest.mark.parametrize(
    ("preset", "note"),
    [
        ("full", "kept: : it is LyCORIS' default"),
        ("attn-only", "kept: network.preset: "),
        ("mine.toml", "lost: network.preset: mine.toml: write its modules into [network.preset]"),
    ],
)
def test_presets_of_lycoris(preset: str, note: str) -> None:
    table, notes = imported(LYCORIS, {"preset": preset})
    assert notes["preset"] == note
    assert ("preset" in table) == (preset == "attn-only")


@pytest.mark.parametrize(
    ("args", "blocks", "lost"),
    [
        ({}, None, set()),
        ({"train_blocks": "all"}, None, set()),
        ({"train_blocks": "double"}, ["D00-D18"], set()),
        ({"train_blocks": "single"}, ["S00-S37"], set()),
        ({"train_double_block_indices": "0-5,7"}, ["D00-D05", "D07", "S00-S37"], set()),
        ({"train_single_block_indices": "none"}, ["D00-D18"], set()),
        ({"train_double_block_indices": "all", "train_single_block_indices": "all"}, None, set()),
        ({"train_double_block_indices": "odd"}, None, {"train_double_block_indices"}),
        ({"train_double_block_indices": "1000"}, None, {"train_double_block_indices"}),
    ],
)
def test_blocks_of_flux(args: dict[str, str], blocks: list[str] | None, lost: set[str]) -> None:
    table, notes = imported("networks.lora_flux", args, "flux")
    assert table.get("blocks") == blocks
    assert {name for name in args if notes[name].startswith("lost")} == lost
    assert {name for name in args if notes[name].startswith("kept")} == args.keys() - lost


def test_ranks_rates_and_patterns_of_layers() -> None:
    args = {"network_reg_dims": "img=4, txt=0", "network_reg_lrs": "single=1e-4"}
    table, _ = imported("networks.lora_flux", args, "flux")
    assert (table["layer_dims"], table["layer_lrs"]) == ({"img": 4, "txt": 0}, {"single": 1e-4})
    _, notes = imported("networks.lora_flux", {"network_reg_dims": "img=wide"}, "flux")
    assert notes["network_reg_dims"].startswith("lost")
    table, _ = imported("networks.lora_anima", {"exclude_patterns": "['.*mlp.*', 'x']", "include_patterns": "y"}, "anima")
    assert (table["exclude"], table["include"]) == ([".*mlp.*", "x"], ["y"])


@pytest.mark.parametrize(("value", "encoders", "note"), [(True, ["clip_l", "t5xxl"], "kept: training"), ("False", None, OFF)])
def test_a_further_text_encoder_is_trained_where_its_argument_is_true(
    value: object, encoders: list[str] | None, note: str
) -> None:
    settings = ImportedSettings("cat", "x", extra={"architecture": "flux"})
    args: dict[str, Any] = {"train_t5xxl": value, "other": 1}
    layer_choices.network(settings, args, "lora")
    assert (settings.extra.get("text_encoders"), args) == (encoders, {"other": 1})
    (found,) = settings.notes
    assert f"{found.disposition}: {found.where}: {found.why}".startswith(note)
    args = {"train_t5xxl": value}
    assert layer_choices.network(settings, args, "lokr") == {}
    assert args, "these are arguments of the own module"
