"""The test of torch: its program, its result, and doctor's check."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from orchestrator.engines.sdscripts import torch_builds, torch_test, torch_test_program
from orchestrator.system import settings
from orchestrator.system.gpu import Card
from orchestrator.weights.checks import CheckStatus

CARD = Card("NVIDIA GeForce RTX 3090", "550.54", (8, 6))
PASSED: dict[str, Any] = {"torch": "2.10.0+cu128", "devices": [CARD.name], "unused": [], "failed": "", "reason": ""}


class Adam8(torch.optim.SGD):
    """A stand-in for AdamW8bit that keeps a state in 8 bits."""

    def step(self, closure: Any = None) -> None:
        super().step(closure)
        for parameter in self.param_groups[0]["params"]:
            self.state[parameter]["state1"] = torch.zeros(1, dtype=torch.uint8)


class Python:
    """A stand-in for sd-scripts' Python that counts its calls."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / ".venv-sd-scripts" / "bin" / "python"
        self.path.parent.mkdir(parents=True)
        self._calls = folder / "calls"
        self.answer(PASSED)

    def answer(self, result: dict[str, Any]) -> None:
        text = f"#!/bin/sh\necho $2 >> {self._calls}\necho a warning of torch\necho '{json.dumps(result)}'\n"
        self.path.write_text(text, "utf-8")
        self.path.chmod(0o755)

    def calls(self) -> list[str]:
        return self._calls.read_text("utf-8").split() if self._calls.exists() else []


@pytest.fixture
def python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Python:
    """Return a stand-in for a Python on a machine with an RTX 3090."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("CUDA_VISIBLE_DEVICES", "KRNK_TORCH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(settings, "ROOT", tmp_path)
    monkeypatch.setattr(torch_test, "cards", lambda: ([CARD], ""))
    monkeypatch.setattr(torch_builds, "PYTHON", (3, 11))
    monkeypatch.setattr(torch_builds, "MACHINE", "x86_64")
    return Python(tmp_path)


def test_the_program_tests_this_torch_on_the_cpu() -> None:
    result = torch_test.run(Path(sys.executable), cuda=False)
    assert (result.failed, result.torch) == ("", torch.__version__)
    assert str(result) == f"torch {torch.__version__} on the CPU passed: matrix product"


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_the_program_names_the_test_that_fails() -> None:
    result = torch_test.run(Path(sys.executable), cuda=True)
    assert result.failed == "torch.cuda.is_available()"
    assert "CUDA" in result.reason or "NVIDIA" in result.reason


def test_a_wrong_product_is_noticed() -> None:
    torch_test_program.matrix_product(torch, "cpu")
    wrong = SimpleNamespace(rand=torch.rand, allclose=lambda *_, **__: False)
    with pytest.raises(ArithmeticError, match="differs"):
        torch_test_program.matrix_product(wrong, "cpu")


def test_an_optimizer_step_is_checked() -> None:
    torch_test_program.optimizer_step(torch, Adam8, "cpu")
    with pytest.raises(ArithmeticError, match="not in 8 bits"):
        torch_test_program.optimizer_step(torch, torch.optim.AdamW, "cpu")
    with pytest.raises(ArithmeticError, match="not smaller"):
        torch_test_program.optimizer_step(torch, lambda parameters, lr: Adam8(parameters, lr=0.0 * lr), "cpu")


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the record of tests on a stand-in for a torch with two GPUs."""
    cuda = SimpleNamespace(is_available=lambda: True, device_count=lambda: 2, get_device_name=lambda index: f"card {index}")
    tests: list[str] = []
    monkeypatch.setattr(torch_test_program, "matrix_product", lambda _, device: tests.append(device))
    monkeypatch.setattr(torch_test_program, "optimizer_step", lambda *arguments: tests.append(f"step {arguments[-1]}"))
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(__version__="9", cuda=cuda))  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "bitsandbytes", SimpleNamespace(optim=SimpleNamespace(AdamW8bit=Adam8)))  # type: ignore[arg-type]
    return tests


