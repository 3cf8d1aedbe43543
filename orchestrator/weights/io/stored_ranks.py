"""Store ranks and alphas of layers whose names have no room for them.

Names of diffusers and PEFT have neither alphas nor joined layers. A table in the metadata makes the way back exact. It is used
for a layer only where the tensors agree with it, so that a file that was changed meanwhile keeps its delta.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeGuard

from orchestrator.weights.io.safetensors_io import WIDTHS

if TYPE_CHECKING:
    from collections.abc import Mapping

KEY = "orchestrator_layers"
"""Header key: a JSON table by layer. The entry "" holds for all layers that are not named."""
_LARGEST = 1 << 16
_FLOAT = 3e38  # of float32; an integer of JSON may be beyond every float


@dataclass(frozen=True, slots=True)
class StoredRank:
    """Rank, alpha and types of a layer's LoRA before its conversion."""

    rank: int
    alpha: float | None
    """None: there was no tensor, which means the rank."""
    dtype: str
    alpha_dtype: str = ""
    alpha_shape: tuple[int, ...] = ()
    blocks: tuple[int, ...] = ()
    """Ranks of the blocks of a diagonal. Empty: the parts have one down, or there are none."""

    @property
    def scale(self) -> float:
        """Alpha / rank, or 1 without alpha or with alpha 0."""
        return self.alpha / self.rank if self.alpha else 1.0


def encode(layers: Mapping[str, StoredRank]) -> str:
    """Return the metadata entry of the layers."""
    if not layers:
        return "{}"
    usual = Counter(layers.values()).most_common(1)[0][0]
    table = {name: _plain(entry) for name, entry in sorted(layers.items()) if entry != usual}
    return json.dumps({"": _plain(usual), **table}, separators=(",", ":"))


def decode(metadata: Mapping[str, str]) -> dict[str, StoredRank]:
    """Return the layers in the metadata by name, without unsound entries."""
    try:
        table = json.loads(metadata.get(KEY, "{}"))
    except (ValueError, RecursionError):
        return {}
    if not isinstance(table, dict):
        return {}
    entries = {name: _entry(value) for name, value in table.items()}
    return {name: entry for name, entry in entries.items() if entry}


def _plain(entry: StoredRank) -> dict[str, Any]:
    return {key: value for key, value in asdict(entry).items() if value not in ("", ()) or key == "alpha"}


def _entry(value: Any) -> StoredRank | None:
    if not isinstance(value, dict):
        return None
    rank, alpha, dtype = value.get("rank"), value.get("alpha"), str(value.get("dtype"))
    blocks, shape, own = value.get("blocks", []), value.get("alpha_shape", []), value.get("alpha_dtype", "F32")
    if not _is_rank(rank):
        return None
    sound = (
        (alpha is None or (isinstance(alpha, int | float) and not isinstance(alpha, bool) and -_FLOAT <= alpha <= _FLOAT))
        and dtype in WIDTHS
        and dtype.startswith(("F", "BF"))
        and isinstance(own, str)
        and own in WIDTHS
        and isinstance(blocks, list)
        and all(type(block) is int and (block == 0 or _is_rank(block)) for block in blocks)
        and isinstance(shape, list)
        and [(type(side), side) for side in shape] in ([], [(int, 1)])  # true equals 1
    )
    if not sound or (blocks and sum(blocks) != rank):
        return None
    return StoredRank(rank, alpha, dtype, own, tuple(shape), tuple(blocks))


def _is_rank(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= _LARGEST
