"""Orders of block weights in the lists of other tools.

Sources: sd-webui-lora-block-weight (BLOCKID12 to BLOCKIDFLUX, to26, get_flux_blocks) and ComfyUI-Inspire-Pack
(inspire/lora_block_weight.py, load_lbw), both read in 2026.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Order:
    """The order of the values in a list of another tool."""

    names: tuple[str, ...]
    """Block or part of each value."""
    by_position: bool = False
    """The Inspire pack counts the blocks of the file, repeats the last value after the end of the list, and takes the first
    one for all modules outside of blocks. Otherwise blocks that the list leaves out have weight 0."""


def unet(blocks: Sequence[str], short: Sequence[str]) -> dict[str, Order]:
    """Return the orders for a U-Net with these blocks in full and short lists.

    In the Inspire pack, the three parts of the middle block have values of their own, and conv_in has none.
    """
    counted = [name for name in blocks if name != "IN00"]
    middle = counted.index("MID")
    counted[middle : middle + 1] = ["MID0", "MID1", "MID2"]
    orders = {f"lbw-{len(names)}": Order(tuple(names)) for names in (blocks, short)}
    orders[f"inspire-{len(short)}"] = Order(tuple("MID1" if name == "MID" else name for name in short), by_position=True)
    for count in (len(blocks), len(counted)):
        orders[f"inspire-{count}"] = Order(tuple(counted[:count]), by_position=True)
    return orders


def flux(blocks: Sequence[str], short: Sequence[str]) -> dict[str, Order]:
    """Return the orders for FLUX.1 and models with its blocks."""
    return {
        f"lbw-{len(blocks) + 3}": Order(("TE1", "TE3", "IN", *blocks[1:], "OUT")),
        f"inspire-{len(blocks)}": Order(tuple(blocks), by_position=True),
        f"inspire-{len(short)}": Order(tuple(short), by_position=True),
    }
