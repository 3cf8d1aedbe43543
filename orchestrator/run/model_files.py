"""Checks of base model, VAE and initial LoRA of a recipe."""

from __future__ import annotations

import difflib
import shlex
from typing import TYPE_CHECKING, Final

from orchestrator.errors import OrchestratorError, Problem
from orchestrator.recipe.training import SMALL
from orchestrator.run import initial_weights, model_forms, model_headers
from orchestrator.system import allowlist
from orchestrator.weights.checks import Check, CheckStatus
from orchestrator.weights.families import expected_tensors
from orchestrator.weights.io import pickle_scan, shards

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from orchestrator.plan.inputs import ProjectInputs
    from orchestrator.recipe import Recipe

_LISTED: Final = 6


def model_names(recipe: Recipe) -> Iterator[tuple[str, str, str]]:
    """Yield key, file name and SHA-256 (or "") of each model file of a recipe."""
    yield "base.checkpoint", recipe.base.checkpoint, recipe.base.sha256
    if recipe.base.vae:
        yield "base.vae", recipe.base.vae, recipe.base.vae_sha256
    for name, file in recipe.base.files.items():
        yield f"base.files.{name}", file.file, file.sha256
    if recipe.network.weights:
        yield "network.weights", recipe.network.weights, ""


def problems(recipe: Recipe, inputs: ProjectInputs) -> list[Problem]:
    """Return the problems of a recipe's models.

    A model may be missing, broken, another file, of another architecture, or a harmful pickle.
    """
    return [problem for model in model_names(recipe) for problem in _of_model(recipe, inputs, *model)]


def _of_model(recipe: Recipe, inputs: ProjectInputs, key: str, name: str, sha256: str) -> list[Problem]:
    where, path, small = f"{key} = {name}", inputs.find(name), name == SMALL
    if path is None:
        return [_missing(where, name, recipe, inputs)]
    if not small and not allowlist.is_allowed_model(path, inputs.root, inputs.model_folders()):
        what = f"{path} is neither in a model folder nor on the allow-list"
        hint = f"python -m orchestrator trust {shlex.quote(str(path.parent))}  if this recipe may read it; or $KRNK_MODELS"
        return [Problem(where, what, hint)]
    try:
        digest = inputs.digests.of(path) if sha256 else ""
        forms = [] if small else model_forms.problems(where, key, path, recipe)
        what = "" if forms or path.is_dir() else _defect(path)
    except OSError as error:
        return [Problem(where, f"{path} cannot be read: {error.strerror}", f"chmod u+r {path}")]
    if forms:
        return forms
    if what:
        return [Problem(where, f"{path} {what}", _again(recipe, key))]
    if digest != sha256:
        what = f"is another file: SHA-256 {digest}"
        return [Problem(where, what, f"the recipe expects {sha256}; {_again(recipe, key)}")]
    if key == "network.weights" and path.suffix.lower() == ".safetensors":
        model = expected_tensors.of(recipe, inputs.find(recipe.base.checkpoint))
        return initial_weights.problems(where, path, recipe, model)
    return [] if small else model_headers.problems(where, key, path, recipe)


def checks(recipe: Recipe, inputs: ProjectInputs) -> list[Check]:
    """Return a check for each model without a problem.

    A pickle gives a warning.
    """
    bad = {problem.where for problem in problems(recipe, inputs)}
    passed: list[Check] = []
    for key, name, sha256 in model_names(recipe):
        path = inputs.find(name)
        where = f"{key} = {name}"
        if path is None or where in bad:
            continue
        size = _size(path)
        if path.suffix.lower() in pickle_scan.ENDINGS:
            detail = f"{path}, {size}: a pickle; it was scanned without running it, and calls nothing suspicious"
            detail += f"; {loads}" if (loads := model_forms.unpickled(key, recipe)) else ""
            passed.append(
                Check(
                    key,
                    CheckStatus.WARNING,
                    detail,
                    "prefer a .safetensors of the same model, which cannot hold code",
                    "safetensors",
                )
            )
        else:
            exact = f", SHA-256 {sha256[:12]} as in the recipe" if sha256 else ""
            if key == "network.weights":
                model = expected_tensors.of(recipe, inputs.find(recipe.base.checkpoint))
                exact = initial_weights.continued(path, recipe, model)
            passed.append(Check(key, CheckStatus.PASS, f"{path}, {size}{exact}"))
    return passed


def _missing(where: str, name: str, recipe: Recipe, inputs: ProjectInputs) -> Problem:
    folders = inputs.model_folders()
    near = [path.name for folder in folders for path in folder.glob("*.safetensors")] + [
        path.name for folder in folders for path in folder.glob("*.ckpt")
    ]
    listed = ", ".join(str(folder) for folder in folders[:_LISTED]) + (" …" if len(folders) > _LISTED else "")
    hint = f"put it into {inputs.root / 'models'}, or name your model folders in $KRNK_MODELS; searched: {listed}"
    if recipe.base.url and where.startswith("base.checkpoint"):
        hint = f"python -m orchestrator fetch-base {recipe.name}  fetches it; or {hint}"
    close = difflib.get_close_matches(name, near, n=1, cutoff=0.8)  # another model's name is not a near miss
    return Problem(where, f"not found; did you mean {close[0]}?" if close else "not found", hint)


def _again(recipe: Recipe, key: str) -> str:
    if recipe.base.url and key == "base.checkpoint":
        return f"python -m orchestrator fetch-base {recipe.name}  fetches it again"
    return "download it again from its source"


def _defect(path: Path) -> str:
    """Return the defect of a model file by itself, or ""."""
    ending = path.suffix.lower()
    if ending in pickle_scan.ENDINGS:
        try:
            strange = pickle_scan.strange(path)
        except ValueError as error:
            return str(error)
        return f"is a pickle that would call {', '.join(strange[:3])} when loaded: do not load it" if strange else ""
    if ending == ".safetensors":
        try:
            shards.header(path)
        except OrchestratorError as error:
            return error.problems[0].what
        return ""
    return "is not a model file (.safetensors or .ckpt)"


def _size(path: Path) -> str:
    size = path.stat().st_size if path.is_file() else sum(part.stat().st_size for part in path.rglob("*") if part.is_file())
    return f"{size / 1e9:.2f} GB" if size > 1e8 else f"{size / 1e6:.1f} MB"
