"""The program of render steps: bake, draw, clean up."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from orchestrator.engines.sdscripts import bake, render_program
from orchestrator.errors import StepFailed
from orchestrator.system.child import Exit

if TYPE_CHECKING:
    from orchestrator.system.process import Command


def test_the_step_draws_with_the_baked_file_and_removes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A small program replaces gen_img.py."""
    weight = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)
    layer = "encoder.layers.0.mlp.fc1"
    save_file({f"cond_stage_model.transformer.text_model.{layer}.weight": weight}, tmp_path / "base.safetensors")
    save_file({f"lora_te_text_model_{layer.replace('.', '_')}.diff": weight}, tmp_path / "lora.safetensors")
    temporary = tmp_path / "temporary"
    baked = temporary / "checkpoint" / "base.safetensors"
    program = f"import sys; from pathlib import Path; size = Path({str(baked)!r}).stat().st_size; "
    program += f"Path({str(tmp_path)!r}, 'size').write_text(str(size)); print('drawn'); sys.exit(int(sys.argv[1]))"
    request: dict[str, Any] = {
        "how": "bake",
        "architecture": "sd1",
        "dtype": "F32",
        "files": [
            {
                "source": str(tmp_path / "base.safetensors"),
                "target": str(baked),
                "text_prefix": "",
            }
        ],
        "lora": str(tmp_path / "lora.safetensors"),
        "multiplier": 1.0,
        "temporary": str(temporary),
        "env": {},
    }
    for code in (0, 3):
        argv = [sys.executable, "-c", program, str(code)]
        (tmp_path / "request.json").write_text(json.dumps({**request, "argv": argv}), "utf-8")
        assert render_program.main([str(tmp_path / "request.json")]) == code
        assert int((tmp_path / "size").read_text("utf-8")) > 96
        assert not temporary.exists()
    (tmp_path / "model.ckpt").touch()
    (tmp_path / "request.json").write_text(
        json.dumps({**request, "files": [{**request["files"][0], "source": str(tmp_path / "model.ckpt")}], "argv": []}),
        "utf-8",
    )
    assert render_program.main([str(tmp_path / "request.json")]) == 1
    assert f"{tmp_path / 'model.ckpt'}  a LoRA can be baked into a .safetensors model" in capsys.readouterr().err
    assert not temporary.exists()


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (Exit(3), 3),
        (Exit(-9), 119),  # killed by a signal
        (Exit(256), 1),
        (Exit(0, fault="the loss is nan"), 1),
        (Exit(None, stopped=True), 130),
        (Exit(0), 0),
    ],
)
def test_the_exit_code_is_that_of_the_drawing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: Exit, code: int) -> None:
    save_file({"lora_unet_x.lora_down.weight": np.zeros((1, 2), np.float32)}, tmp_path / "lora.safetensors")
    request = {
        "how": "fold",
        "architecture": "sd1",
        "dtype": "F32",
        "lora": str(tmp_path / "lora.safetensors"),
        "target": str(tmp_path / "temporary" / "plain.safetensors"),
        "temporary": str(tmp_path / "temporary"),
        "argv": ["draw"],
        "env": {"A": "1"},
    }
    (tmp_path / "request.json").write_text(json.dumps(request), "utf-8")
    calls: list[Command] = []

    def run(command: Command, work: Path, _: object) -> Exit:
        assert work.is_dir()
        assert (tmp_path / "temporary" / "plain.safetensors").is_file()
        calls.append(command)
        return end

    monkeypatch.setattr(render_program, "run", run)
    assert render_program.main([str(tmp_path / "request.json")]) == code
    assert [(call.argv, call.cwd, call.env) for call in calls] == [(("draw",), tmp_path, {"A": "1"})]
    assert not (tmp_path / "temporary").exists()


def test_a_folder_is_baked_as_a_folder_and_an_encoder_in_a_folder_as_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[object, ...]] = []
    monkeypatch.setattr(bake, "folder", lambda *given: calls.append(given))
    monkeypatch.setattr(bake, "files", lambda *given: calls.append(given))
    (tmp_path / "model").mkdir()

    def prepare(*files: tuple[str, str]) -> None:
        rows = [{"source": str(tmp_path / name), "target": f"/t/{name}", "text_prefix": prefix} for name, prefix in files]
        request = {"how": "bake", "architecture": "flux", "lora": "/l", "multiplier": 0.5, "dtype": "BF16", "files": rows}
        render_program._prepare(request)

    prepare(("model", ""))
    prepare(("x.safetensors", ""), ("model", "lora_te1"))
    prepare(("model", "lora_te1"))
    file = bake.BaseFile(tmp_path / "x.safetensors", Path("/t/x.safetensors"))
    encoder = bake.BaseFile(tmp_path / "model", Path("/t/model"), "lora_te1")
    assert calls == [
        (tmp_path / "model", Path("/t/model"), Path("/l"), 0.5),
        ([file, encoder], Path("/l"), 0.5, "flux", "BF16"),
        ([encoder], Path("/l"), 0.5, "flux", "BF16"),
    ]
    with pytest.raises(StepFailed) as caught:
        prepare(("x.safetensors", ""), ("y.ckpt", "lora_te1"))
    assert caught.value.problems[0].where == str(tmp_path / "y.ckpt")


def test_a_file_that_cannot_be_baked_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise KeyError("lora_up.weight")

    monkeypatch.setattr(bake, "files", broken)
    monkeypatch.setattr(bake, "fold", broken)
    request = {"how": "bake", "architecture": "sd1", "lora": "/l.safetensors", "multiplier": 1.0, "dtype": "F32"}
    files = [{"source": "/m/x.safetensors", "target": str(tmp_path / "x"), "text_prefix": ""}]
    for more, into in (({"files": files}, "x.safetensors"), ({"how": "fold", "target": "/t"}, "a LoRA")):
        with pytest.raises(StepFailed) as caught:
            render_program._prepare({**request, **more})
        (problem,) = caught.value.problems
        assert (problem.where, problem.what) == ("/l.safetensors", f"cannot be baked into {into}: 'lora_up.weight'")
