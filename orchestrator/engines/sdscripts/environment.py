"""sd-scripts and its environment: which commit, which packages, which tokenizers. Reads files; starts nothing."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from orchestrator.engines.sdscripts import checkout, network_args, write_tokenizer
from orchestrator.system import settings
from orchestrator.weights.doctor_check import Check, State

if TYPE_CHECKING:
    from pathlib import Path

# LyCORIS versions that were tried with sd-scripts v0.10.1.
_GOOD: Final = ("3.4.0", "3.2.0.post2")
_BAD: Final = "duplicated lora name: lora_unet_time_embedding_linear_1"
_FILES: Final = ("vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json")


def checks() -> list[Check]:
    """Return what can be said of sd-scripts where it is there; what is missing for a recipe, its engine's preflight says."""
    folder, python = settings.sd_scripts(), settings.sd_scripts_python()
    found: list[Check] = []
    if checkout.present(folder):
        found.append(_commit(folder))
    packages = site_packages(python)
    if packages is not None:
        found += _versions(packages)
    for name, what in zip(write_tokenizer.NAMES, ("tokenizer", "SDXL's second tokenizer"), strict=True):
        found.append(_tokenizer(settings.tokenizers() / name, what))
    return found


def _commit(folder: Path) -> Check:
    version = checkout.version(folder)
    if version == checkout.PINNED:
        return Check("sd-scripts", State.OK, f"v0.10.1, {version[:12]}, in {folder}")
    fix = (
        f"git -C {folder} checkout {checkout.PINNED}"
        if not version.endswith("modified")
        else f"git -C {folder} diff  shows what was changed"
    )
    return Check("sd-scripts", State.WARN, f"{version} in {folder}", fix, f"v0.10.1, {checkout.PINNED[:12]}")


def site_packages(python: Path) -> Path | None:
    """Return the packages folder of a virtual environment, or None."""
    root = python.parent.parent
    found = (
        [*root.glob("lib/python3*/site-packages"), *root.glob("Lib/site-packages")] if (root / "pyvenv.cfg").is_file() else []
    )
    return found[0] if found else None


def version(packages: Path, name: str) -> str:
    """Return the version of a package in a packages folder, or ""."""
    pattern = re.compile(rf"{re.escape(name)}-([^-]+)\.dist-info", re.IGNORECASE)
    return next(
        (match[1] for path in packages.glob("*.dist-info") if (match := pattern.fullmatch(path.name.replace("-", "-")))), ""
    )


def _versions(packages: Path) -> list[Check]:
    found: list[Check] = []
    torch = version(packages, "torch")
    if torch:
        cuda = "+cpu" not in torch
        said = f"{torch}{'' if cuda else ': built without CUDA'}"
        found.append(
            Check(
                "torch of sd-scripts",
                State.OK if cuda else State.WARN,
                said,
                "make setup  installs one with CUDA",
                "2.6 or newer, with CUDA",
            )
        )
    lycoris = version(packages, "lycoris_lora")
    if lycoris:
        said = lycoris if lycoris in _GOOD else f"{lycoris}: {_BAD if lycoris >= '4' else 'not tried with this sd-scripts'}"
        fix = f"{packages.parents[2] / 'bin' / 'python'} -m pip install lycoris-lora=={network_args.LYCORIS_VERSION}"
        found.append(Check("LyCORIS", State.OK if lycoris in _GOOD else State.WARN, said, fix, network_args.LYCORIS_VERSION))
    for name, why in (("xformers", 'attention = "xformers"'), ("bitsandbytes", "AdamW8bit and other 8-bit optimizers")):
        there = version(packages, name)
        if there:
            found.append(Check(f"{name} of sd-scripts", State.OK, f"{there} (for {why})"))
    return found


def _tokenizer(lying: Path, what: str) -> Check:
    missing = [name for name in _FILES if not (lying / name).is_file()]
    if not missing:
        return Check(what, State.OK, f"{lying}: no network is needed")
    said = (
        f"not in {lying.parent}: sd-scripts fetches it at its first start"
        if not lying.is_dir()
        else f"{lying} lacks {', '.join(missing)}"
    )
    state = State.WARN if not lying.is_dir() else State.BAD
    return Check(
        what, state, said, f"make setup, or put {', '.join(_FILES)} into {lying}, or be online once", "to train offline"
    )
