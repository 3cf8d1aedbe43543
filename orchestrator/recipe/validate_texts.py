"""Find texts that a trainer would read as options, or import as code."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.recipe import Recipe
    from orchestrator.recipe.base import Conflict

_IMPORTED: tuple[str, ...] = ("torch.optim", "bitsandbytes.optim", "transformers.optimization", "dadaptation", "prodigyopt")
_IMPORTED += ("prodigyplus", "lion_pytorch", "schedulefree", "pytorch_optimizer", "came_pytorch", "adv_optm", "heavyball")


def check(recipe: Recipe) -> Iterator[Conflict]:
    """Find values that a trainer would read as options, or import."""
    training, network = recipe.training, recipe.network
    values: dict[str, object] = {
        f"training.{key}": getattr(training, key) for key in ("optimizer", "lr_scheduler", "log_prefix")
    }
    values |= {f"training.options.{key}": value for key, value in training.options.items()}
    values |= {f"training.optimizer_args.{key}": value for key, value in training.optimizer_args.items()}
    values |= {f"network.args.{key}": value for key, value in network.args.items()}
    values |= {"base.checkpoint": recipe.base.checkpoint, "base.vae": recipe.base.vae, "network.weights": network.weights}
    values |= {f"base.files.{name}": file.file for name, file in recipe.base.files.items()}
    values["render.sampler"] = recipe.render.sampler
    values |= {f"merge.options.{key}": value for key, value in recipe.merge.options.items()}
    values |= {f"resize.options.{key}": value for key, value in (recipe.resize.options if recipe.resize else {}).items()}
    for key, value in values.items():
        for text in value if isinstance(value, tuple) else (value,):
            if isinstance(text, str) and text.startswith("-"):
                yield key, f"is {text!r}; a value that begins with - would be read as an option"
            elif isinstance(text, str) and not text.isprintable():
                yield key, f"is {text!r}; control characters have no meaning here"
    yield from _python(recipe)


def _python(recipe: Recipe) -> Iterator[Conflict]:
    """Find values that make a trainer import a module.

    Only an optimizer may be one.
    """
    training = recipe.training
    values: dict[str, object] = {"training.optimizer": training.optimizer, "training.lr_scheduler": training.lr_scheduler}
    values["training.options.lr_scheduler_type"] = training.options.get("lr_scheduler_type", "")
    for key, value in values.items():
        if not isinstance(value, str):
            continue  # the trainer's own check names the values that it takes
        if value and not all(part.isidentifier() for part in value.split(".")):
            yield key, f"is {value!r}; takes a name, or a class as torch.optim.AdamW"
        elif "." in value and ("._" in value or not value.startswith(tuple(f"{module}." for module in _IMPORTED))):
            yield key, f"is {value!r}, which the trainer would import; of modules that hold optimizers: {', '.join(_IMPORTED)}"
    for key, names in (("training.optimizer_args", [*training.optimizer_args]), ("network.args", [*recipe.network.args])):
        for name in names:
            if not name.isidentifier():
                yield f"{key}.{name}", "is not the name of an argument"
