"""Projects whose orchestrator runs the real sd-scripts."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import toml

import small_models as small
from orchestrator.models.registry import ARCHITECTURES

ROOT = Path(__file__).resolve().parent.parent.parent
PARTS = {
    "sd1": "",
    "sd2": "sd2-vpred",
    "sdxl": "sdxl",
    "sd3-medium": "sd3",
    "sd3.5-medium": "sd3",
    "sd3.5-large": "sd3",
    "flux-schnell": "flux-schnell",
    "flux": "flux",
    "chroma": "chroma",
    "lumina": "lumina",
    "hunyuan-image": "hunyuan-image",
    "anima": "anima",
}
"""Part of recipes/_base of each architecture, if it has one."""
SINGLE = ("sd1", "sd2", "hunyuan-image")
"""Architectures that are trained in single precision on the CPU."""
GPU_ONLY = ["training.options.fp8_scaled", "training.blocks_to_swap"]


@dataclass(frozen=True, slots=True)
class Project:
    """A project with the real recipes and tiny images.

    Its profile trains two steps on the CPU.
    """

    root: Path
    environment: dict[str, str]

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    def argv(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "orchestrator", *words]

    def call(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run the orchestrator to its end."""
        return subprocess.run(
            self.argv(*words), cwd=self.root, env=self.environment, text=True, capture_output=True, timeout=1800, check=False
        )

    def folder(self, recipe: str, kind: str) -> Path:
        """Return the finished step of a recipe."""
        folders = [path for path in (self.runs / recipe).glob(f"{kind}-*") if path.is_dir()]
        assert len(folders) == 1, folders
        return folders[0]


@dataclass(frozen=True, slots=True)
class SmallProject(Project):
    """A project whose trainer has the sizes of the small models."""

    models: Path

    def argv(self, *words: str) -> list[str]:
        return [sys.executable, str(ROOT / "tests" / "sd_scripts" / "run_small.py"), *words]

    def write(
        self,
        name: str,
        architecture: str,
        network: dict[str, Any] | None = None,
        render: dict[str, Any] | None = None,
        **training: Any,
    ) -> str:
        """Write a recipe of an architecture: 64x64 images and two steps on the CPU. Return its name."""
        folder, entry = small.model(self.models, architecture), ARCHITECTURES[architecture]
        (checkpoint,) = folder.glob("dit*")
        files = {file.option: {"file": str(next(folder.glob(f"{file.option}*")))} for file in entry.files}
        extends = [
            "_base/release-2023-03",
            "_subjects/krnk",
            *([f"_base/{PARTS[architecture]}"] if PARTS[architecture] else []),
        ]
        table: dict[str, Any] = {"extends": [*extends, "_profiles/cpu", "_small"], "summary": "x", "algorithm": "lora"}
        # LoKr has no single pair of factors, and LyCORIS rebuilds no 8-bit weights.
        table["unset"] = [*GPU_ONLY, *(["resize", "training.fp8_base"] if network else [])]
        table["unset"] += [f"training.{key}" for key in entry.ignored_options]  # FLUX.1-schnell's guidance
        table["base"] = {"architecture": architecture, "checkpoint": str(checkpoint), "files": files}
        table["base"] |= {"vae": str(vae)} if (vae := folder / "vae.safetensors").is_file() else {}
        table["network"] = {"family": "lora", "dim": 4, "alpha": 2, **(network or {})}
        table["render"] = render or {}
        table["training"] = {
            "steps": 2,
            "mixed_precision": "no" if architecture in SINGLE else "bf16",
            "save_precision": "fp16",
            **training,
        }
        path = self.root / "recipes" / f"{name}.toml"
        path.write_text(toml.dumps(table), "utf-8")
        return name
