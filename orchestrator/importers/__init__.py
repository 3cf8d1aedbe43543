"""``import``: settings that were written for another program become a recipe, with a list of what was kept, changed or lost.

Every reader turns its file into the same thing: options as train_network.py names them, and datasets as sd-scripts'
dataset configuration has them. ``translate`` makes a recipe of that. What a file holds is data and untrusted.
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from orchestrator.errors import Problem, RecipeError

MAX_BYTES = 4 << 20  # settings; of a LoRA only the header is read


def words(text: str) -> tuple[str, ...]:
    """Return the names in a text."""
    return tuple(text.split())


class Fate(StrEnum):
    """What became of a setting."""

    KEPT = "kept"
    CHANGED = "changed"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Note:
    """One setting: its name there, what became of it, where it stands now, and why."""

    fate: Fate
    name: str
    where: str = ""
    why: str = ""

    def __str__(self) -> str:
        arrow = f" -> {self.where}" if self.where else ""
        return f"{self.fate:8} {self.name}{arrow}" + (f"   ({self.why})" if self.why else "")


@dataclass(slots=True)
class Found:
    """What a reader has read of one training."""

    name: str
    kind: str
    options: dict[str, Any] = field(default_factory=dict)
    """By the names of train_network.py; network_args and optimizer_args as tables."""
    datasets: list[dict[str, Any]] = field(default_factory=list)
    """As [[datasets]] with their subsets; what [general] says is in the subsets already."""
    extra: dict[str, Any] = field(default_factory=dict)
    """What only a recipe knows: tables to lay over it (base.sha256, resize)."""
    notes: list[Note] = field(default_factory=list)

    def say(self, fate: Fate, name: str, where: str = "", why: str = "") -> None:
        """Note what became of a setting."""
        self.notes.append(Note(fate, name, where, why))


def read(source: str) -> list[Found]:
    """Read settings: a file (kohya_ss JSON, LoRA_Easy or sd-scripts TOML, a .bat with LoRA lines, a LoRA), or such a line.

    Raises:
        RecipeError: no such file, or nothing in it that is known.
    """
    from orchestrator.importers import charframework, kohya_gui, lora_easy, lora_metadata, sd_scripts_toml  # noqa: PLC0415

    path = Path(source)
    if charframework.is_line(source):
        return charframework.lines(source, source)
    if not path.is_file():
        known = "a kohya_ss JSON, a LoRA_Easy or sd-scripts TOML, a .bat with `call LoRA` lines, or a .safetensors"
        raise RecipeError(Problem(source, "no such file", f"import reads {known}"))
    ending = path.suffix.lower()
    if ending == ".safetensors":
        return [lora_metadata.read(path)]
    text = _text(path)
    if ending == ".json":
        return [kohya_gui.read(path.stem, _table(path, text))]
    if ending == ".toml":
        table = _table(path, text)
        return [lora_easy.read(path.stem, table) if lora_easy.looks(table) else sd_scripts_toml.read(path, table)]
    found = charframework.lines(text, path.name)
    if not found:
        raise RecipeError(Problem(source, "holds no `call LoRA …` line", "other settings end in .json, .toml or .safetensors"))
    return found


def _text(path: Path) -> str:
    data = path.read_bytes()[: MAX_BYTES + 1]
    if len(data) > MAX_BYTES:
        raise RecipeError(Problem(str(path), f"is larger than {MAX_BYTES >> 20} MiB: no settings are"))
    for encoding in ("utf-8-sig", "cp932"):  # batch files of Japanese Windows
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise RecipeError(Problem(str(path), "is neither UTF-8 nor Shift-JIS text", "save it as UTF-8"))


def _table(path: Path, text: str) -> dict[str, Any]:
    try:
        table = json.loads(text) if path.suffix.lower() == ".json" else tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise RecipeError(Problem(str(path), f"cannot be read: {error}", "mend it, or export it again")) from error
    if not isinstance(table, dict):
        raise RecipeError(Problem(str(path), "holds no settings", "a table of names and values was expected"))
    from orchestrator.engines.sdscripts import parser_options as options  # noqa: PLC0415 - not for a LoRA

    known = {"LoRA_type", "datasets", *options.of("train_network.py"), *options.of("sdxl_train_network.py")}
    if known.isdisjoint(_names(table)):
        programs = "kohya_ss" if path.suffix.lower() == ".json" else "sd-scripts or LoRA_Easy_Training_Scripts"
        hint = "python -m orchestrator import --help  says what is read; python -m orchestrator new  starts from pictures"
        raise RecipeError(Problem(str(path), f"holds no setting of {programs}", hint))
    return table


def _names(table: dict[str, Any], depth: int = 3) -> set[str]:
    """Return the keys of a table and of those inside it: LoRA_Easy's options stand two below the top."""
    inner = [value for value in table.values() if isinstance(value, dict)] if depth > 1 else []
    return set(table).union(*(_names(value, depth - 1) for value in inner))
