"""Checks of sd-scripts on this machine: checkout, packages, tokenizers.

They read files. Doctor's also start git, and where there is an NVIDIA GPU, the test of torch.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from orchestrator.engines.sdscripts import checkout, network_args, parser_options, torch_test, write_tokenizer
from orchestrator.errors import Problem
from orchestrator.models.registry import ARCHITECTURES
from orchestrator.models.text_encoders import GATED, HUB
from orchestrator.system import settings
from orchestrator.weights.checks import Check, CheckStatus

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from orchestrator.recipe import Recipe

_SETUP: Final = "make setup  fetches it; or set SD_SCRIPTS_DIR, or dir under [sd-scripts] in "
# LyCORIS versions that were tried with sd-scripts v0.10.1.
_GOOD: Final = (network_args.LYCORIS_VERSION, network_args.TRAINS_FULL)
_BAD: Final = "duplicated lora name: lora_unet_time_embedding_linear_1"
_TOKENIZER_FILES: Final = ("vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json")
# Optimizers from packages of their own, in the order in which get_optimizer of train_util.py tries the names.
_OPTIMIZER_PACKAGES: Final = (
    (re.compile(r"lion$"), "lion_pytorch"),
    (re.compile(r".*8bit$|pagedadamw(32bit)?$"), "bitsandbytes"),
    (re.compile(r"dadapt"), "dadaptation"),
    (re.compile(r"prodigy$"), "prodigyopt"),
    (re.compile(r".*schedulefree$"), "schedulefree"),
)
_NOT_LOCKED: Final = ("wandb", "xformers", "dadaptation")  # make setup does not install them
_INSTEAD: Final = {
    "bitsandbytes": '  installs it where there is an NVIDIA GPU; or set training.optimizer = "AdamW"',
    "xformers": '; or set training.attention = "sdpa"',
}


def missing(alternative: str) -> list[Problem]:
    """Return problems of the checkout and of its Python.

    Each also names the ``alternative``, which needs neither.
    """
    folder, python = settings.sd_scripts(), settings.sd_scripts_python()
    problems: list[Problem] = []
    if not checkout.present(folder):
        problems.append(Problem(str(folder), f"sd-scripts is not there; {alternative}", _SETUP + str(settings.config_file())))
    else:
        parser_options.cache_options(folder)
    if not python.is_file():
        hint = "make setup  builds it; or set SD_SCRIPTS_PYTHON to the Python that has sd-scripts' requirements"
        if not python.is_relative_to(settings.sd_scripts_environment()):
            setting = f"SD_SCRIPTS_PYTHON, or python under [sd-scripts] in {settings.config_file()}"
            hint = f"correct the setting ({setting}); or remove it: make setup  builds one"
        problems.append(Problem(str(python), f"the Python of sd-scripts is not there; {alternative}", hint))
    return problems


def package_problems(recipe: Recipe, packages: Path) -> Iterator[Problem]:
    """Yield the environment's problems with a recipe.

    Missing packages, and a LyCORIS version that cannot train it.
    """
    needed = _needed(recipe)
    for package, why in needed.items():
        if not (packages / package).is_dir() and not (packages / f"{package}.py").is_file():
            what = f"the package {package} is not there" + (f" ({why})" if why else "")
            yield Problem(str(packages), what, _package_hint(package))
    lycoris = version(packages, "lycoris_lora")
    info = str(packages / f"lycoris_lora-{lycoris}.dist-info")
    if recipe.network.family == "full" and lycoris == network_args.LYCORIS_VERSION:
        what = f"is lycoris-lora {lycoris}, which cannot train full: it deletes the weights that its forward needs"
        yield Problem(info, what, f"install lycoris-lora=={network_args.TRAINS_FULL} there, or train another family")
    major = lycoris.partition(".")[0]
    if "lycoris" in needed and major.isdigit() and int(major) > 3:
        what = f"is lycoris-lora {lycoris}, which stops in sd-scripts: duplicated lora name"
        yield Problem(info, what, f"install lycoris-lora=={network_args.LYCORIS_VERSION} there (make setup)")


def _package_hint(package: str) -> str:
    """Return the command that installs a package, and a setting without it."""
    command = f"{settings.sd_scripts_python()} -m pip install {package}" if package in _NOT_LOCKED else "make setup"
    return command + _INSTEAD.get(package, "")


def _needed(recipe: Recipe) -> dict[str, str]:
    """Return the packages that a training imports, each with its reason.

    The reason is a key of the recipe, or empty.
    """
    needed = {"torch": "", "accelerate": "", "transformers": "", "diffusers": ""}
    optimizer = recipe.training.optimizer
    package = next((package for pattern, package in _OPTIMIZER_PACKAGES if pattern.match(optimizer.lower())), "")
    if package:
        needed[package] = f"training.optimizer = {optimizer}"
    if recipe.training.attention == "xformers":
        needed["xformers"] = "training.attention = xformers"
    if recipe.training.wandb:
        needed["wandb"] = "training.wandb = true"
    if recipe.network.family != "lora":
        needed["lycoris"] = f"network.family = {recipe.network.family}"
    return needed


def tokenizer_problems(recipe: Recipe) -> Iterator[Problem]:
    """Yield the tokenizers that only the Hub has and that are missing.

    Each has the command that downloads it.
    """
    folder = settings.tokenizers()
    for name in ARCHITECTURES[recipe.base.architecture].tokenizers:
        if name.startswith(HUB) and name not in write_tokenizer.NAMES and not (folder / name / "snapshots").is_dir():
            repository = name.removeprefix(HUB).replace("--", "/", 1)
            hf = settings.sd_scripts_python().with_name("hf")
            hint = f'{hf} download {repository} --include "*.json" "*.txt" "tokenizer*" --cache-dir {folder}'
            if name in GATED:
                hint += f"; before that accept the licence on https://huggingface.co/{repository} and run {hf} auth login"
            yield Problem(str(folder / name), f"the tokenizer of {repository} is not there", hint)


def checks(recipes: Sequence[Recipe]) -> list[Check]:
    """Return doctor's checks of the installed parts of sd-scripts.

    Preflight names missing parts. Tokenizers are those of the recipes' base models.
    """
    folder, python = settings.sd_scripts(), settings.sd_scripts_python()
    results = [_commit(folder)] if checkout.present(folder) else []
    packages = site_packages(python)
    if packages is not None:
        results += _versions(packages)
        results += torch_test.checks(python, version(packages, "torch"), version(packages, "bitsandbytes"))
    read = {name for recipe in recipes for name in ARCHITECTURES[recipe.base.architecture].tokenizers}
    labels = {write_tokenizer.CLIP_L: "tokenizer of CLIP-L", write_tokenizer.CLIP_G: "tokenizer of CLIP-G"}
    return results + [_tokenizer(settings.tokenizers() / name, label) for name, label in labels.items() if name in read]


def _commit(folder: Path) -> Check:
    commit = checkout.version(folder)
    if commit == checkout.PINNED:
        return Check("sd-scripts", CheckStatus.PASS, f"v0.10.1, {commit[:12]}, in {folder}")
    fix = f"git -C {folder} checkout {checkout.PINNED}"
    if commit.endswith("modified"):
        fix = f"git -C {folder} diff  shows the changes"
    return Check("sd-scripts", CheckStatus.WARNING, f"{commit} in {folder}", fix, f"v0.10.1, {checkout.PINNED[:12]}")


def site_packages(python: Path) -> Path | None:
    """Return the packages folder of a virtual environment, or None."""
    root = python.parent.parent
    if not (root / "pyvenv.cfg").is_file():
        return None
    return next(iter([*root.glob("lib/python3*/site-packages"), *root.glob("Lib/site-packages")]), None)


def version(packages: Path, name: str) -> str:
    """Return the version of a package in a packages folder, or ""."""
    pattern = re.compile(rf"{re.escape(name)}-([^-]+)\.dist-info", re.IGNORECASE)
    return next((match[1] for path in packages.glob("*.dist-info") if (match := pattern.fullmatch(path.name))), "")


def _versions(packages: Path) -> list[Check]:
    results: list[Check] = []
    torch = version(packages, "torch")
    if torch:
        cuda = "+cpu" not in torch
        state, built = (CheckStatus.PASS, "") if cuda else (CheckStatus.WARNING, ": built without CUDA")
        fix = "make setup  installs one with CUDA, where there is an NVIDIA GPU"
        results.append(Check("torch of sd-scripts", state, f"{torch}{built}", fix, "2.6 or newer, with CUDA"))
    lycoris = version(packages, "lycoris_lora")
    if lycoris:
        state, note = CheckStatus.PASS, lycoris
        if lycoris not in _GOOD:
            state, note = CheckStatus.WARNING, f"{lycoris}: {_BAD if lycoris >= '4' else 'not tried with this sd-scripts'}"
        fix = f"{packages.parents[2] / 'bin' / 'python'} -m pip install lycoris-lora=={network_args.LYCORIS_VERSION}"
        results.append(Check("LyCORIS", state, note, fix, network_args.LYCORIS_VERSION))
    for name, purpose in (("xformers", 'attention = "xformers"'), ("bitsandbytes", "AdamW8bit and other 8-bit optimizers")):
        installed = version(packages, name)
        if installed:
            results.append(Check(f"{name} of sd-scripts", CheckStatus.PASS, f"{installed} (for {purpose})"))
    return results


def _tokenizer(folder: Path, label: str) -> Check:
    absent = [name for name in _TOKENIZER_FILES if not (folder / name).is_file()]
    if not absent:
        return Check(label, CheckStatus.PASS, f"{folder}: no network is needed")
    state, note = CheckStatus.FAIL, f"{folder} lacks {', '.join(absent)}"
    if not folder.is_dir():
        state, note = CheckStatus.WARNING, f"not in {folder.parent}: sd-scripts downloads it at its first start"
    fix = f"make setup, or put {', '.join(_TOKENIZER_FILES)} into {folder}, or be online once"
    return Check(label, state, note, fix, "to train offline")
