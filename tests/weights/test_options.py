"""Options of merge and resize.

A recipe's tables, the requests of steps and the command line become the same value.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import pytest

from orchestrator.models.bases import sd1
from orchestrator.recipe import Resize, loader
from orchestrator.recipe.outputs import RANK_KEYS, RankMethod
from orchestrator.weights.options import NO_CAP, MergeOptions, ResizeOptions

ROOT = Path(__file__).resolve().parents[2]


def test_the_request_of_a_merge_step() -> None:
    recipe = loader.recipe(ROOT / "recipes", "krnk-lora3x3").recipe
    assert asdict(MergeOptions.of_recipe(recipe)) == {
        "block_weights": list(sd1.FACE),
        "zeroed": "keep",
        "unmapped": 1.0,
        "compat": None,
        "preset": "FACE",
        "order": "",
    }


@pytest.mark.parametrize(
    ("table", "method", "param"),
    [
        ({"sv_ratio": 16.0, "new_rank": 128}, "sv_ratio", 16.0),
        ({"sv_fro": 0.9}, "sv_fro", 0.9),
        ({"sv_cumulative": 0.9}, "sv_cumulative", 0.9),
        ({"size_mb": 40.0}, "size_mb", 40.0),
        ({"new_rank": 32, "new_conv_rank": 8}, "fixed", 32),
    ],
)
def test_the_request_of_a_resize_step(table: dict[str, Any], method: str, param: float) -> None:
    assert asdict(ResizeOptions.of_table(Resize(**table))) == {
        "new_rank": table.get("new_rank"),
        "new_conv_rank": table.get("new_conv_rank"),
        "rank_rule": "2023",
        "save_precision": "fp16",
        "method": method,
        "param": param,
        "zeroed": "keep",
    }


def test_every_method_but_fixed_is_a_key_of_the_recipe() -> None:
    assert {*RANK_KEYS, "fixed"} == set(get_args(RankMethod))
    assert set(RANK_KEYS) <= set(Resize.model_fields)


def test_caps() -> None:
    assert (ResizeOptions().cap, ResizeOptions().conv_cap) == (NO_CAP, NO_CAP)
    assert (ResizeOptions(new_rank=8).cap, ResizeOptions(new_rank=8).conv_cap) == (8, 8)
    assert ResizeOptions(new_rank=8, new_conv_rank=4).conv_cap == 4


@pytest.mark.parametrize(
    ("options", "where"),
    [
        (ResizeOptions(method="fixed"), ["new_rank"]),
        (ResizeOptions(new_rank=0, new_conv_rank=-1), ["new_rank", "new_conv_rank"]),
        (ResizeOptions(method="sv_fro", param=1.5), ["sv_fro"]),
        (ResizeOptions(method="sv_ratio", param=0.5), ["sv_ratio"]),
        (ResizeOptions(method="size_mb", param=0.0), ["size_mb"]),
        (ResizeOptions(param=float("nan")), ["sv_ratio"]),
        (ResizeOptions(param=1), []),
    ],
)
def test_impossible_values_are_named(options: ResizeOptions, where: list[str]) -> None:
    assert [problem.where for problem in options.problems()] == where
