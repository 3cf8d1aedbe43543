"""Options of a program, read from its source without running it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from orchestrator.engines.sdscripts.parser_source import ParserOption, parse_options

if TYPE_CHECKING:
    from pathlib import Path

SCRIPT = """
import argparse, torch_that_is_not_there
from library import train_util, own_util
import train_network

def setup_parser():
    parser = argparse.ArgumentParser()
    parser.add_argument("positional")
    parser.add_argument("-s", "--switch", action="store_true", help="a\\d")
    parser.add_argument("--off", action="store_false", default=True)
    parser.add_argument("--whole", type=int, default=-4)
    parser.add_argument("--number", "--also", type=float, default=None)
    parser.add_argument("--either", type=int_or_float, default=1.5)
    parser.add_argument("--text", type=str, choices=["a", None], default="a")
    parser.add_argument("--computed", type=make_type(), default=compute(), choices=CHOICES)
    parser.add_argument("--some", type=int, nargs="*")
    parser.add_argument("--more", nargs="+", default=[1])
    parser.add_argument("--three", type=float, nargs=3)
    parser.add_argument("--maybe", type=int, nargs="?")
    parser.add_argument("--whole", type=str)
    train_util.add_training_arguments(parser)
    own_util.add_own_arguments(parser)
    add_local_arguments(parser)
    parser.add_argument_group("further")
    train_network.setup_parser()
    return parser

def add_local_arguments(parser):
    parser.add_argument("--local")

def unused(parser):
    parser.add_argument("--unused")
"""
FILES = {
    "script.py": SCRIPT,
    "library/train_util.py": """
# def add_own_arguments(
def add_training_arguments(parser):
    group = parser.add_argument_group("x")
    group.add_argument("--training", type=int)
""",
    "library/own_util.py": "def add_own_arguments(parser):\n    parser.add_argument('--own')\n",
    "train_network.py": "def setup_parser():\n    parser.add_argument('--other')\n",
}


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, "utf-8")


def test_every_form_of_an_option_is_read(tmp_path: Path) -> None:
    write(tmp_path, FILES)
    expected = (
        ParserOption("switch", "switch", default=False),
        ParserOption("off", "switch", default=True),
        ParserOption("whole", "int", default=-4),  # the first of two counts
        ParserOption("number", "float"),
        ParserOption("also", "float"),
        ParserOption("either", "int_or_float", default=1.5),
        ParserOption("text", "str", choices=("a", None), default="a"),
        ParserOption("computed", "str"),
        ParserOption("some", "int", many=True),
        ParserOption("more", "str", many=True),
        ParserOption("three", "float", many=True),
        ParserOption("maybe", "int"),
        *(ParserOption(name, "int" if name == "training" else "str") for name in ("training", "own", "local", "other")),
    )
    assert parse_options(tmp_path, "script.py") == {option.name: option for option in expected}


@pytest.mark.parametrize("name", ["parse_args", "build"])
def test_options_of_a_script_without_setup_parser(tmp_path: Path, name: str) -> None:
    """A renderer adds them in parse_args, a tool in its main block."""
    main = "if __name__ == '__main__':\n    parser.add_argument('--in_main')\n"
    write(tmp_path, {"script.py": f"def {name}():\n    parser.add_argument('--in_function')\n{main}"})
    expected = {"in_function"} if name == "parse_args" else {"in_main", "in_function"}
    assert parse_options(tmp_path, "script.py").keys() == expected


def test_a_function_that_no_module_defines_is_named(tmp_path: Path) -> None:
    write(tmp_path, {"script.py": "def setup_parser():\n    add_lost_arguments(parser)\n", "library/train_util.py": ""})
    with pytest.raises(FileNotFoundError, match="add_lost_arguments is not defined in library/"):
        parse_options(tmp_path, "script.py")
    with pytest.raises(FileNotFoundError):
        parse_options(tmp_path, "another.py")
