"""Guards: each one detects its own fault and no other."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest
from PIL import Image

import fakes
from orchestrator.recipe import Guards
from orchestrator.run import guards

if TYPE_CHECKING:
    from pathlib import Path


def test_a_zero_delta_is_detected_and_a_trained_one_is_not(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    file.write_bytes(fakes.lora())
    assert guards.zero_delta(file) == ""
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    up = json.loads(content[8 : 8 + length])["lora_unet_down_blocks_0_attentions_0_proj_in.lora_up.weight"]["data_offsets"]
    zeros = bytearray(content)
    zeros[8 + length + up[0] : 8 + length + up[1]] = bytes(up[1] - up[0])
    file.write_bytes(zeros)
    assert guards.zero_delta(file) == "all 1 factors that begin at zero are still zero: nothing was learned"


def test_a_header_longer_than_its_file_is_no_reason_to_read_gigabytes(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    file.write_bytes((1 << 62).to_bytes(8, "little") + b"{}")
    assert guards.zero_delta(file).startswith("states a header of")


def test_images_of_one_colour(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), (0, 0, 0)).save(tmp_path / "black.png")
    picture = Image.new("RGB", (8, 8), (0, 0, 0))
    picture.putpixel((1, 1), (1, 0, 0))
    picture.save(tmp_path / "nearly.png")
    assert guards.constant_images([tmp_path / "black.png", tmp_path / "nearly.png"]) == ["black.png"]


def test_a_collapse_of_the_pace_is_reported_once() -> None:
    messages: list[str] = []
    now = [0.0]
    pace = guards.ThroughputGuard(Guards(slow_factor=3.0), messages.append, lambda: now[0])
    for step in range(60):
        now[0] += 1.0 if step < 30 else 4.0
        pace.step(step)
    assert len(messages) == 1
    assert messages[0].startswith("a step takes 3.")


def test_a_collapse_of_the_pace_ends_the_run_if_the_recipe_stops_then() -> None:
    now = [0.0]
    for rule, ends in (("warn", ""), ("stop", "the pace has collapsed (guards.slow)")):
        pace = guards.ThroughputGuard(Guards(slow=rule), lambda _: None, lambda: now[0])  # type: ignore[arg-type]
        for step in range(60):
            now[0] += 1.0 if step < 30 else 9.0
            assert pace.fault == "" or step > 30
            pace.step(step)
        assert pace.fault == ends


def test_a_steady_pace_is_not() -> None:
    messages: list[str] = []
    now = [0.0]
    pace = guards.ThroughputGuard(Guards(), messages.append, lambda: now[0])
    for step in range(100):
        now[0] += 1.0 + (step % 7) * 0.3
        pace.step(step)
    assert messages == []


def test_the_pace_is_compared_with_the_fastest_stretch_and_not_with_the_first() -> None:
    messages: list[str] = []
    now = [0.0]
    pace = guards.ThroughputGuard(Guards(), messages.append, lambda: now[0])
    for step in range(60):
        now[0] += 8.0 if step < 12 else 1.0 if step < 30 else 9.0
        pace.step(step)
    assert len(messages) == 1
    assert messages[0].endswith("another program shares the machine")
    assert "the fastest took 1.00 s" in messages[0]


def test_one_long_gap_is_not_a_collapse_of_the_pace() -> None:
    """Samples are drawn, a state is saved, or the orchestrator was stopped."""
    now = [0.0]
    pace = guards.ThroughputGuard(Guards(slow="stop"), lambda _: None, lambda: now[0])
    for step in range(60):
        now[0] += 600.0 if step in (20, 30, 45) else 1.0
        pace.step(step)
        assert pace.fault == ""


def test_a_hot_gpu_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho '93, 11800, 12288'\n", "utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    messages: list[str] = []
    guards.GpuGuard(Guards(), messages.append).pause_reason()
    assert messages == ["the GPU is at 93 °C (guards.max_gpu_celsius = 90); memory 11800 of 12288 MB"]


@pytest.mark.parametrize(("rule", "ended"), [("warn", ""), ("stop", "12200 of 12288 MB of the GPU's memory are in use")])
def test_a_full_gpu_is_reported_once_and_ends_the_run_if_the_recipe_stops_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: str, ended: str
) -> None:
    program, used, now = tmp_path / "nvidia-smi", tmp_path / "used", [0.0]
    program.write_text(f'#!/bin/sh\nread u < \'{used}\'; echo "50, 100, 24000"; echo "60, $u, 12288"\n', "utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    messages: list[str] = []
    heat = guards.GpuGuard(Guards.model_validate({"full": rule}), messages.append, lambda: now[0])
    for megabytes, lines in ((11800, 0), (12200, 1), (12200, 1)):
        used.write_text(f"{megabytes}\n", "utf-8")
        now[0] += guards.HEAT_EVERY_SECONDS
        assert heat.pause_reason() == ""
        assert len(messages) == lines
        assert heat.fault.startswith(ended if lines else "")
    assert messages[0].startswith("12200 of 12288 MB of the GPU's memory are in use (guards.max_gpu_memory = 0.97); ")
    assert bool(heat.fault) == (rule == "stop")


def test_a_hot_gpu_pauses_the_run_if_the_recipe_waits_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program, degrees, now = tmp_path / "nvidia-smi", tmp_path / "degrees", [0.0]
    program.write_text(f"#!/bin/sh\nread d < '{degrees}'; echo \"$d, 11800, 12288\"\n", "utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    heat = guards.GpuGuard(Guards(hot="pause"), lambda _: None, lambda: now[0])
    waits = []
    for celsius in (80, 93, 88, 84, 88):
        degrees.write_text(f"{celsius}\n", "utf-8")
        now[0] += guards.HEAT_EVERY_SECONDS
        waits.append(bool(heat.pause_reason()))
    assert waits == [False, True, True, False, False]


def test_low_disk(tmp_path: Path) -> None:
    assert guards.low_disk(tmp_path, Guards(min_free_mb=0)) == ""
    assert "MB free on the disk of" in guards.low_disk(tmp_path, Guards(min_free_mb=10**9))
    assert guards.low_disk(tmp_path, Guards(min_free_mb=0), 10**18).endswith("and 1000000000000 MB for its next save")
