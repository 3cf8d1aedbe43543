"""Conventions for the names of modules in LoRA files, and names in each.

Sources: diffusers' loaders/lora_conversion_utils.py, ComfyUI's comfy/lora.py, OneTrainer's modules/util/convert_lora_util.py,
ai-toolkit's toolkit/network_mixins.py, musubi-tuner's convert_lora.py, sd-scripts' networks/convert_*.py.
"""

from __future__ import annotations

import functools
from collections import Counter
from typing import TYPE_CHECKING, Literal

from orchestrator.models import counterparts, names, unet_names
from orchestrator.models.counterparts import Counterpart
from orchestrator.models.layers import layers
from orchestrator.models.registry import ARCHITECTURES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from orchestrator.models.layers import TextEncoder
    from orchestrator.models.registry import ArchitectureName

Target = Literal["kohya", "diffusers", "peft", "comfy", "original"]
"""Conventions that convert writes."""
Convention = Target | Literal["onetrainer", "lycoris"]

TITLES: dict[Convention, str] = {
    "kohya": "kohya: sd-scripts and musubi-tuner, lora_unet_…",
    "diffusers": "diffusers and ai-toolkit, transformer.… or unet.…",
    "peft": "PEFT, base_model.model.…",
    "comfy": "ComfyUI, diffusion_model.… and text_encoders.…",
    "original": "the original model's, diffusion_model.…",
    "onetrainer": "OneTrainer, lora_transformer_…",
    "lycoris": "LyCORIS' wrapper, lycoris_…",
}
_UNET = "lora_unet_"
_CONDITIONER = "text_conditioner."
_ROOTS: tuple[tuple[str, Convention], ...] = (
    ("lora_transformer_", "onetrainer"),
    ("lora_", "kohya"),
    ("lycoris_", "lycoris"),
    ("base_model.model.", "peft"),
    ("text_encoders.", "comfy"),
    ("diffusion_model.", "original"),
    ("model.diffusion_model.", "original"),
)


def convention(module: str, architecture: ArchitectureName | None) -> Convention:
    """Return the convention of a module's name in a file.

    >>> convention("transformer.transformer_blocks.0.attn.to_q", "flux"), convention("diffusion_model.img_in", "flux")
    ('diffusers', 'original')
    """
    by_root = next((own for root, own in _ROOTS if module.startswith(root)), None)
    if by_root == "original":
        comfy = () if architecture is None else ARCHITECTURES[architecture].comfy
        return "comfy" if any(module.endswith(theirs) for _, theirs in comfy) else by_root
    if by_root is None and architecture is not None and ARCHITECTURES[architecture].diffusers:
        layer = names.kohya(module, architecture)
        return "original" if _dotted(architecture).get(layer) == module else "diffusers"
    return by_root or "diffusers"


def conventions(modules: Iterable[str], architecture: ArchitectureName | None) -> dict[Convention, int]:
    """Return the number of modules by convention, the most frequent first.

    ComfyUI and the original have equal names for the most networks. Names of text encoders decide for ComfyUI.
    """
    counts = Counter(convention(module, architecture) for module in modules)
    if "comfy" in counts:
        counts["comfy"] += counts.pop("original", 0)
    return dict(counts.most_common())


def of_network(layer: str, architecture: ArchitectureName) -> bool:
    """Return whether a layer by kohya belongs to the network that denoises.

    A text encoder, and the text conditioner of Anima, are models of their own in diffusers.
    """
    made = written(layer, architecture, "diffusers")
    return layer.startswith(_UNET) and not (made and made.paths[0].startswith(_CONDITIONER))


def written(layer: str, architecture: ArchitectureName, target: Target) -> Counterpart | None:
    """Return the names of a layer in a convention. None: it has none.

    Args:
        layer: by kohya, as :func:`orchestrator.models.names.kohya` returns it.
        architecture: of the file.
        target: the convention.

    >>> written("lora_unet_single_blocks_0_linear2", "flux", "diffusers").paths
    ('transformer.single_transformer_blocks.0.proj_out',)
    """
    if target == "kohya":
        return Counterpart((layer,))
    if not layer.startswith(_UNET):
        return _text(layer, architecture, target)
    entry = ARCHITECTURES[architecture]
    if names.translates(architecture):
        body, levels = layer.removeprefix(_UNET), len(entry.model.unet["block_out_channels"])
        original = target in ("comfy", "original")
        path = unet_names.dotted(unet_names.from_diffusers(body, levels=levels) if original else unet_names.to_diffusers(body))
        root = {"diffusers": "unet.", "peft": "base_model.model."}.get(target, "diffusion_model.")
        return Counterpart((root + path,))
    path_ = _dotted(architecture).get(layer)
    if path_ is None:
        return None
    if target == "original":
        return Counterpart((f"diffusion_model.{path_}",))
    if target == "comfy":
        for own, theirs in entry.comfy:
            path_ = path_.removesuffix(own) + theirs if path_.endswith(own) else path_
        return Counterpart((f"diffusion_model.{path_}",))
    counterpart = counterparts.counterpart(entry.diffusers, path_)
    if counterpart is None or (target == "peft" and counterpart.paths[0].startswith(_CONDITIONER)):
        return None  # another model than the transformer, which an adapter of PEFT belongs to
    root = "base_model.model." if target == "peft" else "transformer."
    paths = (path if path.startswith(_CONDITIONER) else root + path for path in counterpart.paths)
    return Counterpart(tuple(paths), counterpart.shares, counterpart.swapped)


def _text(layer: str, architecture: ArchitectureName, target: Target) -> Counterpart | None:
    for encoder in ARCHITECTURES[architecture].model.text_encoders:
        if not layer.startswith(f"{encoder.prefix}_"):
            continue
        path = _dotted(architecture).get(layer) or unet_names.dotted(layer.removeprefix(f"{encoder.prefix}_"))
        root = _text_root(encoder, target)
        return None if root is None else Counterpart((f"{root}.{path}",))
    return None


def _text_root(encoder: TextEncoder, target: Target) -> str | None:
    """Return the root of an encoder's layers. None: the convention has none.

    A file of PEFT belongs to one model. The original's names are those of its network.
    """
    return {"diffusers": encoder.component, "comfy": f"text_encoders.{encoder.comfy}"}.get(target)


@functools.cache
def _dotted(architecture: ArchitectureName) -> Mapping[str, str]:
    """Return the path in the original of each layer by kohya."""
    entry = ARCHITECTURES[architecture]
    outside = {_UNET + path.replace(".", "_"): path for path in entry.diffusers if "#" not in path}
    return outside | {layer.name: layer.dotted for layer in layers(entry.model)}
