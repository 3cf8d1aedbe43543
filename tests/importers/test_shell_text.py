"""Commands of scripts.

Continuation, quotes, comments, variables and arrays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from import_cases import dispositions, loaded
from orchestrator.errors import RecipeError
from orchestrator.importers import reader, shell_text, to_recipe

if TYPE_CHECKING:
    from pathlib import Path

MARK = "train_network.py"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("python train_network.py --a 1 # --b 2", [["--a", "1"]]),
        ("python train_network.py --a 'x # y' \\\n  --b=c#d", [["--a", "x # y", "--b=c#d"]]),
        ("python train_network.py --a 1 && \\\n python sdxl_train_network.py --b 2; echo done", [["--a", "1"], ["--b", "2"]]),
        ('@echo off\r\nset "A=C:\\a b"\r\npython train_network.py ^\r\n --a="%A%\\m" # x', [["--a=C:\\a b\\m", "#", "x"]]),
        (
            'ARGS=(\n  --a=1   # first\n  "--b=(1,2)"\n)\npython train_network.py "${ARGS[@]}" --c',
            [["--a=1", "--b=(1,2)", "--c"]],
        ),
        ('$p = @(\n "--a=1",\n "--b", "x y"\n)\npython train_network.py @p', [["--a=1", "--b", "x y"]]),
        ("$d = 4\n$d = 8\npython train_network.py --a=$d", [["--a=8"]]),
        ("# don't\nX=1\nif y; then\n  X=2\nfi\npython train_network.py --a=$X", [["--a=$X"]]),
        ("E=()\nif y; then E+=(--v2); fi\npython train_network.py ${E[@]} --a", [["${E[@]}", "--a"]]),
    ],
)
def test_the_words_of_commands(text: str, expected: list[list[str]]) -> None:
    assert [words[2:] for words in shell_text.commands(text, MARK)] == expected


def test_words_that_the_file_does_not_set_are_lost(tmp_path: Path) -> None:
    text = (
        'accelerate launch train_network.py --pretrained_model_name_or_path m.safetensors --network_dim 8 "${MORE[@]}" "$@"\n'
    )
    (tmp_path / "a.sh").write_text(text, "utf-8")
    result = to_recipe.recipe(reader.read(str(tmp_path / "a.sh"))[0])
    assert loaded(result, tmp_path).network.dim == 8
    assert {dispositions(result)[word] for word in ("${MORE[@]}", "$@")} == {"lost"}


def test_a_script_chosen_by_a_condition_is_not_guessed(tmp_path: Path) -> None:
    text = "T=train_network.py\nif [ $M = sdxl ]; then\n  T=sdxl_train_network.py\nfi\naccelerate launch $T --network_dim 8\n"
    (tmp_path / "a.sh").write_text(text, "utf-8")
    with pytest.raises(RecipeError, match="by a command that import does not find") as error:
        reader.read(str(tmp_path / "a.sh"))
    assert "--output_config" in error.value.problems[0].hint


def test_quotes_that_are_not_closed_are_a_problem(tmp_path: Path) -> None:
    (tmp_path / "a.sh").write_text('accelerate launch train_network.py --a "b\n', "utf-8")
    with pytest.raises(RecipeError, match="No closing quotation"):
        reader.read(str(tmp_path / "a.sh"))
