"""The choice of a build of torch, by answers of several drivers and cards."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import pytest

from orchestrator.engines.sdscripts import torch_builds
from orchestrator.engines.sdscripts.torch_builds import BUILDS, CPU
from orchestrator.errors import NotReady
from orchestrator.system import gpu
from orchestrator.system.gpu import Card

if TYPE_CHECKING:
    from pathlib import Path

GTX_980, GTX_1080, V100, RTX_2060 = (5, 2), (6, 1), (7, 0), (7, 5)
RTX_3090, RTX_4090, H100, B300, RTX_5090 = (8, 6), (8, 9), (9, 0), (10, 3), (12, 0)
OLD = 'case "$1" in *compute_cap*) echo "Field \\"compute_cap\\" is not a valid field to query."; exit 2;; esac'


@pytest.fixture(autouse=True)
def _this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/usr/bin{os.pathsep}/bin")
    monkeypatch.delenv("KRNK_TORCH", raising=False)
    monkeypatch.setattr(torch_builds, "PYTHON", (3, 11))
    monkeypatch.setattr(torch_builds, "MACHINE", "x86_64")
    monkeypatch.setattr(gpu, "DRIVER_VERSION", tmp_path / "none")


def nvidia_smi(folder: Path, *lines: str) -> None:
    program = folder / "nvidia-smi"
    program.write_text("\n".join(["#!/bin/sh", *lines, ""]), "utf-8")
    program.chmod(0o755)


@pytest.mark.parametrize(
    ("driver", "capability", "name"),
    [
        ("470.256.02", RTX_3090, "cu118"),
        ("470.256.02", H100, "cu118"),
        ("525.147.05", GTX_980, "cu126"),
        ("525.147.05", GTX_1080, "cu126"),
        ("525.147.05", V100, "cu128"),
        ("525.147.05", RTX_2060, "cu128"),
        ("550.54.14", GTX_1080, "cu126"),
        ("550.54.14", RTX_3090, "cu128"),
        ("550.54.14", RTX_4090, "cu128"),
        ("550.54.14", H100, "cu128"),
        ("570.86.10", RTX_5090, "cu128"),
        ("570.86.10", GTX_1080, "cu126"),
        ("580.95.05", GTX_1080, "cu126"),
        ("580.95.05", V100, "cu128"),
        ("580.95.05", RTX_2060, "cu130"),
        ("580.95.05", RTX_3090, "cu130"),
        ("580.95.05", RTX_4090, "cu130"),
        ("580.95.05", H100, "cu130"),
        ("580.95.05", B300, "cu130"),
        ("580.95.05", RTX_5090, "cu130"),
        ("610.10", RTX_5090, "cu130"),
    ],
)
def test_the_newest_build_that_driver_and_card_run(
    tmp_path: Path, driver: str, capability: tuple[int, int], name: str
) -> None:
    nvidia_smi(tmp_path, f'echo "Card, {driver}, {capability[0]}.{capability[1]}"')
    choice = torch_builds.choose()
    assert choice.build.name == name
    assert choice.reasons[0] == f"GPU: Card (compute capability {capability[0]}.{capability[1]}, driver {driver})"
    newer = BUILDS[: BUILDS.index(choice.build)]
    assert [reason.split(":")[0] for reason in choice.reasons[1:]] == [f"not {build.name}" for build in newer]


def test_an_old_nvidia_smi_without_compute_capability(tmp_path: Path) -> None:
    nvidia_smi(tmp_path, OLD, 'echo "NVIDIA GeForce GTX 1080, 470.182.03"')
    choice = torch_builds.choose()
    assert choice.build.name == "cu118"
    assert "unknown" in choice.reasons[0]


def test_reasons_name_driver_and_card(tmp_path: Path) -> None:
    nvidia_smi(tmp_path, 'echo "NVIDIA GeForce GTX 1080, 550.54, 6.1"')
    assert torch_builds.choose().reasons == (
        "GPU: NVIDIA GeForce GTX 1080 (compute capability 6.1, driver 550.54)",
        "not cu130: torch 2.14.1 with CUDA 13.0, which needs driver 580 or newer",
        "not cu128: torch 2.10.0 with CUDA 12.8, which holds no code for compute capability 6.1",
    )


def test_without_a_gpu_it_is_the_cpu_build() -> None:
    choice = torch_builds.choose()
    assert (choice.build, choice.reasons) == (CPU, ("no NVIDIA GPU",))
    assert choice.build.requirements() == ("torch==2.14.1", "torchvision==0.29.1")


def test_a_driver_that_does_not_answer_is_an_error_with_the_commands(tmp_path: Path) -> None:
    nvidia_smi(tmp_path, "echo NVIDIA-SMI has failed because it could not communicate with the NVIDIA driver.; exit 9")
    with pytest.raises(NotReady, match="could not communicate") as error:
        torch_builds.choose()
    assert "KRNK_TORCH=cpu make setup" in str(error.value)


@pytest.mark.parametrize(
    ("driver", "capability", "words"),
    [
        ("390.157", GTX_1080, "install driver 450 or newer, then: make setup"),
        ("470.256.02", (3, 5), "holds no code for compute capability 3.5"),
        ("470.256.02", RTX_5090, "install driver 525 or newer, then: make setup"),
    ],
)
def test_a_card_that_no_build_runs_on(tmp_path: Path, driver: str, capability: tuple[int, int], words: str) -> None:
    nvidia_smi(tmp_path, f'echo "Card, {driver}, {capability[0]}.{capability[1]}"')
    with pytest.raises(NotReady, match=r"Card .* no build of torch runs on it") as error:
        torch_builds.choose()
    assert words in str(error.value)
    assert "KRNK_TORCH=cpu make setup" in str(error.value)


def test_several_cards_get_a_build_for_all_or_else_name_the_unused() -> None:
    old, new = Card("Old", "580.95", GTX_1080), Card("New", "580.95", RTX_3090)
    assert torch_builds.for_cards([new, old]).build.name == "cu126"
    blackwell = Card("Newest", "580.95", RTX_5090)
    choice = torch_builds.for_cards([old, blackwell])
    assert choice.build.name == "cu130"
    assert choice.reasons[-1].startswith("Old (compute capability 6.1, driver 580.95) stays unused: cu130 ")


def test_the_python_and_the_machine_limit_the_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_builds, "PYTHON", (3, 14))
    with pytest.raises(NotReady, match=r"Python 3\.14"):
        torch_builds.for_cards([Card("Card", "580.95", GTX_1080)])
    monkeypatch.setattr(torch_builds, "PYTHON", (3, 12))
    monkeypatch.setattr(torch_builds, "MACHINE", "aarch64")
    assert torch_builds.for_cards([Card("GH200", "580.95", H100)]).build.name == "cu130"
    with pytest.raises(NotReady, match="install driver 580 or newer"):
        torch_builds.for_cards([Card("GH200", "570.95", H100)])
    with pytest.raises(NotReady, match="cu128 has no wheel with CUDA for aarch64"):
        torch_builds.for_cards([Card("Jetson", "580.95", V100)])


def test_the_variable_overrides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nvidia_smi(tmp_path, "exit 9")
    for build in (*BUILDS, CPU):
        monkeypatch.setenv("KRNK_TORCH", build.name)
        choice = torch_builds.choose()
        assert (choice.build, choice.reasons) == (build, (f"KRNK_TORCH={build.name}",))
    monkeypatch.setenv("KRNK_TORCH", "cu129")
    with pytest.raises(NotReady, match="names no build of torch") as error:
        torch_builds.choose()
    (problem,) = error.value.problems
    assert problem.where == "KRNK_TORCH=cu129"
    assert problem.what.startswith("names no build of torch")
    assert problem.hint.endswith("unset, make setup chooses")
    assert all(build.name in problem.hint for build in BUILDS)


def test_an_older_build_after_a_failed_test() -> None:
    cu130, cu128, cu126, cu118 = BUILDS
    card = Card("Card", "580.95", V100)
    assert torch_builds.next_older(cu130, [card]) is cu128
    assert torch_builds.next_older(cu126, [card]) is cu118
    assert torch_builds.next_older(cu118, [card]) is None


def test_every_build_is_locked_and_they_are_ordered() -> None:
    for build in BUILDS:
        assert all(re.fullmatch(r"[a-z]+==\d+(\.\d+)+(\+cu\d+)?", pin) for pin in build.requirements())
        assert [pin.split("==")[0] for pin in build.requirements()] == ["torch", "torchvision", "bitsandbytes"]
        assert build.name == "cu" + build.cuda.replace(".", "")
        # An index of its own is needed exactly where the version has a local part, which PyPI refuses.
        assert bool(build.index) == ("+" in build.torch)
    assert [build.cuda for build in BUILDS] == sorted((build.cuda for build in BUILDS), key=float, reverse=True)
    assert len({build.name for build in BUILDS}) >= 2


# GPUs by the compute capability that NVIDIA states, and the builds that hold code for them (PyTorch CUDA Support Matrix).
CODE = {
    (3, 7): (),
    (5, 0): ("cu126", "cu118"),
    (5, 2): ("cu126", "cu118"),
    (6, 1): ("cu126", "cu118"),
    (7, 0): ("cu128", "cu126", "cu118"),
    (7, 5): ("cu130", "cu128", "cu126", "cu118"),
    (8, 0): ("cu130", "cu128", "cu126", "cu118"),
    (8, 9): ("cu130", "cu128", "cu126", "cu118"),
    (9, 0): ("cu130", "cu128", "cu126", "cu118"),
    (10, 0): ("cu130", "cu128"),
    (10, 3): ("cu130", "cu128"),
    (11, 0): ("cu130",),
    (12, 1): ("cu130", "cu128"),
    (13, 0): (),
}


@pytest.mark.parametrize("capability", CODE)
def test_a_build_holds_code_for_these_cards(capability: tuple[int, int]) -> None:
    card = Card("Card", "999", capability)
    assert tuple(build.name for build in BUILDS if not build.obstacle(card)) == CODE[capability]


@pytest.mark.parametrize(
    ("name", "driver", "python", "machines"),
    [
        ("cu130", 580, (3, 15), ("x86_64", "aarch64")),
        ("cu128", 525, (3, 14), ("x86_64",)),
        ("cu126", 525, (3, 13), ("x86_64",)),
        ("cu118", 450, (3, 13), ("x86_64",)),
    ],
)
def test_a_build_has_an_oldest_driver_a_newest_python_and_its_machines(
    monkeypatch: pytest.MonkeyPatch, name: str, driver: int, python: tuple[int, int], machines: tuple[str, ...]
) -> None:
    (build,) = [build for build in BUILDS if build.name == name]
    good = Card("Card", f"{driver}.1", (8, 0))
    assert build.obstacle(good) == ""
    assert build.obstacle(Card("Card", f"{driver - 1}.99", (8, 0))) == f"needs driver {driver} or newer"
    assert build.obstacle(Card("Card", "unknown", (8, 0))) == f"needs driver {driver} or newer"
    monkeypatch.setattr(torch_builds, "PYTHON", python)
    assert build.obstacle(good) == ""
    newer = (python[0], python[1] + 1)
    monkeypatch.setattr(torch_builds, "PYTHON", newer)
    assert build.obstacle(good) == f"has no wheel for Python {newer[0]}.{newer[1]}"
    monkeypatch.setattr(torch_builds, "PYTHON", (3, 11))
    for machine in ("x86_64", "aarch64", "arm64"):
        monkeypatch.setattr(torch_builds, "MACHINE", machine)
        assert (build.obstacle(good) == "") == (machine in machines)


def test_the_next_older_build_runs_on_one_of_the_cards() -> None:
    cards = [Card("Card", "999", (6, 1)), Card("Card", "999", (12, 0))]
    builds = {build.name: build for build in BUILDS}
    assert torch_builds.next_older(builds["cu130"], cards) is builds["cu128"]
    assert torch_builds.next_older(builds["cu130"], cards[:1]) is builds["cu126"]
    assert torch_builds.next_older(builds["cu128"], cards[1:]) is None
    assert torch_builds.next_older(builds["cu118"], cards) is None
    assert torch_builds.next_older(CPU, cards) is None
