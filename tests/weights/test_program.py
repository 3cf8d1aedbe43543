"""The program of a merge or resize step."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator.models.bases import sd1
from orchestrator.weights import program
from orchestrator.weights.io.safetensors_io import read_header
from weights_samples import lora

if TYPE_CHECKING:
    from pathlib import Path


def _request(folder: Path, **request: Any) -> str:
    path = folder / "request.json"
    path.write_text(json.dumps(request))
    return str(path)


def test_a_merge_step_prints_its_progress_and_its_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, output = lora(tmp_path / "in.safetensors"), tmp_path / "out.safetensors"
    params = {"block_weights": list(sd1.FACE), "preset": "FACE", "zeroed": "prune", "unmapped": 0.0, "compat": None}
    assert program.main([_request(tmp_path, kind="merge", input=str(source), output=str(output), params=params)]) == 0
    lines = capsys.readouterr().out.splitlines()
    progress = [json.loads(line.removeprefix("PROGRESS ")) for line in lines if line.startswith("PROGRESS ")]
    assert progress[-1]["done"] == progress[-1]["total"] == 3
    assert [line.split()[0] for line in lines[len(progress) :][:26]] == list(sd1.BLOCKS)
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
    ("change", "message"),
    [
        ({"kind": "mix"}, "neither merge nor resize"),
        ({"params": {"block_weight": 1}}, "did you mean block_weights"),
        ({"params": {"block_weights": [1.0] * 26, "zeroed": "burn"}}, "neither keep nor prune"),
        ({"output": ""}, "is not a path"),
        ({"more": 1}, "is not a request"),
        ({"params": {"block_weights": [1.0] * 3}}, "3 values"),
        ({"input": "missing.safetensors"}, "does not exist"),
    ],
)
def test_a_wrong_request_ends_with_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], message: str
) -> None:
    source, output = lora(tmp_path / "in.safetensors"), tmp_path / "out.safetensors"
    request = {"kind": "merge", "input": str(source), "output": str(output), "params": {"block_weights": [1.0] * 26}, **change}
    assert program.main([_request(tmp_path, **request)]) == 2
    assert message in capsys.readouterr().err
    assert not output.exists()
    assert program.main([]) == 2
    assert program.main([str(tmp_path / "none.json")]) == 2
