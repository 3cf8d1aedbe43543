"""Commands of sd-scripts' resize_lora.py and svd_merge_lora.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from engine_recipes import ROOT, parsed, problems, variant
from orchestrator.engines.sdscripts import engine as sdscripts
from orchestrator.engines.sdscripts import (
    lora_tools,
)
from orchestrator.errors import RecipeError
from orchestrator.system import settings
from orchestrator.weights.ingredient import Ingredient
from orchestrator.weights.options import ResizeOptions

pytestmark = pytest.mark.usefixtures("no_checkout")


def test_a_resize_by_sd_scripts_needs_the_rank_rule_of_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = '[resize]\ntool = "sd-scripts"\n'
    assert 'this resize_lora.py has "sd-scripts-0.10"' in problems(tmp_path, text, "_algorithms/lora3x3")
    newer = tmp_path / "newer" / "networks"
    newer.mkdir(parents=True)
    (newer / "resize_lora.py").write_text("new_rank = index_sv_ratio(S, dynamic_param)\n", "utf-8")
    monkeypatch.setattr(settings, "sd_scripts", lambda: tmp_path / "newer")
    assert lora_tools.rank_rule(tmp_path / "newer") == "2023"
    assert "rank_rule" not in problems(tmp_path, text, "_algorithms/lora3x3")


@pytest.mark.parametrize("engine", ["sd-scripts", "embedded"])
def test_options_of_sd_scripts_tools_are_checked_by_either_engine(engine: str, tmp_path: Path) -> None:
    text = '[resize]\ntool = "sd-scripts"\nrank_rule = "sd-scripts-0.10"\n[resize.options]\nnew_rank = 3\n'
    assert "set resize.new_rank instead" in problems(tmp_path, text, "_algorithms/lora3x3", engine)
    with pytest.raises(RecipeError, match=r"set resize\.tool"):
        variant(tmp_path, "_algorithms/lora3x3", text='[resize.options]\ndevice = "cuda"\n')


def test_resize_and_merge_through_sd_scripts(tmp_path: Path) -> None:
    text = '[resize]\ntool = "sd-scripts"\nrank_rule = "sd-scripts-0.10"\n[merge]\ntool = "sd-scripts"\n'
    recipe = variant(tmp_path, "_algorithms/lora3x3", text=text)
    assert sdscripts.check(recipe) == []
    resize = lora_tools.command("resize", recipe, Path("/a.safetensors"), Path("/b.safetensors"), Path("/w"))
    assert resize.argv[1].endswith("networks/resize_lora.py")
    assert parsed(resize) == {
        "model": ["/a.safetensors"],
        "save_to": ["/b.safetensors"],
        "save_precision": ["fp16"],
        "new_rank": ["128"],
        "new_conv_rank": ["128"],
        "dynamic_method": ["sv_ratio"],
        "dynamic_param": ["16"],
        "verbose": [],
    }
    merge = parsed(lora_tools.command("merge", recipe, Path("/a.safetensors"), Path("/b.safetensors"), Path("/w")))
    assert len(json.loads(merge["lbws"][0])) == 26
    assert (merge["new_rank"], merge["new_conv_rank"], merge["ratios"]) == (["128"], ["128"], ["1"])
    more = '[merge.options]\ndevice = "cuda"\nnew_rank = 64\n[resize.options]\ndevice = "cuda"\n'
    recipe = variant(tmp_path, "_algorithms/lora3x3", text=text + more)
    assert sdscripts.check(recipe) == []
    merge = parsed(lora_tools.command("merge", recipe, Path("/a.safetensors"), Path("/b.safetensors"), Path("/w")))
    assert (merge["new_rank"], merge["new_conv_rank"], merge["device"]) == (["64"], ["128"], ["cuda"])
    resize = lora_tools.command("resize", recipe, Path("/a.safetensors"), Path("/b.safetensors"), Path("/w"))
    assert parsed(resize)["device"] == ["cuda"]
    for part in ("_algorithms/locon", "_algorithms/loha", "_algorithms/full"):
        with pytest.raises(RecipeError) as error:
            lora_tools.command("merge", variant(tmp_path, part), Path("/a"), Path("/b"), Path("/w"))
        (problem,) = error.value.problems
        assert problem.where.endswith(": merge.tool")
        assert problem.hint == 'leave merge.tool = "sd-scripts" out'


def test_a_file_that_the_tools_would_corrupt_is_rejected(tmp_path: Path) -> None:
    recordings = ROOT / "tests" / "data" / "recordings"
    options = ResizeOptions(method="sv_ratio", param=16.0, rank_rule="sd-scripts-0.10")
    lora_tools.resize(recordings / "lora3x3.safetensors", tmp_path / "x", tmp_path, options, (1, 1), {})
    for name, part in (("locon", "lora_mid.weight"), ("loha", "hada_t1")):
        with pytest.raises(RecipeError, match=part):
            lora_tools.resize(recordings / f"{name}.safetensors", tmp_path / "x", tmp_path, options, (1, 1), {})


def test_the_ranks_of_a_file_are_its_largest(tmp_path: Path) -> None:
    shapes = {"a": (2, 320), "b": (3, 320, 1, 1), "c": (5, 320, 3, 3), "d": (4, 640, 3, 3)}
    tensors = {f"lora_unet_{name}.lora_down.weight": np.zeros(shape, np.float16) for name, shape in shapes.items()}
    save_file(tensors | {"lora_unet_a.lora_up.weight": np.zeros((1280, 2), np.float16)}, tmp_path / "x.safetensors")
    assert lora_tools.ranks(tmp_path / "x.safetensors") == (3, 5)


def test_a_sum_gives_each_file_its_weights(tmp_path: Path) -> None:
    files = [Ingredient(Path("/a"), 0.5, None), Ingredient(Path("/b"), -1.0, (0.0, 0.5))]
    options = parsed(lora_tools.merge(files, Path("/o"), tmp_path, (4, 0), "bf16", {}))
    assert (options["models"], options["ratios"]) == (["/a", "/b"], ["0.5", "-1"])
    assert options["lbws"] == ["[1.0, 1.0]", "[0.0, 0.5]"]
    assert (options["new_rank"], options["new_conv_rank"], options["precision"]) == (["4"], ["4"], ["float"])
    options = parsed(lora_tools.merge(files[:1], Path("/o"), tmp_path, (0, 8), "bf16", {}))
    assert "lbws" not in options
    assert (options["new_rank"], options["new_conv_rank"], options["save_precision"]) == (["8"], ["8"], ["bf16"])


def test_a_resize_without_ranks_takes_those_of_the_file(tmp_path: Path) -> None:
    def ranks(**options: Any) -> tuple[list[str], ...]:
        chosen = ResizeOptions(method="sv_fro", param=0.9, **options)
        made = parsed(lora_tools.resize(Path("/a"), Path("/o"), tmp_path, chosen, (4, 8), {}))
        return made["new_rank"], made["new_conv_rank"]

    assert ranks() == (["8"], ["8"])
    assert ranks(new_rank=2) == (["2"], ["2"])
    assert ranks(new_rank=2, new_conv_rank=1) == (["2"], ["1"])


def test_merges_that_the_program_does_not_do_are_named(tmp_path: Path) -> None:
    part, own = "_algorithms/lora3x3", '[merge]\ntool = "sd-scripts"\n'
    for text, expected in (
        ('zeroed = "prune"\n', "merge.zeroed  is 'prune'; svd_merge_lora.py has no such choice"),
        ("unmapped = 0.0\n", "merge.unmapped  is 0.0; svd_merge_lora.py has no such choice"),
        ('compat = "supermerger-2023"\n', "merge.compat  is 'supermerger-2023'; svd_merge_lora.py has no such choice"),
    ):
        assert expected in problems(tmp_path, own + text, part)
    assert "no weights for MID1, but for whole blocks" in problems(tmp_path, "block_weights = {MID1 = 0.5}\n" + own, part)
    assert problems(tmp_path, own, part) == ""
