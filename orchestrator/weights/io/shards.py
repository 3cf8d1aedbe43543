"""Shards: one model in several safetensors files, and their index.

Their names are NAME-00001-of-00003.safetensors.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING

from orchestrator.weights.io.safetensors_io import read_header

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.weights.io.safetensors_io import Header

INDEX = ".safetensors.index.json"
_SHARD = re.compile(r"(.*?)(\d{5})-of-(\d{5})\.safetensors")


def of(path: Path) -> tuple[Path, ...]:
    """Return all shards of a model by the name of one, missing ones too.

    Any other file is returned alone.
    """
    match = _SHARD.fullmatch(path.name)
    if match is None:
        return (path,)
    return tuple(path.with_name(f"{match[1]}{number + 1:05}-of-{match[3]}.safetensors") for number in range(int(match[3])))


def indexed(path: Path) -> tuple[Path, ...]:
    """Return the shards that an index names, missing ones too.

    Another file has none.

    Raises:
        OSError: the file cannot be read.
    """
    try:
        table = json.loads(path.read_text("utf-8"))
        names = {name for name in table["weight_map"].values() if isinstance(name, str) and "/" not in name}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return ()
    return tuple(path.with_name(name) for name in sorted(names))


def header(path: Path) -> Header:
    """Return the header of a model, with the tensors of all its shards.

    Raises:
        RecipeError: a shard is missing or not a sound safetensors file.
    """
    first, *others = (read_header(shard) for shard in of(path))
    return replace(first, entries={**first.entries, **{key: one for other in others for key, one in other.entries.items()}})
