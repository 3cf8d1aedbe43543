"""The test of torch in sd-scripts' Python, for setup and doctor."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from orchestrator.engines.sdscripts import torch_builds, torch_test_program
from orchestrator.engines.sdscripts.torch_builds import VARIABLE
from orchestrator.errors import NotReady
from orchestrator.system import process, settings
from orchestrator.system.gpu import cards
from orchestrator.system.parse_cache import ParseCache
from orchestrator.weights.checks import Check, CheckStatus

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from orchestrator.engines.sdscripts.torch_builds import TorchBuild
    from orchestrator.system.gpu import Card

_SETUP_TIMEOUT: Final = 300.0  # seconds; the first import after an installation reads several GB
_DOCTOR_TIMEOUT: Final = 60.0


@dataclass(frozen=True, slots=True)
class TorchResult:
    """The result of the test."""

    torch: str
    """Version, or "" if torch cannot be imported."""
    devices: tuple[str, ...]
    """Names of the GPUs that pass, or "" for the CPU."""
    failed: str
    """The test that failed on every device, or ""."""
    reason: str
    unused: tuple[str, ...] = ()
    """GPUs that fail beside one that passes, each with its reason."""

    def __str__(self) -> str:
        if self.failed:
            return f"torch {self.torch}, {self.failed}: {self.reason}" if self.torch else f"{self.failed}: {self.reason}"
        names = [name for name in dict.fromkeys(self.devices) if name]
        tests = f"{torch_test_program.PRODUCT} and {torch_test_program.STEP}" if names else torch_test_program.PRODUCT
        passed = f"torch {self.torch} on {', '.join(names) or 'the CPU'} passed: {tests}"
        return "; unused: ".join([passed, *self.unused])


def run(python: Path, *, cuda: bool, timeout: float = _SETUP_TIMEOUT) -> TorchResult:
    """Test torch of another Python.

    Args:
        python: the program.
        cuda: test all GPUs, and bitsandbytes. Without: the CPU.
        timeout: seconds until the test counts as failed.
    """
    argv = (str(python), torch_test_program.__file__, "cuda" if cuda else "cpu")
    code, text = process.capture(argv, timeout)
    for line in reversed(text.splitlines()):
        try:
            result = json.loads(line)
            devices, unused = tuple(result["devices"]), tuple(result["unused"])
            return TorchResult(result["torch"], devices, result["failed"], result["reason"], unused)
        except (ValueError, LookupError, TypeError):
            continue
    return TorchResult("", (), "the test of torch", f"exit code {code}: {' '.join(text.split())[-300:]}")


def hint(python: Path, gpus: Sequence[Card], torch: str) -> str:
    """Return the next command after a failed test.

    Args:
        python: the tested Python.
        gpus: the cards of this machine.
        torch: version of the tested torch, with or without "+cu128".
    """
    if not gpus:
        return f"{python.parent / 'pip'} check  lists packages that do not fit; then: make setup"
    try:
        best = torch_builds.for_cards(gpus).build
    except NotReady as error:
        return error.problems[0].hint
    if _version(torch) != _version(best.torch):
        return f"{_installs(best, python)}, the newest build for this driver and card"
    older = torch_builds.next_older(best, gpus)
    return f"{_installs(older, python, named=True)}, an older build; or update the driver" if older else "update the driver"


def _version(torch: str) -> str:
    return torch.partition("+")[0]


def _installs(build: TorchBuild, python: Path, *, named: bool = False) -> str:
    """Return the command that installs a build for a Python."""
    command = f"{VARIABLE}={build.name} make setup" if named else "make setup"
    if not python.is_relative_to(settings.sd_scripts_environment()):
        command = " ".join([str(python), "-m pip install", *build.pip_options(), *build.requirements()])
    return f"{command}  installs {build}"


def checks(python: Path, torch: str, bitsandbytes: str) -> list[Check]:
    """Return doctor's check of torch on the GPU, where there is one.

    A success is cached for this environment, driver and cards.

    Args:
        python: sd-scripts' Python.
        torch: installed version.
        bitsandbytes: installed version, or "".
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus, _ = cards() if visible not in ("", "-1") else ([], "")
    if not gpus or os.environ.get(VARIABLE) == torch_builds.CPU.name:
        return []
    cache = ParseCache("torch test", str(python), version=repr((torch, bitsandbytes, visible, gpus)))
    name, passed = "torch on the GPU", cache.get().get("passed")
    if isinstance(passed, str):
        return [Check(name, CheckStatus.PASS, passed)]
    result = run(python, cuda=True, timeout=_DOCTOR_TIMEOUT)
    if result.unused:
        fix = "export CUDA_VISIBLE_DEVICES=N  with the numbers of the others keeps trainings off it"
        return [Check(name, CheckStatus.WARNING, str(result), fix)]
    if not result.failed:
        cache.put({"passed": str(result)})
        return [Check(name, CheckStatus.PASS, str(result))]
    if "out of memory" in result.reason:
        return [Check(name, CheckStatus.WARNING, str(result), "nvidia-smi  lists the processes in its memory")]
    status = CheckStatus.WARNING if result.failed == torch_test_program.STEP else CheckStatus.FAIL
    return [Check(name, status, str(result), hint(python, gpus, result.torch or torch), "a build for this driver and card")]
