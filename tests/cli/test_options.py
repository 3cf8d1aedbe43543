"""Values of options: executor, engine, rank rule."""

from __future__ import annotations

import pytest

from orchestrator.cli import options
from orchestrator.errors import RecipeError


def test_cluster_options_need_the_executor_ray() -> None:
    assert options.executor_problems("local", "0,1", "", "") == []
    assert options.executor_problems("ray", "", "auto", "s3://bucket/krnk") == []
    wrong = options.executor_problems("inline", "", "auto", "file:///x")
    assert [(problem.where, problem.hint) for problem in wrong] == [
        ("--address auto", "--executor ray"),
        ("--storage file:///x", "--executor ray"),
    ]
    assert [problem.where for problem in options.executor_problems("ray", "0", "", "x")] == ["--storage x", "--gpus 0"]
    assert options.executor_problems("slurm", "", "", "")[0].what == "no such executor"


def test_unknown_names_are_errors() -> None:
    options.check_engine("")
    options.check_engine("embedded")
    with pytest.raises(RecipeError, match="did you mean sd-scripts"):
        options.check_engine("sdscripts")
    assert options.check_rank_rule("2023") == "2023"
    with pytest.raises(RecipeError, match="is neither 2023 nor"):
        options.check_rank_rule("2024")
