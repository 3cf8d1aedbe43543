"""No verb succeeds without the change that it was asked for, whatever the architecture of the file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from typer.testing import CliRunner

from architecture_samples import of_architecture
from orchestrator.cli import app
from orchestrator.errors import OrchestratorError
from orchestrator.weights.compare import compare
from orchestrator.weights.families.adapter import adapter
from orchestrator.weights.io.safetensors_io import read_header
from weights_samples import lora, modules, tensors, write

if TYPE_CHECKING:
    from pathlib import Path

STRANGE = [f"lora_unet_strange_blocks_{number}_tangle" for number in range(6)]
RNG = np.random.default_rng(0)
NAMED = {"flux": "S00=0.5", "sd3-medium": "J00=0.5", "anima": "B00=0.5", "lumina": "L00=0.5"}


def _file(path: Path, kind: str) -> Path:
    """Write a file of an architecture, of none, or a mixed one."""
    strange = {name: tensors("lora", (8, 8, None), 2, RNG) for name in STRANGE}
    match kind:
        case "unknown":
            return write(path, strange)
        case "mixed":
            parts = modules(of_architecture(path, "flux")) | modules(of_architecture(path, "anima")) | strange
            return write(path, parts)
        case "partly unknown":
            return write(path, {**modules(of_architecture(path, "flux")), STRANGE[0]: strange[STRANGE[0]]})
        case "flux" | "sd3-medium" | "anima" | "lumina":
            return of_architecture(path, kind)
    raise AssertionError(kind)


KINDS = [*NAMED, "unknown", "mixed", "partly unknown"]
VERBS = {
    "merge preset": ["merge", "IN", "OUT", "--block-weights", "FACE"],
    "merge names": ["merge", "IN", "OUT", "--block-weights", "NAMED"],
    "merge list": ["merge", "IN", "OUT", "--block-weights", ",".join(["0.5"] * 26)],
    "merge two": ["merge", "IN:1:NAMED", "IN:1", "OUT"],
    "resize": ["resize", "IN", "OUT", "--new-rank", "1"],
    "sweep": ["sweep", "IN", "--block-weights", "NAMED"],
    "plain": ["convert", "IN", "OUT", "--to", "full"],
    "kohya": ["convert", "IN", "OUT", "--to", "kohya"],
    "precision": ["convert", "IN", "OUT", "--save-precision", "bf16"],
}
CHANGED = {("resize", kind) for kind in KINDS} | {("precision", kind) for kind in KINDS}
CHANGED |= {(verb, kind) for verb in ("merge names", "merge two", "plain") for kind in NAMED}
ALREADY = {("kohya", kind) for kind in NAMED}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_changes_the_file_or_refuses_it_by_name(tmp_path: Path, verb: str, kind: str) -> None:
    source, output = _file(tmp_path / "in.safetensors", kind), tmp_path / "out.safetensors"
    before = source.read_bytes()
    words = [word.replace("IN", str(source), 1) if word.startswith("IN") else word for word in VERBS[verb]]
    words = [word.replace("OUT", str(output)).replace("NAMED", NAMED.get(kind, "S00=0.5")) for word in words]
    done = CliRunner().invoke(app, words)
    assert source.read_bytes() == before
    if (verb, kind) in CHANGED:
        assert done.exit_code == 0, done.exception
        assert _changed(source, output)
    elif (verb, kind) in ALREADY:
        assert "is in this form already" in str(done.exception)
        assert not output.exists()
    elif done.exit_code == 0:
        assert verb == "sweep"
        assert kind in NAMED
        assert NAMED[kind] in done.output
    else:
        assert isinstance(done.exception, OrchestratorError)
        assert not output.exists()
        text = str(done.exception)
        if kind in NAMED:
            assert any(message in text for message in ("FACE is a preset of SD1.5", "26 values;"))
        else:
            assert "unknown architecture" in text or "modules belong to no layer of" in text
            assert "lora_unet_" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["convert", "IN", "OUT", "--to", "kohya"], "is in this form already"),
        (["convert", "IN", "OUT", "--to", "plain"], "is in this form already"),
        (["convert", "IN", "OUT", "--save-precision", "fp32"], "is in this form already"),
        (["resize", "IN", "OUT", "--new-rank", "4", "--save-precision", "fp32"], "there is nothing to reduce"),
        (["merge", "IN", "OUT", "--block-weights", "IN00=0.5"], "would be copied unchanged"),
    ],
)
def test_a_verb_that_would_change_nothing_writes_nothing(tmp_path: Path, words: list[str], message: str) -> None:
    source, output = lora(tmp_path / "in.safetensors"), tmp_path / "out.safetensors"
    words = [{"IN": str(source), "OUT": str(output)}.get(word, word) for word in words]
    assert message in str(CliRunner().invoke(app, words).exception)
    assert not output.exists()


def _changed(source: Path, output: Path) -> bool:
    one, two = adapter(read_header(source)), adapter(read_header(output))
    if {entry.dtype for entry in one.header.entries.values()} != {entry.dtype for entry in two.header.entries.values()}:
        return True
    if {module.kind for module in one.modules} != {module.kind for module in two.modules}:
        return True
    return {module.rank for module in one.modules} != {module.rank for module in two.modules} or compare(
        source, output
    ).to_json()["norm_ratio"] != 1


def test_mixed_files_are_counted(tmp_path: Path) -> None:
    source = _file(tmp_path / "in.safetensors", "mixed")
    done = CliRunner().invoke(app, ["merge", str(source), str(tmp_path / "out.safetensors"), "--block-weights", "S=0"])
    text = str(done.exception)
    count = len(modules(source))
    assert f"of {count} modules" in text
    assert "FLUX.1" in text or "Anima" in text
    shown = CliRunner().invoke(app, ["inspect", str(source)])
    assert shown.exit_code == 0
    assert f"of {count} modules" in shown.output
    assert "lora_unet_strange_blocks_0_tangle" in CliRunner().invoke(app, ["inspect", str(source), "--json"]).output
