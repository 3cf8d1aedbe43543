"""Verify a LoRA file against recipes, and find its origin."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.errors import OrchestratorError, Problem, RecipeError, counted
from orchestrator.models.registry import ARCHITECTURES
from orchestrator.weights.checks import Check, CheckStatus, as_json, overall
from orchestrator.weights.families import expected_tensors
from orchestrator.weights.inspect import inspect
from orchestrator.weights.options import ResizeOptions
from orchestrator.weights.verify import tensor_checks
from orchestrator.weights.verify.provenance import history

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from orchestrator.recipe import Recipe
    from orchestrator.weights.inspection import Inspection

Expectation = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Verification:
    """Checks of one file, its probable origin, and the recipes that it fits."""

    verdict: CheckStatus
    checks: tuple[Check, ...]
    made_by: tuple[str, ...]
    fits: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the verification as plain JSON."""
        return {
            **as_json(self.checks),
            "made_by": self.made_by,
            "fits": self.fits,
        }


def verify(
    path: Path, expectation: Expectation | None = None, *, candidates: Mapping[str, Expectation] | None = None
) -> Verification:
    """Check a file. A damaged file is a FAIL, not an error.

    Args:
        path: the file.
        expectation: plain JSON: family, modules, tensor_bytes, network_dim, network_alpha, conv_dim, conv_alpha, tucker,
            block_weights (a list or preset name), zeroed (keep, prune), resize ({"method", "param", "new_rank",
            "rank_rule"}), save_precision, trigger_words, network_module, max_train_steps. A key that is missing or None is
            not promised. None: only the file's soundness is checked.
        candidates: expectations by recipe, for the recipes that the file fits.
    """
    try:
        inspection = inspect(path)
    except OrchestratorError as error:
        return Verification(
            CheckStatus.FAIL, tuple(Check("file", CheckStatus.FAIL, str(problem)) for problem in error.problems), (), ()
        )
    checks = [*_sound(inspection), *(_kept(inspection, expectation) if expectation is not None else ())]
    fits = tuple(name for name, promises in (candidates or {}).items() if _fits(inspection, promises))
    return Verification(overall(checks), tuple(checks), tuple(history(inspection)), fits)


def _fits(inspection: Inspection, expectation: Expectation) -> bool:
    """Return whether no promise is broken, and at least one is kept."""
    checks = list(_kept(inspection, expectation))
    return all(check.status.ok for check in checks) and any(check.status is CheckStatus.PASS for check in checks)


def _check(what: str, kept: bool | None, detail: str) -> Check:
    return Check(what, CheckStatus.UNKNOWN if kept is None else CheckStatus.PASS if kept else CheckStatus.FAIL, detail)


def _sound(inspection: Inspection) -> Iterable[Check]:
    modules = len(inspection.layers)
    yield _check(
        "file",
        True,
        f"{counted(len(inspection.adapter.header.entries), 'tensor')} in {counted(modules, 'module')}, header sound",
    )
    broken = [layer.name for layer in inspection.layers if layer.size and not layer.size.finite]
    yield _check("numbers", not broken, f"not finite: {', '.join(broken[:4])}" if broken else "all finite")
    odd = [layer.name for layer in inspection.layers if layer.alpha is not None and not math.isfinite(layer.alpha)]
    if odd:
        yield _check("alphas", False, f"not finite: {', '.join(odd[:4])}")
    hashes = inspection.hashes
    if hashes:
        stated = f"stated {hashes.stated_model[:12]}" if hashes.stated_model else "none stated"
        rule = " by LyCORIS' own rule, which depends on the training order" if hashes.stated_by_lycoris else ""
        yield _check("model hash", hashes.model_agrees, f"{hashes.model[:12]}…, {stated}{rule}")
        yield _check("legacy hash", hashes.legacy_agrees, f"{hashes.legacy}, stated {hashes.stated_legacy or 'none'}")


def _kept(inspection: Inspection, expectation: Expectation) -> Iterable[Check]:
    promises = {key: value for key, value in expectation.items() if value is not None}
    for what, check in tensor_checks.CHECKS.items():
        result = check(inspection, promises)
        if result is not None:
            yield _check(what, *result)
    for key in promises.keys() - tensor_checks.KEYS:
        yield _check(key, None, "cannot be checked in a file")


def expectation(recipe: Recipe, checkpoint: Path | None = None) -> dict[str, Any]:
    """Return the promises of a recipe about its finished file, for ``verify``.

    Args:
        recipe: the recipe of the file.
        checkpoint: its base model. The embedded engine's model folder decides about the sizes of the layers.

    Raises:
        RecipeError: the resize has two methods.
    """
    network, resize = recipe.network, recipe.resize
    own = ARCHITECTURES[recipe.base.architecture].network_module
    sized = recipe.engine == "sd-scripts" or checkpoint is not None
    predicted = expected_tensors.predict(recipe, expected_tensors.of(recipe, checkpoint)) if sized else None
    modules = recipe.expect.modules or (predicted.modules if predicted else None)
    size = recipe.expect.tensor_bytes or (predicted.tensor_bytes if predicted else None)
    pruned = recipe.block_weights is not None and recipe.merge.zeroed == "prune"
    promises: dict[str, Any] = {
        "family": network.family,
        "modules": modules,
        "tensor_bytes": None if resize or pruned else size,
        "network_dim": network.dim,
        "network_alpha": network.alpha,
        "conv_dim": network.conv_dim,
        "conv_alpha": network.conv_alpha,
        "tucker": network.tucker,
        "block_weights": None if recipe.block_weights is None else recipe.weights().plain(),
        "zeroed": recipe.merge.zeroed if recipe.block_weights is not None else None,
        "save_precision": resize.save_precision if resize else recipe.training.save_precision,
        "trigger_words": list(recipe.triggers()) or None,
        "network_module": own if network.family == "lora" else "lycoris.kohya",
        "max_train_steps": recipe.training.steps or None,
    }
    if resize:
        if len(methods := resize.methods()) > 1:
            raise RecipeError(Problem("resize", f"has {' and '.join(methods)}", "choose one"))
        options = ResizeOptions.of_table(resize)
        promises["resize"] = {
            "method": options.method,
            "param": options.param,
            "new_rank": options.new_rank,
            "new_conv_rank": options.new_conv_rank,
            "rank_rule": options.rank_rule,
        }
    return {key: value for key, value in promises.items() if value is not None}
