"""Builds of torch for sd-scripts, and the choice among them.

Each is locked with the torchvision and bitsandbytes that run with it. Sources of the table:

- CUDA of a torch on PyPI: its metadata (``cuda-toolkit==13.0.3``, ``nvidia-cuda-runtime-cu12==12.8.90``, ``…==12.6.77``).
- Driver: https://docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html (every CUDA 13.x from 580,
  12.x from 525, 11.x from 450 on).
- Compute capabilities: RELEASE.md of PyTorch, "PyTorch CUDA Support Matrix", of each release.
- bitsandbytes: the libraries in its wheel. 0.47.0 is the last one on PyPI for Maxwell (compute capability 5.x).
"""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from orchestrator.errors import NotReady, Problem, near_miss
from orchestrator.system.gpu import Card, cards

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

VARIABLE: Final = "KRNK_TORCH"
PYTHON: Final = sys.version_info[:2]
MACHINE: Final = platform.machine()


@dataclass(frozen=True, slots=True)
class TorchBuild:
    """A build of torch with the packages that match it."""

    name: str
    """The suffix that PyTorch gives the build: "cu128"."""
    torch: str
    torchvision: str
    bitsandbytes: str = ""
    """Empty: not installed, as its optimizers need a GPU."""
    cuda: str = ""
    driver: int = 0
    """Oldest major version of the NVIDIA driver."""
    capabilities: tuple[tuple[int, int], ...] = ()
    """Compute capabilities that the build holds code for. Code of 8.0 also runs on 8.6 and 8.9, not on 9.0."""
    newest_python: tuple[int, int] = (3, 15)
    machines: tuple[str, ...] = ("x86_64",)
    index: str = ""
    """Index of the packages, where PyPI does not have them."""

    def __str__(self) -> str:
        return f"{self.name}: torch {self.torch}" + (f" with CUDA {self.cuda}" if self.cuda else "")

    def requirements(self) -> tuple[str, ...]:
        """Return the packages with exact versions, as pip takes them."""
        pins = (f"torch=={self.torch}", f"torchvision=={self.torchvision}")
        return (*pins, f"bitsandbytes=={self.bitsandbytes}") if self.bitsandbytes else pins

    def pip_options(self) -> tuple[str, ...]:
        """Return the options with which pip finds the packages."""
        return (f"--extra-index-url={self.index}",) if self.index else ()

    def obstacle(self, card: Card) -> str:
        """Return the reason why the build cannot run on a card, or ""."""
        if _major(card.driver) < self.driver:
            return f"needs driver {self.driver} or newer"
        if card.capability and not any(
            major == card.capability[0] and minor <= card.capability[1] for major, minor in self.capabilities
        ):
            return f"holds no code for compute capability {card.capability[0]}.{card.capability[1]}"
        if self.newest_python < PYTHON:
            return f"has no wheel for Python {PYTHON[0]}.{PYTHON[1]}"
        if MACHINE not in self.machines:
            return f"has no wheel with CUDA for {MACHINE}"
        return ""


_TO_HOPPER: Final = ((5, 0), (6, 0), (7, 0), (7, 5), (8, 0), (8, 6), (9, 0))
CPU: Final = TorchBuild("cpu", "2.14.1", "0.29.1")
BUILDS: Final = (
    TorchBuild(
        *("cu130", "2.14.1", "0.29.1", "0.50.2"),
        cuda="13.0",
        driver=580,
        capabilities=((7, 5), (8, 0), (8, 6), (9, 0), (10, 0), (11, 0), (12, 0)),  # 11.0 (Thor) is an aarch64
        machines=("x86_64", "aarch64"),
    ),
    TorchBuild(
        *("cu128", "2.10.0", "0.25.0", "0.50.2"),
        cuda="12.8",
        driver=525,
        capabilities=((7, 0), (7, 5), (8, 0), (8, 6), (9, 0), (10, 0), (12, 0)),
        newest_python=(3, 14),
    ),
    TorchBuild(
        *("cu126", "2.7.1", "0.22.1", "0.47.0"), cuda="12.6", driver=525, capabilities=_TO_HOPPER, newest_python=(3, 13)
    ),
    TorchBuild(
        *("cu118", "2.7.1+cu118", "0.22.1+cu118", "0.47.0"),
        cuda="11.8",
        driver=450,
        capabilities=_TO_HOPPER,
        newest_python=(3, 13),
        index="https://download.pytorch.org/whl/cu118",
    ),
)
"""All with CUDA, newest first."""


