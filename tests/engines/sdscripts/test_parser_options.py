"""Options read from sd-scripts' source."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from engine_recipes import ROOT, load
from orchestrator.engines.sdscripts import (
    checkout,
    parser_options,
    parser_source,
)
from orchestrator.engines.sdscripts import engine as sdscripts
from orchestrator.system import settings

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("no_checkout")


def test_the_shipped_options_are_those_of_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SD_SCRIPTS_DIR")
    folder = settings.sd_scripts()
    if checkout.version(folder) != checkout.PINNED or not checkout.present(folder):
        pytest.skip(f"the pinned sd-scripts is not in {folder}")
    assert checkout._files_digest(folder) == checkout.PINNED_FILES
    assert parser_options.dumps(folder) == (ROOT / "orchestrator" / "engines" / "sdscripts" / "pinned.json").read_text("utf-8")


def test_another_commits_options_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "other"
    for name in (*parser_options.SCRIPTS, "library/train_util.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        text = "def setup_parser():\n    parser.add_argument('--novelty', type=int, default=3, choices=[3, 4])\n"
        (folder / name).write_text(text, "utf-8")
    (folder / ".git").mkdir()
    clean = {"rev-parse": "0" * 39 + "1\n", "status": ""}
    monkeypatch.setattr(checkout, "capture", lambda argv: (0, next(clean[word] for word in argv if word in clean)))
    novelty = parser_source.ParserOption("novelty", "int", choices=(3, 4), default=3)
    assert parser_options.of("train_network.py", folder) == {"novelty": novelty}
    monkeypatch.setenv("SD_SCRIPTS_DIR", str(folder))
    sdscripts.preflight(load("krnk-locon"))
    assert "novelty" in (settings.cache_folder() / f"options-{'0' * 39}1.json").read_text("utf-8")
    parser_options._of.cache_clear()
    monkeypatch.setattr(parser_options, "parse_options", lambda *_: pytest.fail("the source is parsed again"))
    assert parser_options.of("train_network.py", folder) == {"novelty": novelty}
    problems = list(parser_options.problems({"novelty": novelty}, {"novelty": 5, "noveltie": 3}, "x", {}))
    assert problems == [
        ("x.novelty", "is 5; takes 3, 4"),
        ("x.noveltie", "is not an option of this program; did you mean novelty?"),
    ]


OPTIONS = {
    option.name: option
    for option in (
        parser_source.ParserOption("switch", "switch"),
        parser_source.ParserOption("whole", "int", choices=(1, 2, None)),
        parser_source.ParserOption("number", "float"),
        parser_source.ParserOption("either", "int_or_float"),
        parser_source.ParserOption("text", "str"),
        parser_source.ParserOption("list", "int", many=True),
        parser_source.ParserOption("learning_rate", "float"),
    )
}


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("switch", True, ""),
        ("switch", 1, "is 1; takes true or false"),
        ("whole", 2, ""),
        ("whole", 3, "is 3; takes 1, 2"),
        ("whole", True, "is true; takes a whole number"),
        ("whole", 1.0, "is 1.0; takes a whole number"),
        ("number", 3, ""),
        ("number", 0.5, ""),
        ("number", False, "is false; takes a number"),
        ("number", "1", 'is "1"; takes a number'),
        ("either", 3, ""),
        ("either", "3", ""),
        ("either", True, "is true; takes a number"),
        ("text", "x", ""),
        ("text", 3, "is 3; takes text"),
        ("text", ("x",), "takes one value"),
        ("list", (1, 2), ""),
        ("list", (1, "x"), 'is "x"; takes a whole number'),
        ("list", 1, "takes a list"),
        ("learning_rate", 1.0, "set training.learning_rate instead"),
        ("output_dir", "x", "is set by the orchestrator"),
        ("network_alpha", 1, "set network.alpha instead"),
        ("further", 1, "is an option of sd-scripts; the program lacks it"),
        ("numbr", 1.0, "is not an option of the program; did you mean number?"),
    ],
)
def test_a_value_that_an_option_does_not_take_is_named(name: str, value: Any, problem: str) -> None:
    owned, elsewhere = {"learning_rate": "training.learning_rate", "output_dir": ""}, {"further": "sd-scripts", "text": "x"}
    found = list(parser_options.problems(OPTIONS, {name: value}, "x", owned, "the program", elsewhere))
    assert found == ([(f"x.{name}", problem)] if problem else [])
