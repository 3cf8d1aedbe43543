"""Name files that are not LoRA files of a supported form, in one sentence."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from orchestrator.errors import Problem
from orchestrator.models import names, registry
from orchestrator.weights.io import peft

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orchestrator.weights.io.safetensors_io import Header

_INVERSION = re.compile(r"emb_params|string_to_param(?:\.\*)?|clip_[lgh]|t5\w*|<[^<>]+>|qwen\w*")
_BUNDLED = re.compile(r"bundle_emb\.([^.]+)\.")
# Forms of LoRA that are not read: a pattern of their keys, and what they are.
_FORMS = (
    (r"(?:unet|text_encoder):\d+:(?:up|down)$", "a LoRA of cloneofsimo's lora_diffusion, which numbers its layers",
     "open it with lora_diffusion, or with its convert script to a LoRA of named layers"),
    (r"(?:.+\.)?(?:q_layer|p_layer|lambda_layer)(?:\.|$)", "a T-LoRA of LyCORIS 4, whose rank depends on the timestep",
     "no form of LoRA holds it; use it with LyCORIS 4"),
    (r"lllite_", "a ControlNet-LLLite, which changes inputs and not weights", "it works with its own extension alone"),
    (r".*prompt_embeddings(?:\.|$)", "an adapter of PEFT that is not a LoRA", peft.MERGE),
    (r"(?:.+\.)?(oft|boft)_[Rs](?:\.|$)", "a rotation of PEFT ({}), stored unlike those of LyCORIS", peft.MERGE),
    (r"base_model\.(?:.+\.)?(?!lora_|hada_|lokr_)([a-z0-9]+)_\w+$", "an adapter of PEFT by the method {}", peft.MERGE),
    (r".+\.reshape_weight$", "a LoRA of ComfyUI that also enlarges the layers of its base (reshape_weight)",
     "open it with ComfyUI, which enlarges them"),
    (r".+\.set_weight$", "a file of ComfyUI with whole weights beside differences (set_weight)", "open it with ComfyUI"),
    (r".+\.oft_diag$", "a rotation of an early LyCORIS (oft_diag), stored as the rotation itself",
     "open it with A1111, which reads it"),
    (r".+\.oft_blocks\.\d+$", "a rotation of sd-scripts for FLUX, with blocks for each part of a joined layer",
     "merge it into its base with sd-scripts' networks/oft_flux.py"),
    (r".+\.processor\.(?:proj|qkv)_lora\d*\.(?:down|up)\.weight$", "a LoRA of XLabs for FLUX, by attention processors",
     "open it with ComfyUI's or XLabs' loader"),
    (r"lora_controlnet$", "a Control-LoRA, a ControlNet of low rank", "use it as a ControlNet"),
    (r".+\.(?:lora|proj)_(?:down|up)$", "a LoRA of Nunchaku, whose factors are packed for its own kernels",
     "name the LoRA that it was made of"),
    (r".+\.lora_E$|.+\.ranknum$", "an AdaLoRA of PEFT, which has a third factor", peft.MERGE),
    (r".+\.lora_[AB]$", "a LoRA of loralib, whose factors have no .weight and whose alpha is in its program",
     "save it as safetensors with PEFT, or merge it into its base there"),
    (r".+\.lora_embedding_[AB]$", "a LoRA of PEFT on an embedding, which is not a layer of a LoRA file", peft.MERGE),
    (r"base_model\.model\.(?!.*\.(?:lora|hada|lokr)_).+\.(?:weight|bias)$",
     "an adapter of PEFT with whole layers or biases beside it (modules_to_save, bias)", peft.MERGE),
)  # fmt: skip
_FILES = (
    (r"(?:model\.diffusion_model|first_stage_model|cond_stage_model|conditioner\.embedders)\.", "a checkpoint"),
    (r"(?:control_model|controlnet_\w+)\.", "a ControlNet"),
    (r"(?:image_proj|ip_adapter)\.", "an IP-Adapter"),
    (r".+_custom_diffusion\.", "a file of Custom Diffusion, with whole weights of attention"),
    (r"(?:adapter\.)?body\.\d+\.", "a T2I-Adapter"),
    (r"(?:encoder|decoder)\.(?:conv_in|down|up|mid)", "a VAE"),
    (r"(?:text_model|encoder\.block\.\d+|model\.layers\.\d+)\.", "a text encoder"),
    (r"(?:down_blocks|up_blocks|transformer_blocks|double_blocks|single_blocks|joint_blocks|blocks|net)\.", "a base model"),
    (r"linear\.\d+\.(?:weight|bias)$|(?:\d+\.)+linear", "a hypernetwork"),
    (r"(?:params\w*\.)?(?:model\.\d+\.(?:weight|bias|sub)|conv_first\.|RRDB_trunk\.)", "an upscaler"),
)


def bundled(key: str) -> str | None:
    """Return the name of the embedding that a tensor beside a LoRA belongs to.

    >>> bundled("bundle_emb.word.string_to_param.*"), bundled("emb_params")
    ('word', 'emb_params')
    """
    match = _BUNDLED.match(key)
    return match[1] if match else key if _INVERSION.fullmatch(key) else None


def describe(header: Header) -> Problem | None:
    """Return the problem of a file in another form. None: it may be a LoRA."""
    keys, where = list(header.entries), str(header.path)
    for pattern, what, hint in _FORMS:
        if match := next((match for key in keys if (match := re.match(pattern, key))), None):
            return Problem(where, f"is {what.format(*(name.upper() for name in match.groups()))}", hint)
    if not keys or any(_of_lora(key) for key in keys):
        return None
    if all(bundled(key) for key in keys):
        hint = "use it from the folder of embeddings; a LoRA file changes layers"
        return Problem(where, "is a textual inversion (an embedding of a word), not a LoRA", hint)
    kind = _kind(keys)
    if kind is None and all(key.endswith((".weight", ".bias")) for key in keys):
        kind = f"a file of whole tensors ({', '.join(keys[:2])}{' …' if keys[2:] else ''})"
    if kind is None:
        return None
    hint = "name a LoRA file here; convert takes a base model as --base"
    return Problem(where, f"is {kind}, not a LoRA: no tensor of it is a difference", hint)


def _of_lora(key: str) -> bool:
    split = names.split(key)
    return split is not None and split[1] != "weight"


def _kind(keys: Iterable[str]) -> str | None:
    keys = list(keys)
    what = next((what for pattern, what in _FILES if any(re.match(pattern, key) for key in keys)), None)
    if what in {"a checkpoint", "a base model"} and (architecture := registry.of_tensors(keys)) is not None:
        return f"{what} of {registry.ARCHITECTURES[architecture].title}"
    return what