@dataclass(frozen=True, slots=True)
class TorchChoice:
    """The build to install, and the reasons."""

    build: TorchBuild
    reasons: tuple[str, ...]
    """One line each."""


def choose() -> TorchChoice:
    """Return the newest build that runs on the cards of this machine.

    $KRNK_TORCH names another one. Without a GPU it is the build "cpu".

    Raises:
        NotReady: the driver does not answer, no build runs, or $KRNK_TORCH names none.
    """
    named = os.environ.get(VARIABLE, "").strip()
    if named:
        return TorchChoice(_named(named), (f"{VARIABLE}={named}",))
    gpus, reason = cards()
    if reason:
        names = " or ".join(build.name for build in BUILDS)
        hint = (
            f"repair the driver (after its update: restart the machine); or name a build: {VARIABLE}=cpu make setup ({names})"
        )
        raise NotReady(Problem("GPU", f"the driver does not answer, so no build of torch can be chosen: {reason}", hint))
    return for_cards(gpus) if gpus else TorchChoice(CPU, ("no NVIDIA GPU",))


def for_cards(gpus: Sequence[Card]) -> TorchChoice:
    """Return the newest build for all cards, or else for one of them.

    Raises:
        NotReady: no build runs on any of them.
    """
    everywhere = [build for build in BUILDS if not any(map(build.obstacle, gpus))]
    somewhere = [build for build in BUILDS if not all(map(build.obstacle, gpus))]
    if not somewhere:
        raise NotReady([Problem(str(card), "no build of torch runs on it", _advice(card)) for card in _distinct(gpus)])
    build = (everywhere or somewhere)[0]
    reasons = [f"GPU: {card}" for card in _distinct(gpus)]
    newer = BUILDS[: BUILDS.index(build)]
    reasons += [f"not {other}, which {other.obstacle(card)}" for other in newer for card in _obstructed(other, gpus)[:1]]
    reasons += [f"{card} stays unused: {build.name} {build.obstacle(card)}" for card in _obstructed(build, gpus)]
    return TorchChoice(build, tuple(reasons))


def next_older(build: TorchBuild, gpus: Iterable[Card]) -> TorchBuild | None:
    """Return the newest build that is older and runs on a card, or None."""
    older = BUILDS[BUILDS.index(build) + 1 :] if build in BUILDS else ()
    return next((other for other in older if any(not other.obstacle(card) for card in gpus)), None)


def _named(name: str) -> TorchBuild:
    builds = {build.name: build for build in (*BUILDS, CPU)}
    if name not in builds:
        what = f"names no build of torch{near_miss(name, builds)}"
        listed = "; ".join(str(build) for build in builds.values())
        raise NotReady(Problem(f"{VARIABLE}={name}", what, f"one of {listed}; unset, make setup chooses"))
    return builds[name]


def _advice(card: Card) -> str:
    """Return the next command for a card that no build runs on."""
    newest = [build for build in BUILDS if not build.obstacle(Card(card.name, "999", card.capability))]
    if newest:
        return f"install driver {newest[-1].driver} or newer, then: make setup; or without the GPU: {VARIABLE}=cpu make setup"
    reasons = "; ".join(f"{build.name} {build.obstacle(card)}" for build in BUILDS)
    return f"{reasons}; without the GPU: {VARIABLE}=cpu make setup"


def _obstructed(build: TorchBuild, gpus: Iterable[Card]) -> list[Card]:
    """Return the cards that a build cannot run on."""
    return [card for card in _distinct(gpus) if build.obstacle(card)]


def _distinct(gpus: Iterable[Card]) -> list[Card]:
    return list(dict.fromkeys(gpus))


def _major(version: str) -> int:
    number = version.partition(".")[0]
    return int(number) if number.isdigit() else 0
