"""The description of one architecture of base models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import re
    from collections.abc import Callable, Mapping

    from orchestrator.models.layers import Model


@dataclass(frozen=True, slots=True)
class Architecture:
    """A kind of base model: its layers and blocks, and how the trainer treats it."""

    name: str
    """Value of base.architecture in a recipe."""
    title: str
    """Name in messages."""
    trainer_script: str
    """Script of sd-scripts that trains it."""
    model: Model
    """The sizes that sd-scripts builds, regardless of the checkpoint's own configuration."""
    blocks: tuple[str, ...]
    """Names of all blocks, in the order of a full list of block weights."""
    short_blocks: tuple[str, ...]
    """Names of the blocks in a short list: those with attention."""
    presets: Mapping[str, tuple[float, ...]]
    """Named lists of block weights, one for each block."""
    block_of: Callable[[str], str | None]
    """Return the block of a module name with underscores, before it is looked up in ``blocks``."""
    own_names: re.Pattern[str] | None = None
    """Matches module names that no other architecture has. None for the architecture of all other names."""
    text_prefixes: tuple[tuple[str, str], ...] = ()
    """Prefixes of text encoders in LoRA files that differ between architectures: (usual prefix, prefix here)."""
    stability_names: bool = False
    """LoRA files name U-Net layers as Stability's code does (input_blocks_4_1_…), and not as diffusers does."""
    conv_projections: bool = False
    """Transformers are entered and left by 1x1 convolutions, and not by linear layers."""
    clip_skip: bool = True
    """The layer of the text encoder to read can be chosen."""
