"""Find the architecture that imported settings train, and its files."""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING, Any

from orchestrator.engines.sdscripts import parser_options
from orchestrator.errors import Problem, RecipeError
from orchestrator.importers.notes import Disposition, ImportedSettings
from orchestrator.importers.values import path, take
from orchestrator.models.registry import ARCHITECTURES, DEFAULT, SMALL_BASE

if TYPE_CHECKING:
    from orchestrator.models.architecture import Architecture
    from orchestrator.models.registry import ArchitectureName

_MODULE = re.compile(r"networks\.lora_(\w+)")
_ADAPTERS = ("fa", "c3lier", "diffusers", "interrogator")  # of no model of their own
_PLAIN = re.compile(r"[^a-z0-9]+")


def named(settings: ImportedSettings, word: str, title: str) -> None:
    """Set the architecture that a file names.

    Args:
        settings: receives the architecture.
        word: its name in recipes, or the first word of its training script.
        title: for the message.

    Raises:
        RecipeError: no recipe trains it.
    """
    readable = _trained()
    script = f"{word}_train_network.py"
    chosen = next((name for name in readable if name == word), None)
    chosen = chosen or next((name for name in readable if ARCHITECTURES[name].trainer_script == script), None)
    if chosen is None:
        read = ", ".join(ARCHITECTURES[name].title for name in readable)
        hint = "write the recipe by hand: python -m orchestrator schema  lists base.architecture and its keys"
        raise RecipeError(Problem(settings.name, f"these are settings for {title}; import reads those for {read}", hint))
    settings.extra["architecture"] = chosen


def _trained() -> list[ArchitectureName]:
    """Return the architectures whose training script the checkout has."""
    return [name for name, entry in ARCHITECTURES.items() if parser_options.has(entry.trainer_script)]


def word_of(version: str, modelspec: str) -> str:
    """Return the name of an architecture by a LoRA's metadata.

    Args:
        version: ss_base_model_version.
        modelspec: modelspec.architecture.
    """
    if version == SMALL_BASE:  # of the demo: SD1 in small
        return DEFAULT
    spec = modelspec.partition("/")[0]
    entries = [entry for entry in ARCHITECTURES.values() if entry.base_model_version == version]
    stated = [entry.name for entry in entries if entry.modelspec == spec] or [_usual(entry.name) for entry in entries]
    return stated[0] if stated else version.partition("_")[0]


def of(settings: ImportedSettings) -> ArchitectureName:
    """Return the architecture: stated, or by module, files and options.

    A note gives the reason, also where the architecture is assumed.
    """
    if "architecture" in settings.extra:
        return _variant(settings, settings.extra["architecture"])
    inferred, why = _inferred(settings)
    settings.note(Disposition.CHANGED, "the architecture", "base.architecture", why)
    return _variant(settings, inferred)


def _inferred(settings: ImportedSettings) -> tuple[ArchitectureName, str]:
    """Return the architecture of a file that states none, and the reason."""
    module = settings.options.get("network_module")
    for name, entry in ARCHITECTURES.items():
        if module == entry.network_module != ARCHITECTURES[DEFAULT].network_module:
            usual = _usual(name)
            return usual, f"{ARCHITECTURES[usual].title}, because of its network module {module}"
    other = _MODULE.fullmatch(str(module))
    if other is not None and other[1].lower() not in _ADAPTERS:
        named(settings, other[1], f"{other[1]} (network module {module})")
    given = {name for name, value in settings.options.items() if value not in (None, False, "")}
    shared = parser_options.of(ARCHITECTURES[DEFAULT].trainer_script)
    best: tuple[int, ArchitectureName, str] = (0, DEFAULT, "")
    for name in dict.fromkeys(map(_usual, _trained())):
        entry = ARCHITECTURES[name]
        if entry.trainer_script == ARCHITECTURES[DEFAULT].trainer_script:
            continue
        files = {file.option for file in entry.files}
        own = sorted(given & ((parser_options.of(entry.trainer_script).keys() - shared.keys()) | files))
        score = len(own) - 2 * len(given & _files() - files)
        if own and score > best[0]:
            best = (score, name, f"{entry.title}, because {entry.trainer_script} takes {', '.join(own)}")
    if best[0]:
        return best[1], best[2]
    return DEFAULT, f"the file does not state it: {ARCHITECTURES[DEFAULT].title} is assumed"


def _usual(name: ArchitectureName) -> ArchitectureName:
    """Return the architecture that names a training script.

    That of flux-schnell is flux.
    """
    word = ARCHITECTURES[name].trainer_script.removesuffix("_train_network.py")
    return next((other for other in ARCHITECTURES if other == word), name)


def _files() -> set[str]:
    return {file.option for entry in ARCHITECTURES.values() for file in entry.files}


def _variant(settings: ImportedSettings, name: ArchitectureName) -> ArchitectureName:
    """Return the architecture of a script by its options and file name."""
    entry, options = ARCHITECTURES[name], settings.options
    same = [other for other, each in ARCHITECTURES.items() if each.trainer_script == entry.trainer_script]
    switched = [other for other in same if _switched(ARCHITECTURES[other], options)]
    if switched and _switches(ARCHITECTURES[name]) != _switches(ARCHITECTURES[switched[0]]):
        name = switched[0]
    file = _PLAIN.sub("", str(options.get("pretrained_model_name_or_path", "")).lower())
    sizes = [other for other in same if _switches(ARCHITECTURES[other]) == _switches(ARCHITECTURES[name])]
    words = {other: {_PLAIN.sub("", other), _PLAIN.sub("", ARCHITECTURES[other].modelspec)} for other in sizes}
    fitting = [other for other in sizes if any(word in file for word in words[other])]
    best = max(fitting, key=lambda other: max(len(word) for word in words[other] if word in file), default=name)
    if best != name:
        why = f"{ARCHITECTURES[best].title}, by the name of the checkpoint"
        settings.note(Disposition.CHANGED, "the size of the model", "base.architecture", why)
    return best


def _switches(entry: Architecture) -> dict[str, str]:
    """Return the switches of an architecture that take a value."""
    words = entry.trainer_switches
    return {word[2:]: value for word, value in itertools.pairwise(words) if not value.startswith("--")}


def _switched(entry: Architecture, options: dict[str, Any]) -> bool:
    switches = _switches(entry)
    return bool(switches) and all(options.get(name) == value for name, value in switches.items())


def base_files(settings: ImportedSettings, remaining: dict[str, Any], name: ArchitectureName) -> dict[str, Any]:
    """Return the table base.files of an architecture's further files."""
    files: dict[str, Any] = {}
    for file in ARCHITECTURES[name].files:
        value = take(settings, remaining, file.option, f"base.files.{file.option}", path)
        if value:
            files[file.option] = {"file": value}
        elif file.required:
            files[file.option] = {"file": f"{file.option}.safetensors"}
            what = f"{file.kind.title} is not named: name its file"
            settings.note(Disposition.LOST, file.option, f"base.files.{file.option}", what)
    for word in ARCHITECTURES[name].trainer_switches:
        if word.startswith("--") and remaining.pop(word[2:], None) is not None:
            settings.note(Disposition.KEPT, word[2:], "base.architecture")
    return files
