"""Make render prompts of the trainer's sample prompts.

kohya_ss holds their lines; LoRA_Easy and sd-scripts name a text, TOML or JSON file (``load_prompts`` of v0.10.1).
"""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any, Final

from orchestrator.importers.notes import Disposition, ImportedSettings
from orchestrator.importers.values import located

JSON = dict[str, Any]

_NAME: Final = "sample_prompts"
_LETTERS: Final = {  # option of a line: key in a TOML or JSON file, type
    "w": ("width", int),
    "h": ("height", int),
    "d": ("seed", int),
    "s": ("sample_steps", int),
    "l": ("scale", float),
    "g": ("guidance_scale", float),
    "n": ("negative_prompt", str),
    "ss": ("sample_sampler", str),
    "fs": ("flow_shift", float),
}
_SHARED: Final = {  # key there: key of the render table, the trainer's default
    "sample_steps": ("steps", 30),
    "scale": ("scale", 7.5),
    "guidance_scale": ("guidance", None),
    "sample_sampler": ("sampler", None),
    "flow_shift": ("flow_shift", None),
}
_SIDE: Final = 512


def render(settings: ImportedSettings, remaining: JSON) -> JSON:
    """Remove the sample prompts, and return the render table, or {}.

    Notes name each part that a recipe cannot hold.
    """
    value = remaining.pop(_NAME, None)
    sampler = remaining.pop("sample_sampler", None) if value else None
    if not value:
        return {}
    try:
        prompts = _typed(settings, _read(settings, str(value)))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        settings.note(Disposition.LOST, _NAME, "render.prompts", f"cannot be read: {error}")
        return {}
    if not prompts:
        settings.note(Disposition.LOST, _NAME, "render.prompts", "holds no prompt")
        return {}
    settings.note(Disposition.KEPT, _NAME, "render.prompts")
    if sampler:
        settings.note(Disposition.KEPT, "sample_sampler", "render.sampler")
    table: JSON = {"width": _side(prompts[0], "width"), "height": _side(prompts[0], "height")}
    table |= _shared(settings, prompts, str(sampler or ""))
    table["prompts"] = {f"sample-{number}": _prompt(prompt, table) for number, prompt in enumerate(prompts, start=1)}
    return table


def _read(settings: ImportedSettings, value: str) -> list[Any]:
    """Return the prompts of a text or file: lines, or tables."""
    ending = Path(value).suffix.lower() if "\n" not in value else ""
    if ending not in (".txt", ".toml", ".json"):
        return _lines(value)
    file = located(settings.folder or Path(), value)
    if file is None:
        raise FileNotFoundError(f"{value} does not exist")
    text = file.read_text("utf-8-sig")
    if ending == ".txt":
        return _lines(text)
    if ending == ".json":
        return list(json.loads(text))
    whole = tomllib.loads(text)["prompt"]
    shared = {key: item for key, item in whole.items() if key != "subset"}
    return [shared | subset for subset in whole["subset"]]


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]


def _typed(settings: ImportedSettings, prompts: list[Any]) -> list[JSON]:
    """Return tables of known keys, and note the others."""
    types = {"prompt": str, **dict(_LETTERS.values())}
    typed: list[JSON] = []
    for number, each in enumerate(prompts, start=1):
        table = _of_line(each) if isinstance(each, str) else dict(each)
        for key in sorted(table.keys() - types.keys() - {"enum", "subset"}):
            settings.note(Disposition.LOST, f"{_NAME} {number}: {key}", why="a recipe's prompt has no such part")
        typed.append({key: kind(table[key]) for key, kind in types.items() if table.get(key) not in (None, "")})
        if not typed[-1].get("prompt", "").strip():
            raise ValueError(f"prompt {number} has no words")
    return typed


def _of_line(line: str) -> JSON:
    """Return the parts of ``prompt --n negative --w 512``."""
    prompt, *options = f" {line}".split(" --")
    table: JSON = {"prompt": prompt.strip()}
    for option in options:
        match = re.match(r"([A-Za-z]+)\s+(.+)", option)
        letters = match[1].lower() if match else ""
        key, kind = _LETTERS.get(letters, ("", str))
        try:
            table[key or f"--{option.strip()}"] = kind(match[2].strip() if match else option)
        except ValueError:  # the trainer leaves it out, too
            table[f"--{option.strip()}"] = option
    return table


def _side(prompt: JSON, key: str) -> int:
    """Return a side as the trainer draws it, a multiple of 8."""
    side = int(prompt.get(key, _SIDE))
    return max(64, side - side % 8)


def _shared(settings: ImportedSettings, prompts: list[JSON], sampler: str) -> JSON:
    """Return the settings that a recipe has once for all prompts."""
    table: JSON = {}
    for key, (where, default) in _SHARED.items():
        values = [prompt.get(key, sampler or None if key == "sample_sampler" else default) for prompt in prompts]
        given = [value for value in values if value is not None]
        if not given:
            continue
        table[where] = given[0]
        if len(set(values)) > 1:
            texts = ", ".join(dict.fromkeys(str(value) for value in given))
            why = f"the prompts differ ({texts}), and a recipe has it once: {given[0]} is used"
            settings.note(Disposition.LOST, f"{_NAME}: {key}", f"render.{where}", why)
    return table


def _prompt(prompt: JSON, table: JSON) -> JSON:
    """Return one prompt of a recipe, with the sizes that differ."""
    result = {"prompt": prompt["prompt"]}
    result |= {"negative": prompt["negative_prompt"]} if "negative_prompt" in prompt else {}
    result |= {"seed": prompt["seed"]} if "seed" in prompt else {}
    sides = {key: _side(prompt, key) for key in ("width", "height")}
    return result | {key: side for key, side in sides.items() if side != table[key]}
