"""What a file is, whether it holds what was promised; the pipeline's step; the command line; the documented examples."""

from __future__ import annotations

import doctest
import importlib
import json
import pkgutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from typer.testing import CliRunner

from orchestrator import weights
from orchestrator.cli import app
from orchestrator.engines.embedded import EMBEDDED_BASE
from orchestrator.errors import OrchestratorError, RecipeError
from orchestrator.models import registry, sd1
from orchestrator.recipe import loader
from orchestrator.weights import program
from orchestrator.weights.compare import compare
from orchestrator.weights.convert import convert
from orchestrator.weights.inspect import inspect
from orchestrator.weights.io.safetensors_io import read_header
from orchestrator.weights.merge import merge
from orchestrator.weights.options import MergeOptions, ResizeOptions
from orchestrator.weights.resize import resize
from orchestrator.weights.sweep import sweep
from orchestrator.weights.verify import expectation, verify
from weights_samples import LAYERS, TE, lora, modules, read, sample, tensors, write

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PROMISED: dict[str, Any] = {
    "family": "lora",
    "modules": 350,
    "tensor_bytes": 237_692,
    "network_dim": 1,
    "network_alpha": 1,
    "conv_dim": 1,
    "conv_alpha": 1,
    "tucker": False,
    "save_precision": "fp16",
    "trigger_words": ["krnk"],
    "network_module": "networks.lora",
    "max_train_steps": 6,
}


def test_inspection_of_a_real_file() -> None:
    told = inspect(sample("lora3x3")).to_json()
    assert json.loads(json.dumps(told)) == {**told, "block_vector": list(told["block_vector"]), "trigger_words": ["krnk"]}
    assert (told["family"], told["tucker"], told["modules"], told["tensor_bytes"]) == ("lora", False, 350, 237_692)
    assert (told["ranks"], told["alphas"], told["preset"]) == ({"1": 350}, {"1": 350}, "ALL")
    assert told["blocks"]["MID"]["modules"] == 18
    assert told["blocks"]["MID"]["norm"] > 0
    assert told["block_vector"][1] is None
    assert told["hashes"]["model_agrees"]
    assert told["training"]["max_train_steps"] == "6"


@pytest.mark.parametrize(("preset", "family"), [("FACE", "loha"), ("BODY", "lora"), ("BODY_HALF", "locon-tucker")])
def test_zero_blocks_show_the_preset(tmp_path: Path, preset: str, family: str) -> None:
    source, output = tmp_path / "in.safetensors", tmp_path / "out.safetensors"
    rng = np.random.default_rng(0)
    shape = (8, 8, None)
    names_ = ["lora_te_text_model_encoder_layers_0_mlp_fc1", "lora_unet_mid_block_attentions_0_proj_in"]
    names_ += [f"lora_unet_down_blocks_{level}_resnets_{index}_time_emb_proj" for level in range(4) for index in range(2)]
    names_ += [f"lora_unet_down_blocks_{level}_downsamplers_0_conv" for level in range(3)]
    names_ += [f"lora_unet_up_blocks_{level}_resnets_{index}_time_emb_proj" for level in range(4) for index in range(3)]
    write(source, {name: tensors(family, shape, 2, rng) for name in names_})
    merge(source, output, MergeOptions(preset))
    found = inspect(output)
    assert found.preset == preset
    vector = found.block_vector
    assert vector is not None
    expected = [float(weight != 0) for weight in registry.ARCHITECTURES["sd1"].presets[preset]]
    assert [mark for mark in vector if mark is not None] == [mark for position, mark in enumerate(expected) if position != 1]


def test_norms_are_those_of_the_whole_matrices(tmp_path: Path) -> None:
    for family in ("lora", "locon-tucker", "loha", "loha-tucker", "lokr", "lokr-tucker", "full"):
        source, whole = lora(tmp_path / "in.safetensors", family), tmp_path / "whole.safetensors"
        convert(source, whole, "full", save_precision="fp32", overwrite=True)
        norms = inspect(source).block_norms()
        changes = {name: parts["diff"] for name, parts in modules(whole).items()}
        assert norms["MID"] == pytest.approx(np.linalg.norm(changes[list(LAYERS)[3]]), rel=1e-5)
        assert norms["BASE"] == pytest.approx(np.linalg.norm(changes[TE]), rel=1e-5)


