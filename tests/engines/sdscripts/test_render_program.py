"""The program of render steps: bake, draw, clean up."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import save_file

from orchestrator.engines.sdscripts import render_program

if TYPE_CHECKING:
    from pathlib import Path


def test_the_step_draws_with_the_baked_file_and_removes_it(tmp_path: Path) -> None:
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
    assert not temporary.exists()
