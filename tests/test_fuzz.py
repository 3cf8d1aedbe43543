"""Files of strangers hold any bytes and values.

A traceback shown to a user is a failure.
Short here; ``make test-faults`` makes 100,000 of each kind (``FUZZ``), ``make fuzz`` is led by coverage.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fuzz
from orchestrator import engines
from orchestrator.errors import RecipeError, report
from orchestrator.recipe import loader, toml
from orchestrator.run import progress_log
from orchestrator.run.record import Record
from orchestrator.system.child import Progress
from orchestrator.system.terminal import clean

PROJECT = Path(__file__).resolve().parent.parent
COUNT = 60
LONG = int(os.environ.get("FUZZ", "100000"))
FUZZ = settings(
    max_examples=COUNT, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)

texts = st.text(max_size=30) | st.sampled_from(
    ["--resume", "-h", "; rm -rf x", "$(id)", "../../x", "/etc/passwd", "\x1b[31m", "a" * 300, "猫"]
)
leaves = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=True) | texts
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4), max_leaves=6
)


@pytest.fixture(scope="module")
def whole() -> dict[str, Any]:
    return loader.recipe(PROJECT / "recipes", "krnk-lora3x3").merged


def paths(table: dict[str, Any], trail: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = [(*trail, key) for key in table]
    for key, value in table.items():
        if isinstance(value, dict):
            found += paths(value, (*trail, key))
    return found


def written(table: dict[str, Any]) -> str:
    """Write TOML without keys whose value is None."""

    def drop(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: drop(item) for key, item in value.items() if item is not None}
        return [drop(item) for item in value if item is not None] if isinstance(value, list) else value

    return "\n".join(toml.lines(drop(table)))


def fuzzed(target: str, count: int) -> str:
    """Return the fuzzer's summary of ``count`` inputs.

    It allows 1 s of processor time for each, and 500 MB.
    """
    argv = [sys.executable, str(Path(fuzz.__file__)), target, "--count", str(count)]
    env = {**os.environ, "PYTHONPATH": str(PROJECT)}
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.parametrize("target", fuzz.TARGETS)
def test_three_hundred_mutated_files_are_read_or_refused(target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "300 inputs from seed 1, no finding" in fuzzed(target, 300)


@pytest.mark.faults
@pytest.mark.parametrize("target", fuzz.TARGETS)
def test_a_hundred_thousand_mutated_files_are_read_or_refused(target: str, capsys: pytest.CaptureFixture[str]) -> None:
    summary = fuzzed(target, LONG)
    with capsys.disabled():
        print(f"\n{summary}", end="")


@FUZZ
@given(data=st.data())
def test_a_recipe_with_any_values_is_loaded_or_refused(whole: dict[str, Any], tmp_path: Path, data: st.DataObject) -> None:
    table = deepcopy(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        *above, last = data.draw(st.sampled_from(paths(table)))
        target = table
        for part in above:
            target = target[part]
        match data.draw(st.sampled_from(("set", "add", "drop"))):
            case "set":
                target[last] = data.draw(values)
            case "add":
                target[data.draw(texts)] = data.draw(values)
            case "drop":
                del target[last]
    file = tmp_path / "fuzzed.toml"
    file.write_text(written(table), "utf-8", errors="replace")
    try:
        recipe = loader.recipe(tmp_path, "fuzzed").recipe
    except RecipeError as error:
        text = clean(report(error))
        assert "\x1b" not in text
        return
    assert recipe.network.dim >= 1
    for problem in engines.get(recipe.engine).check(recipe):
        assert problem.what


@FUZZ
@given(content=st.binary(max_size=200) | texts.map(lambda text: text.encode("utf-8", "replace")))
def test_any_bytes_are_refused_as_a_recipe(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "fuzzed.toml").write_bytes(content)
    with pytest.raises(RecipeError):
        loader.recipe(tmp_path, "fuzzed")


def test_a_toml_bomb_is_refused(tmp_path: Path) -> None:
    (tmp_path / "deep.toml").write_text("x = " + "[" * 5000 + "]" * 5000, "utf-8")
    (tmp_path / "dots.toml").write_text(".".join("a" for _ in range(3000)) + " = 1", "utf-8")
    for name in ("deep", "dots"):
        with pytest.raises(RecipeError):
            loader.recipe(tmp_path, name)


@FUZZ
@given(
    piece=st.text(max_size=200) | texts.map(lambda text: f"steps:  50%|{text}| 1/2 [00:01<00:01,  1.0s/it, avr_loss={text}]")
)
def test_any_output_is_read(piece: str) -> None:
    for name in engines.ENGINES:
        progress = engines.get(name).read(piece)
        assert progress is None or isinstance(progress, Progress)
    own = progress_log.read_own(f"PROGRESS {piece}")
    assert own is None or isinstance(own, Progress)


@FUZZ
@given(value=values)
def test_any_json_is_a_record_or_none(tmp_path: Path, value: Any) -> None:
    file = tmp_path / "record.json"
    file.write_text(json.dumps(value), "utf-8", errors="replace")
    try:
        record = Record(**json.loads(file.read_text("utf-8")))
    except TypeError:
        return
    assert isinstance(record, Record)
