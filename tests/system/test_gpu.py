"""GPUs: which ones to use, and the rows of nvidia-smi."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from orchestrator.system import gpu

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the path of a stand-in for nvidia-smi that is first in PATH."""
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return tmp_path / "nvidia-smi"


def _write(program: Path, text: str) -> None:
    program.write_text(f"#!/bin/sh\n{text}\n", "utf-8")
    program.chmod(0o755)


def test_gpus_are_those_requested_or_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    assert gpu.visible("0, 2") == ["0", "2"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-aa")
    assert gpu.visible() == ["3", "GPU-aa"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert gpu.visible() == []


def test_each_gpu_is_a_row_of_the_requested_fields(nvidia_smi: Path) -> None:
    _write(nvidia_smi, 'echo "Card A, 11"; echo "Card B, [N/A]"; echo warning')
    rows, reason = gpu.query("name", "memory.used")
    assert rows == [["Card A", "11"], ["Card B", "[N/A]"]]
    assert reason == ""


def test_a_gpu_that_does_not_report_a_number_is_left_out(nvidia_smi: Path) -> None:
    _write(nvidia_smi, 'echo "50, 11"; echo "60, [N/A]"')
    assert gpu.numbers("temperature.gpu", "memory.used") == [[50, 11]]


def test_a_driver_that_fails_is_the_reason(nvidia_smi: Path) -> None:
    _write(nvidia_smi, "echo NVIDIA-SMI has failed; exit 9")
    assert gpu.query("name") == ([], "nvidia-smi: NVIDIA-SMI has failed")
    assert gpu.numbers("memory.used") is None


def test_without_nvidia_smi_there_is_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu.query("name") == ([], "none seen by nvidia-smi")


def test_cards_have_driver_and_compute_capability(nvidia_smi: Path) -> None:
    _write(nvidia_smi, 'echo "NVIDIA GeForce RTX 3090, 550.54.14, 8.6"; echo "NVIDIA H100, 550.54.14, [N/A]"')
    found, reason = gpu.cards()
    assert [(card.name, card.driver, card.capability) for card in found] == [
        ("NVIDIA GeForce RTX 3090", "550.54.14", (8, 6)),
        ("NVIDIA H100", "550.54.14", None),
    ]
    assert reason == ""
    assert str(found[0]) == "NVIDIA GeForce RTX 3090 (compute capability 8.6, driver 550.54.14)"


def test_a_driver_that_does_not_report_the_compute_capability(nvidia_smi: Path) -> None:
    _write(
        nvidia_smi,
        'case "$1" in *compute_cap*) echo "Field \\"compute_cap\\" is not a valid field to query."; exit 2;; esac\n'
        'echo "NVIDIA GeForce GTX 1080, 470.182.03"',
    )
    assert gpu.cards() == ([gpu.Card("NVIDIA GeForce GTX 1080", "470.182.03", None)], "")


def test_a_driver_without_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(gpu, "DRIVER_VERSION", tmp_path / "version")
    assert gpu.cards() == ([], "")
    (tmp_path / "version").write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12\n", "utf-8")
    assert gpu.cards() == ([gpu.Card("NVIDIA GPU", "535.183.01", None)], "")


def test_a_driver_that_fails_or_has_no_device(nvidia_smi: Path) -> None:
    _write(nvidia_smi, "echo Failed to initialize NVML: Driver/library version mismatch; exit 18")
    assert gpu.cards() == ([], "nvidia-smi: Failed to initialize NVML: Driver/library version mismatch")
    _write(nvidia_smi, "echo No devices were found; exit 6")
    assert gpu.cards() == ([], "")
