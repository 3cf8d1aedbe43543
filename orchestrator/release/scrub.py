"""Remove folder names and local paths from metadata and manifests."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

# Local paths of any system: /x, ~/x, C:\x, \\server, file://.
_LOCAL = re.compile(r"^(?:/|~[/\\]|[A-Za-z]:[/\\]|\\\\|file://)")
_INSIDE = re.compile(
    r"(?<![\w:/.])(?:/(?:home|root|Users|mnt|tmp|var|opt|media|srv|data|work|workspace|content)/|[A-Za-z]:\\)[^\s\"',;]*"
)
# Tables with names of folders as keys.
_FOLDERS = ("ss_tag_frequency", "ss_dataset_dirs", "ss_reg_dataset_dirs")


def base_name(path: str) -> str:
    """Return the last part of a local path, or another text unchanged."""
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1] if _LOCAL.match(path) else path


def paths(value: Any) -> Any:
    """Return JSON with the last part in place of every absolute path."""
    if isinstance(value, dict):
        return {key: paths(item) for key, item in value.items()}
    if isinstance(value, list):
        return [paths(item) for item in value]
    if isinstance(value, str):
        return base_name(value) if _LOCAL.match(value) else _INSIDE.sub(lambda match: base_name(match[0]), value)
    return value


def metadata(entries: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Return metadata without folder names and paths, and the removals.

    Folders become ``folder 1``, ``folder 2`` … everywhere alike, so counts, repeats and tag frequencies stay readable.
    """
    names = _FolderAliases()
    kept: dict[str, str] = {}
    removed: list[str] = []
    for key in sorted(entries):
        text = entries[key]
        value = _json(text)
        if key in _FOLDERS and isinstance(value, dict):
            kept[key] = json.dumps({names.alias(name): item for name, item in value.items()}, ensure_ascii=False)
            if value:
                removed.append(f"{key}: {len(value)} folder name{'s' if len(value) > 1 else ''}")
            continue
        if key == "ss_datasets" and isinstance(value, list):
            clean, count = _datasets(value, names)
            kept[key] = json.dumps(clean, ensure_ascii=False)
            if count:
                removed.append(f"{key}: {count} folder names")
            continue
        if key == "ss_network_args" and isinstance(value, dict):
            preset = value.get("preset")
            if isinstance(preset, str) and re.search(r"[/\\]", preset):
                value = {**value, "preset": re.split(r"[/\\]", preset)[-1]}
                removed.append(f"{key}: the preset's folder")
            kept[key] = json.dumps(paths(value), ensure_ascii=False)
            continue
        clean_value = paths(value) if isinstance(value, dict | list) else paths(text)
        kept[key] = clean_value if isinstance(clean_value, str) else json.dumps(clean_value, ensure_ascii=False)
        if isinstance(value, dict | list) and clean_value == value:
            kept[key] = text
        elif kept[key] != text:
            removed.append(f"{key}: a local path")
    return kept, removed


class _FolderAliases:
    """Aliases of folder names."""

    def __init__(self) -> None:
        self._aliases: dict[str, str] = {}

    def alias(self, name: str) -> str:
        return self._aliases.setdefault(name, f"folder {len(self._aliases) + 1}")


def _datasets(value: list[Any], names: _FolderAliases) -> tuple[list[Any], int]:
    """Return ss_datasets with numbered folders, and their number."""
    count = 0
    result: list[Any] = []
    for dataset in value:
        if not isinstance(dataset, dict):
            continue
        clean = dict(dataset)
        for key in ("tag_frequency", "dataset_dirs", "reg_dataset_dirs"):
            if isinstance(clean.get(key), dict):
                count += len(clean[key])
                clean[key] = {names.alias(name): item for name, item in clean[key].items()}
        subsets = clean.get("subsets")
        if isinstance(subsets, list):
            clean["subsets"] = []
            for subset in subsets:
                entry = dict(subset) if isinstance(subset, dict) else {}
                for key in ("image_dir", "metadata_file", "conditioning_data_dir"):
                    if isinstance(entry.get(key), str):
                        entry[key] = names.alias(re.split(r"[/\\]", entry[key].rstrip("/\\"))[-1])
                        count += 1
                clean["subsets"].append(entry)
        result.append(paths(clean))
    return result, count


def _json(text: str) -> Any:
    """Return the JSON of a text, or None for other or too deep texts."""
    if not text.startswith(("{", "[")):
        return None
    try:
        value = json.loads(text)
        paths(value)
    except (ValueError, RecursionError):
        return None
    return value