def test_the_header_alone_needs_no_numpy(tmp_path: Path) -> None:
    path = lora(tmp_path / "a.safetensors", dtype="BF16")
    code = (
        "import sys; from pathlib import Path; from orchestrator.weights.inspection import inspect_header;"
        f"found = inspect_header(Path({str(path)!r}));"
        "print(found.to_json()['alphas']); print('numpy' in sys.modules)"
    )
    done = subprocess.run((sys.executable, "-c", code), capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["{'2': 6}", "False"]


def test_every_promise_of_a_real_file_is_kept() -> None:
    found = verify(sample("lora3x3"), PROMISED)
    assert {check.what: str(check.status) for check in found.checks if check.status != "PASS"} == {}
    assert len(found.checks) == 4 + 12
    assert found.verdict == "PASS"


@pytest.mark.parametrize(
    ("promise", "value", "what"),
    [
        ("family", "loha", "family"),
        ("tucker", True, "tucker"),
        ("modules", 264, "modules"),
        ("tensor_bytes", 1, "tensor bytes"),
        ("save_precision", "bf16", "precision"),
        ("network_dim", 128, "ranks"),
        ("conv_dim", 4, "ranks"),
        ("network_alpha", 2, "alphas"),
        ("trigger_words", ["tyank"], "trigger words"),
        ("network_module", "lycoris.kohya", "metadata: network module"),
        ("max_train_steps", 1000, "metadata: steps"),
        ("block_weights", "FACE", "block weights"),
        ("resize", {"method": "sv_ratio", "param": 16, "new_rank": 128}, "metadata: resize"),
    ],
)
def test_every_broken_promise_is_a_fail(promise: str, value: Any, what: str) -> None:
    found = verify(sample("lora3x3"), {**PROMISED, promise: value})
    assert found.verdict == "FAIL"
    assert {check.what: str(check.status) for check in found.checks}[what] == "FAIL"


def test_what_cannot_be_told_is_unknown(tmp_path: Path) -> None:
    path = lora(tmp_path / "a.safetensors", dtype="F16")
    promised = {
        "family": "locon",
        "network_module": "lycoris.kohya",
        "trigger_words": "krnk",
        "seven": 7,
        "block_weights": [0.5] * 26,
    }
    found = verify(path, promised)
    verdicts = {check.what: str(check.status) for check in found.checks}
    for what in ("family", "metadata: network module", "trigger words", "seven", "block weights"):
        assert verdicts[what] == "UNKNOWN"
    merge(path, tmp_path / "b.safetensors", MergeOptions([0.5] * 26))
    again = verify(tmp_path / "b.safetensors", promised)
    assert {check.what: str(check.status) for check in again.checks}["block weights"] == "PASS"


def test_the_release_pipeline_passes_its_own_promises_and_each_slip_fails(tmp_path: Path) -> None:
    merged, resized = (tmp_path / f"{name}.safetensors" for name in ("merged", "resized"))
    promised = {**PROMISED, "tensor_bytes": None, "block_weights": "FACE"}
    promised["resize"] = {"method": "sv_ratio", "param": 16.0, "new_rank": 128, "rank_rule": "2023"}
    merge(sample("lora3x3"), merged, MergeOptions("FACE"))
    resize(merged, resized, ResizeOptions(param=16, new_rank=128))
    found = verify(resized, promised)
    assert found.verdict == "PASS", found.to_json()
    assert any("FACE" in line for line in found.made_by)
    assert verify(merged, promised).verdict == "FAIL"  # never resized


def test_a_resize_before_the_merge_fails(tmp_path: Path) -> None:
    """Zeroed modules have rank 1 after a resize, so a higher rank shows that the merge came last."""
    wide = lora(tmp_path / "wide.safetensors", dtype="F16")
    promised = {"block_weights": "FACE", "resize": {"method": "sv_ratio", "param": 4.0, "new_rank": 128, "rank_rule": "2023"}}
    verdicts = {}
    for order in ("merge first", "resize first"):
        source = wide
        for operation in order.split()[0], "merge" if order.startswith("resize") else "resize":
            output = tmp_path / f"{order} {operation}.safetensors"
            merge(source, output, MergeOptions("FACE")) if operation == "merge" else resize(
                source, output, ResizeOptions(param=4, new_rank=128)
            )
            source = output
        verdicts[order] = verify(source, promised).verdict
    assert verdicts == {"merge first": "PASS", "resize first": "FAIL"}


def test_the_rank_rules_are_told_apart(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    made = {}
    for name in LAYERS:
        up = rng.standard_normal((40, 12)) * np.exp(-np.arange(12) / 3)
        parts = {"lora_up.weight": up.astype(np.float32), "lora_down.weight": rng.standard_normal((12, 60)).astype(np.float32)}
        made[name.replace("conv", "to_q")] = {**parts, "alpha": np.array(6, np.float32)}
    source, output = write(tmp_path / "in.safetensors", made), tmp_path / "out.safetensors"
    for rule in ("2023", "sd-scripts-0.10"):
        resize(source, output, ResizeOptions(param=16, new_rank=128, rank_rule=rule))
        for asked in ("2023", "sd-scripts-0.10"):
            promised = {"resize": {"method": "sv_ratio", "param": 16, "new_rank": 128, "rank_rule": asked}}
            checks = {check.what: check.status for check in verify(output, promised).checks}
            assert checks["rank rule"].ok == (rule == asked)


def test_damaged_files_fail_and_do_not_crash(tmp_path: Path) -> None:
    parts = tensors("lora", LAYERS[TE], 4, np.random.default_rng(0))
    parts["lora_up.weight"][0, 0] = np.nan
    path = write(tmp_path / "nan.safetensors", {TE: parts})
    found = verify(path)
    assert found.verdict == "FAIL"
    assert [check.what for check in found.checks if not check.status.ok] == ["numbers"]
    (tmp_path / "cut.safetensors").write_bytes(path.read_bytes()[:-7])
    assert verify(tmp_path / "cut.safetensors").verdict == "FAIL"
    lies = tmp_path / "lies.safetensors"
    whole = bytearray(lora(lies).read_bytes())
    whole[-1] ^= 1
    lies.write_bytes(whole)
    assert {check.what for check in verify(lies).checks if not check.status.ok} >= {"model hash"}


@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
@pytest.mark.parametrize("family", ["lora", "locon-tucker", "loha", "lokr"])
@pytest.mark.filterwarnings("error")
def test_what_is_not_finite_or_becomes_so_is_said_of_its_module(tmp_path: Path, family: str, value: float) -> None:
    parts = tensors(family, LAYERS[TE], 4, np.random.default_rng(0))
    for name in parts:
        if name != "alpha":
            parts[name][:] = value
    path, output = write(tmp_path / "nan.safetensors", {TE: parts}), tmp_path / "out.safetensors"
    assert [check.what for check in verify(path).checks if not check.status.ok] == ["numbers"]
    assert json.dumps(inspect(path).to_json(), allow_nan=False)
    works: list[Callable[[], object]] = [
        lambda: resize(path, output, ResizeOptions()),
        lambda: resize(path, output, ResizeOptions(method="size_mb", param=1)),
        lambda: convert(path, output, "lora", rank=2),
        lambda: convert(path, output, "full"),
    ]
    if not np.isfinite(value):  # in float64, two thin factors of any finite numbers can be compared
        works += [lambda: compare(path, path), lambda: sweep(path)]
    for work in works:
        with pytest.raises(RecipeError, match=f"(?s){TE}.*not finite, or too large"):
            work()
        assert not output.exists()


def test_the_recipes_here_promise_what_can_be_checked(project: Path) -> None:
    root = project / "recipes"
    known = {name: expectation(loader.recipe(root, name).recipe) for name in loader.names(root)}
    assert known["krnk-locon"]["tensor_bytes"] == 212_845_244
    assert known["krnk-loha"]["tensor_bytes"] == 100_893_372
    assert known["krnk-lora3x3"]["resize"]["param"] == 16
    small = loader.recipe(root, "krnk-locon", "demo").recipe
    promised = expectation(small, EMBEDDED_BASE)
    assert (promised["modules"], promised["tensor_bytes"], promised["max_train_steps"]) == (296, 935_248, 100)
    assert json.dumps(known)


def test_without_a_recipe_the_fitting_ones_are_named() -> None:
    candidates = {"this": PROMISED, "longer": {**PROMISED, "max_train_steps": 1000}, "loha": {**PROMISED, "family": "loha"}}
    assert verify(sample("lora3x3"), candidates=candidates).fits == ("this",)


# --- the step of a pipeline ---


def _request(folder: Path, **request: Any) -> str:
    path = folder / "request.json"
    path.write_text(json.dumps(request))
    return str(path)


def test_a_merge_step_tells_its_progress_and_its_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, output = lora(tmp_path / "in.safetensors"), tmp_path / "out.safetensors"
    params = {"block_weights": list(sd1.FACE), "preset": "FACE", "zeroed": "prune", "unmapped": 0.0, "compat": None}
    assert program.main([_request(tmp_path, kind="merge", input=str(source), output=str(output), params=params)]) == 0
    lines = capsys.readouterr().out.splitlines()
    told = [json.loads(line.removeprefix("PROGRESS ")) for line in lines if line.startswith("PROGRESS ")]
    assert told[-1]["done"] == told[-1]["total"] == 3
    assert [line.split()[0] for line in lines[len(told) :][:26]] == list(sd1.BLOCKS)
    assert output.exists()


def test_a_resize_step_is_a_process_of_its_own(tmp_path: Path) -> None:
    source, output = lora(tmp_path / "in.safetensors"), tmp_path / "out.safetensors"
    params = {
        "method": "sv_ratio",
        "param": 16,
        "new_rank": 128,
        "new_conv_rank": None,
        "rank_rule": "2023",
        "save_precision": "fp16",
    }
    request = _request(tmp_path, kind="resize", input=str(source), output=str(output), params=params)
    done = subprocess.run(
        (sys.executable, "-m", "orchestrator.weights.program", request), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "PROGRESS " in done.stdout
    assert read_header(output).metadata["ss_network_dim"] == "Dynamic"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kind": "mix"}, "neither merge nor resize"),
        ({"params": {"block_weight": 1}}, "did you mean block_weights"),
        ({"params": {"block_weights": [1.0] * 26, "zeroed": "burn"}}, "neither keep nor prune"),
        ({"output": ""}, "is not a path"),
        ({"more": 1}, "is not a request"),
        ({"params": {"block_weights": [1.0] * 3}}, "3 values"),
        ({"input": "missing.safetensors"}, "cannot be read"),
    ],
)
def test_a_wrong_request_ends_with_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], said: str
) -> None:
    source, output = lora(tmp_path / "in.safetensors"), tmp_path / "out.safetensors"
    request = {"kind": "merge", "input": str(source), "output": str(output), "params": {"block_weights": [1.0] * 26}, **change}
    assert program.main([_request(tmp_path, **request)]) == 2
    assert said in capsys.readouterr().err
    assert not output.exists()
    assert program.main([]) == 2
    assert program.main([str(tmp_path / "none.json")]) == 2


