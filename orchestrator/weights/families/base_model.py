"""Read the weights of a base model's layers, for the families whose delta depends on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.errors import Problem
from orchestrator.models import compvis, names
from orchestrator.weights.io import dtypes
from orchestrator.weights.io.safetensors_io import Body, read_header

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from orchestrator.models.blocks import Architecture
    from orchestrator.weights.families.adapter import AdapterModule
    from orchestrator.weights.io.dtypes import Floats

_PREFIXES = (
    ("model.diffusion_model.", "lora_unet_"),
    ("cond_stage_model.transformer.", "lora_te_"),
    ("conditioner.embedders.0.transformer.", "lora_te1_"),
    ("unet.", "lora_unet_"),
    ("text_encoder.", "lora_te_"),
    ("text_model.", "lora_te_text_model_"),
)


class BaseModel:
    """A checkpoint in Stability's or diffusers' naming, or a U-Net or text encoder of diffusers, as one safetensors file."""

    def __init__(self, path: Path, architecture: Architecture) -> None:
        """Read the header of ``path``.

        Raises:
            RecipeError: the header is unsound.
        """
        self._path = path
        header = read_header(path)
        self._body = Body(header)
        self._keys = {_kohya(key, architecture): key for key in header.entries if key.endswith(".weight")}

    def missing(self, modules: Iterable[AdapterModule]) -> Iterator[Problem]:
        """Yield a problem for every module whose layer the checkpoint lacks."""
        for module in modules:
            if module.kohya not in self._keys:
                yield Problem(str(self._path), f"has no layer for {module.kohya}", "is it the base of this LoRA?")

    def shape(self, module: AdapterModule) -> tuple[int, ...]:
        """Return the shape of the layer's weight."""
        return self._body.header.entries[self._keys[module.kohya]].shape

    def weight(self, module: AdapterModule) -> Floats:
        """Return the layer's weight as float32, (out, in) or (out, in, k, k)."""
        return dtypes.load(self._body, self._keys[module.kohya])

    def close(self) -> None:
        """Close the file."""
        self._body.__exit__(None, None, None)


def _kohya(key: str, architecture: Architecture) -> str:
    name = key.removesuffix(".weight")
    for prefix, root in _PREFIXES:
        if name.startswith(prefix):
            tail = name.removeprefix(prefix).replace(".", "_")
            if root == "lora_unet_" and architecture == "sd1":
                tail = compvis.to_diffusers(tail)
            return names.kohya(root + tail, architecture)
    return names.kohya("lora_unet_" + name.replace(".", "_"), architecture)
