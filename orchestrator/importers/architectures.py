"""Find the architecture that imported settings train."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.engines.sdscripts import arguments, parser_options
from orchestrator.errors import Problem, RecipeError
from orchestrator.importers.notes import Disposition, ImportedSettings
from orchestrator.models.registry import ARCHITECTURES, DEFAULT

if TYPE_CHECKING:
    from orchestrator.models.registry import ArchitectureName


def named(settings: ImportedSettings, word: str, title: str) -> None:
    """Set the architecture that a file names.

    Args:
        settings: receives the architecture.
        word: its name in recipes, or the first word of its training script.
        title: for the message.

    Raises:
        RecipeError: no recipe trains it.
    """
    for name, entry in ARCHITECTURES.items():
        if name not in _readable():
            continue
        if word == name or entry.trainer_script == f"{word}_train_network.py":
            settings.extra["architecture"] = name
            return
    read = ", ".join(ARCHITECTURES[name].title for name in _readable())
    hint = "write the recipe by hand: python -m orchestrator schema  lists base.architecture and its keys"
    raise RecipeError(Problem(settings.name, f"these are settings for {title}; import reads those for {read}", hint))


def _readable() -> list[ArchitectureName]:
    """Return the trained architectures whose model is one file."""
    return [name for name, entry in ARCHITECTURES.items() if name in arguments.ARCHITECTURES and not entry.files]


def of(settings: ImportedSettings) -> ArchitectureName:
    """Return the architecture, by the options that only one script has.

    A note says so, or that nothing tells.
    """
    if "architecture" in settings.extra:
        found: ArchitectureName = settings.extra["architecture"]
        return found
    usual = DEFAULT
    given = {name for name, value in settings.options.items() if value not in (None, False, "")}
    known = parser_options.of(ARCHITECTURES[usual].trainer_script)
    for name, entry in ARCHITECTURES.items():
        if (
            entry.files
            or entry.trainer_script == ARCHITECTURES[usual].trainer_script
            or entry.trainer_script not in parser_options.SCRIPTS
        ):
            continue
        own = sorted(given & (parser_options.of(entry.trainer_script).keys() - known.keys()))
        if own:
            why = f"{entry.title}, because only {entry.trainer_script} takes {', '.join(own)}"
            settings.note(Disposition.CHANGED, "the architecture", "base.architecture", why)
            return name
    why = f"the file does not state it: {ARCHITECTURES[usual].title} is assumed"
    settings.note(Disposition.CHANGED, "the architecture", "base.architecture", why)
    return usual
