"""The verbs on LoRA files."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from typer.testing import CliRunner

import checkpoints
from architecture_samples import of_architecture
from orchestrator.cli import app
from orchestrator.errors import OrchestratorError, RecipeError
from orchestrator.weights.io.safetensors_io import read_header
from weights_samples import lora, modules, read, sample, write

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.models.registry import ArchitectureName


def _run(*arguments: str | Path) -> str:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_every_verb_on_files(tmp_path: Path) -> None:
    source = lora(tmp_path / "in.safetensors", "locon-tucker", dtype="F16")
    files = [tmp_path / f"{name}.safetensors" for name in ("merged", "resized", "plain", "sum")]
    assert "OUT11" in _run("merge", source, files[0], "--block-weights", "FACE")
    assert "of the Frobenius norm retained" in _run("resize", files[0], files[1], "--sv-ratio", "16", "--new-rank", "128")
    assert "exact" in _run("convert", source, files[2], "--to", "plain")
    assert "modules" in _run("merge", f"{source}:1.0:FACE", f"{files[2]}:0.5", files[3])
    assert "MiB" in _run("sweep", files[2], "--sv-ratio", "8,16", "--plot", tmp_path / "plot.svg")
    assert (tmp_path / "plot.svg").read_text().startswith("<svg")
    assert "model hash" in _run("inspect", source)
    assert "whole" in _run("compare", source, files[2])
    assert "made by" in _run("verify", files[1])
    assert "ranks" in _run("inspect", source, "--no-norms")


def test_every_verb_on_checkpoints_and_steps(tmp_path: Path) -> None:
    base = checkpoints.weights("anima")
    tuned = checkpoints.save(tmp_path / "tuned.safetensors", checkpoints.tuned(base))
    path = checkpoints.save(tmp_path / "base.safetensors", base)
    files = [tmp_path / f"{name}.safetensors" for name in ("extracted", "small", "mean", "remapped", "rebuilt")]
    assert "of the difference's norm" in _run("extract", tuned, path, files[0], "--rank", "4")
    table = json.loads(_run("extract", tuned, path, files[1], "--sv-ratio", "4", "--rank", "4", "--json"))
    assert table["architecture"] == "anima"
    assert "0 -> 0, 4 -> 6, 27 -> 39" in _run("remap", files[0], files[3])
    assert "it is for Anima-2.9B" in _run("inspect", files[3], "--no-norms")
    assert "0.1000" in _run("average", files[0], _next_step(files[0], tmp_path / "next.safetensors"), files[2], "--ema", "0.9")
    parts = modules(files[0])
    for own in parts.values():
        own["dora_scale"] = np.ones((len(own["lora_up.weight"]), 1), np.float32)
    dora = write(tmp_path / "dora.safetensors", parts)
    assert "rebuilt from the base in" in _run("resize", dora, files[4], "--base", path, "--sv-fro", "0.9")
    for argv, message in (
        (("extract", tuned, path, files[1]), "needs a rank or a method"),
        (("extract", tuned, path, files[1], "--sv-ratio", "4", "--sv-fro", "0.9"), "takes one of"),
        (("resize", dora, files[4], "--sv-ratio", "4"), "resize IN OUT --base MODEL"),
    ):
        with pytest.raises(RecipeError, match=message):
            CliRunner().invoke(app, [str(each) for each in argv], catch_exceptions=False)


def _next_step(source: Path, target: Path) -> Path:
    """Write a file whose last number differs in its last bit."""
    data = bytearray(source.read_bytes())
    data[-2] ^= 1
    target.write_bytes(data)
    return target


@pytest.mark.parametrize(
    ("family", "line"), [("dora", "no norm: 6 of lora with dora_scale, whose delta"), ("ia3", "6 of ia3"), ("lora", "")]
)
def test_inspect_names_the_modules_without_a_norm(tmp_path: Path, family: str, line: str) -> None:
    text = _run("inspect", lora(tmp_path / "in.safetensors", family))
    assert line in text
    assert ("no norm" in text) == bool(line)


def test_json_is_one_document_with_fixed_keys(tmp_path: Path) -> None:
    source, output = lora(tmp_path / "in.safetensors"), tmp_path / "out.safetensors"
    table = json.loads(_run("inspect", source, "--json"))
    keys = {"family", "tucker", "modules", "tensor_bytes", "ranks", "blocks", "block_vector", "preset", "metadata", "hashes"}
    assert keys <= set(table)
    assert set(table["blocks"]["BASE"]) == {"modules", "norm", "zero"}
    assert {"cosine", "norm_ratio", "blocks"} <= set(json.loads(_run("compare", source, source, "--json")))
    table = json.loads(_run("verify", source, "--json"))
    assert set(table["checks"][0]) == {"what", "verdict", "detail"}
    assert table["verdict"] == "PASS"
    assert json.loads(_run("merge", source, output, "--block-weights", "FACE", "--json"))["preset"] == "FACE"
    assert json.loads(_run("resize", source, output, "--size-mb", "1", "--json"))["ranks"]
    assert json.loads(_run("convert", source, output, "--to", "full", "--json"))["relative_error"] == 0
    assert len(json.loads(_run("sweep", source, "--json"))["rows"]) == 4


def test_a_sum_can_be_resized_at_once(tmp_path: Path) -> None:
    first, second = lora(tmp_path / "a.safetensors"), lora(tmp_path / "b.safetensors", seed=1)
    output = tmp_path / "sum.safetensors"
    _run("merge", f"{first}:1", f"{second}:1", output, "--sv-ratio", "4")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.safetensors", "b.safetensors", "sum.safetensors"]
    assert read_header(output).metadata["ss_network_dim"] == "Dynamic"
    assert max(values.shape[0] for key, values in read(output).items() if "lora_down" in key) <= 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("merge", "a.safetensors"), "input and an output"),
        (("merge", "a.safetensors", "b.safetensors"), "--block-weights"),
        (("merge", "a.safetensors", "b.safetensors", "--block-weights", "FACE", "--compat", "x"), "unknown"),
        (("merge", "a.safetensors:1", "c.safetensors:2", "b.safetensors", "--block-weights", "FACE"), "after their names"),
        (("merge", "a.safetensors:x", "b.safetensors"), "is not a ratio"),
        (("resize", "a.safetensors", "b.safetensors"), "one method"),
        (("resize", str(sample("lora3x3")), "b.safetensors", "--new-rank", "0"), "use a rank of at least 1"),
        (("resize", "a.safetensors", "b.safetensors", "--sv-ratio", "2", "--sv-fro", "0.5"), "one method"),
        (("resize", "a.safetensors", "b.safetensors", "--sv-ratio", "2", "--rank-rule", "2022"), "2023"),
        (("convert", "a.safetensors", "b.safetensors", "--to", "plane"), "did you mean plain"),
        (("sweep", "a.safetensors", "--sv-ratio", "8,x"), "list of numbers"),
        (("inspect", "a.ckpt"), "safetensors"),
    ],
)
def test_wrong_usage_is_a_problem_with_a_hint(arguments: tuple[str, ...], message: str) -> None:
    done = CliRunner().invoke(app, list(arguments))
    assert isinstance(done.exception, OrchestratorError), done.output
    assert message in str(done.exception)


@pytest.mark.parametrize(
    ("architecture", "weights"),
    [("sd1", "FACE  (SD1.5 has BASE, IN00 to OUT11)"), ("flux", "BASE=0,D00=0.5  (FLUX.1-dev has BASE, D00 to S37)")],
)
def test_a_merge_without_weights_proposes_some_of_the_architecture(
    tmp_path: Path, architecture: ArchitectureName, weights: str
) -> None:
    source = of_architecture(tmp_path / "in.safetensors", architecture)
    done = CliRunner().invoke(app, ["merge", str(source), "OUT"])
    assert isinstance(done.exception, OrchestratorError)
    assert str(done.exception).endswith(f"merge {source} OUT --block-weights {weights}")
    proposed = weights.partition("  ")[0]
    _run("merge", source, tmp_path / "out.safetensors", "--block-weights", proposed)


def test_verify_ends_with_1_where_a_promise_is_broken(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    done = CliRunner().invoke(app, ["verify", str(sample("loha")), "--recipe", "krnk-loha"])
    assert done.exit_code == 1
    assert "FAIL     ranks" in done.stdout
    assert "PASS     tucker" in done.stdout
    with pytest.raises(RecipeError):
        CliRunner().invoke(app, ["verify", str(sample("loha")), "--recipe", "krnk-lohu"], catch_exceptions=False)
