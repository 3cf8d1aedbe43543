"""Layers of diffusers that hold the layers of an original transformer.

Keys of a table are paths of the original, with ``#`` for the number of a block. A value is the path in diffusers, or a
:class:`Counterpart` where diffusers divides the layer or orders its outputs differently.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_DOTTED = re.compile(r"^([A-Za-z_.]+?)\.(\d{1,4})\.")
_PLAIN = re.compile(r"^([A-Za-z_]+?)_(\d{1,4})_")


@dataclass(frozen=True, slots=True)
class Counterpart:
    """The layers that hold one layer's outputs, in order."""

    paths: tuple[str, ...]
    shares: tuple[int, ...] = ()
    """Relative numbers of outputs. Empty: equal."""
    swapped: bool = False
    """The two halves of the outputs have changed places."""

    def rows(self, outputs: int) -> tuple[tuple[int, int], ...] | None:
        """Return (first, last + 1) of each part's outputs, or None.

        None: ``outputs`` is not a multiple of the shares.

        >>> Counterpart(("q", "k", "mlp"), (1, 1, 4)).rows(12)
        ((0, 2), (2, 4), (4, 12))
        """
        shares = self.shares or (1,) * len(self.paths)
        unit, rest = divmod(outputs, sum(shares))
        if rest:
            return None
        ends = [unit * sum(shares[: count + 1]) for count in range(len(shares))]
        return tuple(zip((0, *ends), ends, strict=False))

    def at(self, number: str) -> Counterpart:
        """Return the counterpart in block ``number``."""
        return Counterpart(tuple(path.replace("#", number) for path in self.paths), self.shares, self.swapped)


Table = Mapping[str, str | Counterpart]


def qkv(root: str, *names: str, shares: tuple[int, ...] = ()) -> Counterpart:
    """Return a joined layer below ``root``, by default q, k and v.

    >>> qkv("a").paths
    ('a.to_q', 'a.to_k', 'a.to_v')
    """
    return Counterpart(tuple(f"{root}.{name}" for name in names or ("to_q", "to_k", "to_v")), shares)


def paths(value: str | Counterpart) -> tuple[str, ...]:
    """Return the paths of a table's value."""
    return (value,) if isinstance(value, str) else value.paths


def counterpart(table: Table, path: str) -> Counterpart | None:
    """Return the layers of diffusers that hold a layer of the original.

    >>> counterpart({"blocks.#.mlp": "ff.#"}, "blocks.3.mlp").paths
    ('ff.3',)
    """
    match = _DOTTED.match(path)
    key = path if path in table or match is None else f"{match[1]}.#.{path[match.end() :]}"
    value = table.get(key)
    if value is None:
        return None
    whole = Counterpart((value,)) if isinstance(value, str) else value
    return whole if match is None else whole.at(match[2])


LayerPart = tuple[str, int | None]
"""A layer of the original, and the number of its part. None: the whole layer."""


def backwards(table: Table) -> dict[str, LayerPart]:
    """Return the original layer and part of each layer of diffusers.

    Names have underscores, as in files of trainers.
    """
    back: dict[str, LayerPart] = {}
    for path, value in table.items():
        for part, name in enumerate(parts := paths(value)):
            back[name.replace(".", "_")] = path, part if parts[1:] else None
    return back


def original(back: Mapping[str, LayerPart], name: str) -> LayerPart | None:
    """Return the original layer and part of a layer of diffusers.

    >>> original(backwards({"blocks.#.qkv": qkv("t.#")}), "t_3_to_k")
    ('blocks_3_qkv', 1)
    """
    match = _PLAIN.match(name)
    key = name if name in back or match is None else f"{match[1]}_#_{name[match.end() :]}"
    if key not in back:
        return None
    path, part = back[key]
    return (path.replace("#", match[2]) if match else path).replace(".", "_"), part