def test_all_tests_on_every_device(two_gpus: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    result = torch_test_program.test("cuda")
    assert result == {"torch": "9", "devices": ["card 0", "card 1"], "unused": [], "failed": "", "reason": ""}
    assert two_gpus == ["cuda:0", "step cuda:0", "cuda:1", "step cuda:1"]
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    result = torch_test_program.test("cuda")
    assert (result["failed"], result["devices"]) == ("8-bit optimizer step", [])
    assert result["reason"].startswith("ModuleNotFoundError")


@pytest.mark.usefixtures("two_gpus")
def test_a_gpu_that_this_torch_cannot_use_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def product(_: Any, device: str) -> None:
        if device == "cuda:0":
            raise RuntimeError("no kernel image")

    monkeypatch.setattr(torch_test_program, "matrix_product", product)
    result = torch_test_program.test("cuda")
    assert (result["failed"], result["devices"]) == ("", ["card 1"])
    assert result["unused"] == ["card 0, matrix product: RuntimeError: no kernel image"]


def test_a_python_that_ends_without_a_result(tmp_path: Path) -> None:
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho Illegal instruction >&2; exit 132\n", "utf-8")
    program.chmod(0o755)
    result = torch_test.run(program, cuda=True)
    assert result.failed
    assert str(result) == "the test of torch: exit code 132: Illegal instruction"
    program.write_text("#!/bin/sh\nexec sleep 30\n", "utf-8")
    assert "timed out" in torch_test.run(program, cuda=True, timeout=0.3).reason


def test_doctor_tests_once_for_each_environment(python: Python) -> None:
    (check,) = torch_test.checks(python.path, "2.10.0", "0.50.2")
    assert check.status is CheckStatus.PASS
    assert check.detail == f"torch 2.10.0+cu128 on {CARD.name} passed: matrix product and 8-bit optimizer step"
    assert torch_test.checks(python.path, "2.10.0", "0.50.2") == [check]
    assert python.calls() == ["cuda"]
    torch_test.checks(python.path, "2.10.0", "0.47.0")
    assert python.calls() == ["cuda", "cuda"]


def test_doctor_does_not_cache_a_failure(python: Python) -> None:
    python.answer({**PASSED, "torch": "2.14.1+cu130", "failed": "torch.cuda.is_available()", "reason": "driver too old"})
    (check,) = torch_test.checks(python.path, "2.14.1", "0.50.2")
    assert check.status is CheckStatus.FAIL
    assert check.detail == "torch 2.14.1+cu130, torch.cuda.is_available(): driver too old"
    assert check.fix.startswith("make setup  installs cu128: torch 2.10.0 with CUDA 12.8")
    python.answer(PASSED)
    assert torch_test.checks(python.path, "2.14.1", "0.50.2")[0].status is CheckStatus.PASS


def test_doctor_names_an_older_build_where_the_newest_fails(python: Python) -> None:
    python.answer({**PASSED, "failed": "8-bit optimizer step", "reason": "no kernel image"})
    (check,) = torch_test.checks(python.path, "2.10.0", "0.50.2")
    assert check.status is CheckStatus.WARNING
    assert check.fix.startswith("KRNK_TORCH=cu126 make setup")


def test_the_command_for_a_python_of_the_user_is_of_that_python(python: Python, tmp_path: Path) -> None:
    own = tmp_path / "own" / "bin" / "python"
    assert torch_test.hint(own, [CARD], "2.14.1").startswith(
        f"{own} -m pip install torch==2.10.0 torchvision==0.25.0 bitsandbytes==0.50.2  installs cu128"
    )
    old = Card("NVIDIA GeForce RTX 2060", "470.57", (7, 5))
    assert f"{own} -m pip install --extra-index-url=https://" in torch_test.hint(own, [old], "2.14.1")
    assert torch_test.hint(python.path, [Card("Card", "390.1", (6, 1))], "2.14.1").startswith("install driver 450 or newer")
    assert torch_test.hint(python.path, [], "2.14.1").endswith("make setup")


def test_doctor_warns_of_a_gpu_that_stays_unused(python: Python) -> None:
    python.answer({**PASSED, "unused": ["GTX 1080, matrix product: no kernel image"]})
    (check,) = torch_test.checks(python.path, "2.10.0", "0.50.2")
    assert check.status is CheckStatus.WARNING
    assert check.detail.endswith("optimizer step; unused: GTX 1080, matrix product: no kernel image")
    assert "CUDA_VISIBLE_DEVICES" in check.fix


def test_a_full_gpu_is_not_a_broken_environment(python: Python) -> None:
    python.answer({**PASSED, "failed": "matrix product", "reason": "OutOfMemoryError: CUDA out of memory."})
    (check,) = torch_test.checks(python.path, "2.10.0", "0.50.2")
    assert check.status is CheckStatus.WARNING
    assert check.fix.startswith("nvidia-smi")


def test_without_a_visible_gpu_doctor_starts_nothing(python: Python, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert torch_test.checks(python.path, "2.10.0", "0.50.2") == []
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setenv("KRNK_TORCH", "cpu")
    assert torch_test.checks(python.path, "2.10.0", "0.50.2") == []
    monkeypatch.delenv("KRNK_TORCH")
    monkeypatch.setattr(torch_test, "cards", lambda: ([], ""))
    assert torch_test.checks(python.path, "2.10.0", "0.50.2") == []
    assert python.calls() == []