# --- the command line ---


def _run(*arguments: str | Path) -> str:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_verbs_as_the_issue_writes_them(tmp_path: Path) -> None:
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


def test_json_is_one_document_with_the_keys_of_the_issue(tmp_path: Path) -> None:
    source, output = lora(tmp_path / "in.safetensors"), tmp_path / "out.safetensors"
    told = json.loads(_run("inspect", source, "--json"))
    wanted = {"family", "tucker", "modules", "tensor_bytes", "ranks", "blocks", "block_vector", "preset", "metadata", "hashes"}
    assert wanted <= set(told)
    assert set(told["blocks"]["BASE"]) == {"modules", "norm", "zero"}
    assert {"cosine", "norm_ratio", "blocks"} <= set(json.loads(_run("compare", source, source, "--json")))
    told = json.loads(_run("verify", source, "--json"))
    assert set(told["checks"][0]) == {"what", "verdict", "detail"}
    assert told["verdict"] == "PASS"
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
    ("arguments", "said"),
    [
        (("merge", "a.safetensors"), "input and an output"),
        (("merge", "a.safetensors", "b.safetensors"), "--block-weights"),
        (("merge", "a.safetensors", "b.safetensors", "--block-weights", "FACE", "--compat", "x"), "unknown"),
        (("merge", "a.safetensors:1", "c.safetensors:2", "b.safetensors", "--block-weights", "FACE"), "after their names"),
        (("merge", "a.safetensors:x", "b.safetensors"), "is not a ratio"),
        (("resize", "a.safetensors", "b.safetensors"), "one method"),
        (("resize", "a.safetensors", "b.safetensors", "--sv-ratio", "2", "--sv-fro", "0.5"), "one method"),
        (("resize", "a.safetensors", "b.safetensors", "--sv-ratio", "2", "--rank-rule", "2022"), "2023"),
        (("convert", "a.safetensors", "b.safetensors", "--to", "plane"), "did you mean plain"),
        (("sweep", "a.safetensors", "--sv-ratio", "8,x"), "list of numbers"),
        (("inspect", "a.ckpt"), "safetensors"),
    ],
)
def test_wrong_usage_is_a_problem_with_a_hint(arguments: tuple[str, ...], said: str) -> None:
    done = CliRunner().invoke(app, list(arguments))
    assert isinstance(done.exception, OrchestratorError), done.output
    assert said in str(done.exception)


def test_verify_ends_with_1_where_a_promise_is_broken(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    done = CliRunner().invoke(app, ["verify", str(sample("loha")), "--recipe", "krnk-loha"])
    assert done.exit_code == 1
    assert "FAIL     ranks" in done.stdout
    assert "PASS     tucker" in done.stdout
    with pytest.raises(RecipeError):
        CliRunner().invoke(app, ["verify", str(sample("loha")), "--recipe", "krnk-lohu"], catch_exceptions=False)


def test_the_documented_examples_are_true(tmp_path: Path) -> None:
    names_ = [f"orchestrator.weights.{found.name}" for found in pkgutil.iter_modules(weights.__path__)]
    tried = 0
    for name in ("orchestrator.weights", *names_):
        given = {"EXAMPLE": lora(tmp_path / "example.safetensors"), "OUTPUT": tmp_path / "output.safetensors"}
        result = doctest.testmod(importlib.import_module(name), extraglobs=given)
        assert result.failed == 0, name
        tried += result.attempted
    assert tried >= 8
