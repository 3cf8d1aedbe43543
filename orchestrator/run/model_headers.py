"""Check by its header that a model file is the one that its key needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.errors import OrchestratorError, Problem
from orchestrator.models import file_kinds, registry
from orchestrator.models.registry import ARCHITECTURES
from orchestrator.system.files import read_json
from orchestrator.weights.io import pickle_scan, shards

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from orchestrator.models.architecture import Architecture
    from orchestrator.models.file_kinds import FileKind
    from orchestrator.models.registry import ArchitectureName
    from orchestrator.recipe import Recipe
    from orchestrator.weights.io.safetensors_io import Header

_LORA = ("lora_unet_", "lora_te", "lycoris_")
_SCALES = (".scale_weight", ".scale_input", ".weight_scale", ".input_scale")
"""Tensors beside the weights in scaled fp8 files of ComfyUI."""
_BITSANDBYTES = (".absmax", ".quant_map", ".nested_absmax")
_VELOCITY = ("v", "v_prediction", "v-prediction")
_OPTION = "v_parameterization"


def problems(where: str, key: str, path: Path, recipe: Recipe) -> list[Problem]:
    """Return the problem of a sound file that is not the one its key needs.

    Args:
        where: for the message: key and name.
        key: base.checkpoint, base.vae, base.files.NAME or network.weights.
        path: file or folder.
        recipe: the recipe that names it.
    """
    entry = ARCHITECTURES[recipe.base.architecture]
    files = {f"base.files.{file.option}": file for file in entry.files}
    header = shards.header(path) if path.suffix.lower() == ".safetensors" and path.is_file() else None
    if header is not None and (what := _quantized(header, recipe)):
        return [Problem(where, what, "name the file in bf16, fp16 or plain fp8 (e4m3)")]
    if key == "base.checkpoint":
        return _checkpoint(where, path, recipe, header)
    if key == "base.vae" and entry.vae is not None:
        return _of_kind(where, path, entry, entry.vae, header, folder=entry.takes_folder)
    if key in files:
        return _of_kind(where, path, entry, files[key].kind, header, folder=files[key].folder)
    return []


def _quantized(header: Header, recipe: Recipe) -> str:
    """Return the quantization of a file that sd-scripts does not read, or ""."""
    if "scaled_fp8" in header.entries or any(name.endswith(_SCALES) for name in header.entries):
        return "holds fp8 numbers with scales of their own, which sd-scripts does not apply"
    if any(name.endswith(_BITSANDBYTES) or ".quant_state." in name for name in header.entries):
        return "is quantized by bitsandbytes, which sd-scripts does not read"
    if recipe.training.fp8_base and any(entry.dtype == "F8_E5M2" for entry in header.entries.values()):
        return "is in fp8 e5m2; with training.fp8_base sd-scripts takes e4m3 only"  # flux_train_network.py 116
    return ""


def _checkpoint(where: str, path: Path, recipe: Recipe, header: Header | None) -> list[Problem]:
    """Return the problem of a checkpoint: folder, architecture, prediction."""
    entry = ARCHITECTURES[recipe.base.architecture]
    if path.is_dir() and not entry.takes_folder and recipe.engine == "sd-scripts":
        return [_folder(where, entry)]
    kind = architecture(path)
    if kind not in {None, entry.name}:
        other = next((other for other in ARCHITECTURES.values() if other.name == kind), None)
        what = other.checkpoint_title if other else _title(header) or ("a LoRA" if kind == "lora" else "something else")
        hint = f'set base.architecture = "{kind}"' if other else f"name a whole {entry.checkpoint_title} checkpoint"
        hint = _slot(entry, header, "base.checkpoint") or hint
        return [Problem(where, f"is {what}, but base.architecture is {entry.checkpoint_title}", hint)]
    predicted = prediction(header) if header is not None and _OPTION not in entry.ignored_options else ""
    trained = "v" if recipe.training.options.get(_OPTION) else "epsilon"
    if predicted in {"", trained}:
        return []
    if predicted == "v":
        hint = f"set training.options.{_OPTION} = true, or extend _base/{entry.name}-vpred"
        return [Problem(where, "predicts v by its header, but the recipe trains epsilon", hint)]
    hint = f"set training.options.{_OPTION} = false, or name the v-prediction checkpoint"
    return [Problem(where, f"predicts epsilon by its header, but training.options.{_OPTION} is set", hint)]


def _of_kind(
    where: str, path: Path, entry: Architecture, kind: FileKind, header: Header | None, *, folder: bool
) -> list[Problem]:
    """Return the problem of a file that is not of a kind."""
    if path.is_dir():
        if not folder:
            return [_folder(where, entry)]
        own = _model_type(path)
        if kind.model_type and own not in {"", kind.model_type}:
            return [Problem(where, f"is a folder of {own}, not {kind.title}", f"name the folder or file of {kind.title}")]
        return []
    if header is None or kind.matches(_shapes(header)):
        return []
    title = _title(header)
    what = f"is {title}, not {kind.title}" if title else f"is not {kind.title}"
    return [Problem(where, what, _slot(entry, header, where.partition(" = ")[0]) or f"name the file of {kind.title}")]


def _folder(where: str, entry: Architecture) -> Problem:
    what = f"is a folder; the trainer of {entry.title} takes one .safetensors file"
    return Problem(where, what, "name the file in ComfyUI's or the author's layout, not the one of Diffusers")


def _slot(entry: Architecture, header: Header | None, key: str) -> str:
    """Return a hint to the key that such a file belongs to, or ""."""
    shapes = _shapes(header) if header is not None else {}
    slots = {f"base.files.{file.option}": file.kind for file in entry.files} | ({"base.vae": entry.vae} if entry.vae else {})
    own = next((slot for slot, kind in slots.items() if shapes and kind.matches(shapes) and slot != key), "")
    return f"it belongs to {own}; name another file here" if own else ""


def _title(header: Header | None) -> str:
    """Return the title of a file by its tensors, or ""."""
    if header is None:
        return ""
    if any(name.startswith(_LORA) for name in header.entries):
        return "a LoRA"
    if (of_checkpoint := registry.of_tensors(header.entries)) is not None:
        return f"a checkpoint of {ARCHITECTURES[of_checkpoint].checkpoint_title}"
    kind = file_kinds.of(_shapes(header))
    if kind is not None:
        return kind.title
    return "a VAE" if any(name.startswith(("encoder.", "first_stage_model.")) for name in header.entries) else ""


def _shapes(header: Header) -> Mapping[str, tuple[int, ...]]:
    return {name: entry.shape for name, entry in header.entries.items()}


def _model_type(folder: Path) -> str:
    """Return model_type of a folder's config.json, or ""."""
    return str(read_json(folder / "config.json").get("model_type", ""))


def prediction(header: Header) -> str:
    """Return "v" or "epsilon" if the header of a checkpoint tells it, else ""."""
    if "v_pred" in header.entries:
        return "v"
    stated = header.metadata.get("modelspec.prediction_type", "").lower()
    return "v" if stated in _VELOCITY else "epsilon" if stated == "epsilon" else ""


def architecture(path: Path) -> str | None:
    """Return the architecture of a checkpoint, or None if unknown.

    Instead of an architecture: lora, vae, or "" for another kind.
    """
    if path.is_dir():
        width = read_json(path / "unet" / "config.json").get("cross_attention_dim")
        widths = {entry.model.unet.get("cross_attention_dim"): name for name, entry in ARCHITECTURES.items()}
        return widths.get(width) if width is not None else None
    if path.suffix.lower() in pickle_scan.ENDINGS:
        return _pickled(path)
    if path.suffix.lower() != ".safetensors":
        return None
    header = shards.header(path)
    title = _title(header)
    if title == "a LoRA":
        return "lora"
    if (kind := registry.of_tensors(header.entries)) is not None:
        return kind
    return "vae" if "VAE" in title else ""


def _pickled(path: Path) -> str | None:
    """Return the architecture by the texts of a pickle, or None.

    The pickle is not run.
    """
    try:
        names = pickle_scan.texts(path)
    except ValueError:
        return None
    if any(name.startswith(_LORA) for name in names):
        return "lora"
    return registry.of_tensors(names)


def whole_checkpoint(path: Path) -> tuple[ArchitectureName | None, str, str]:
    """Return architecture, prediction (v, epsilon or "") and title of a base.

    The architecture is None for any other file.
    """
    try:
        kind = architecture(path)
        header = shards.header(path) if path.suffix.lower() == ".safetensors" and path.is_file() else None
    except OrchestratorError as error:
        return None, "", error.problems[0].what
    known_kind = next((name for name in ARCHITECTURES if name == kind), None)
    return known_kind, prediction(header) if header is not None else "", "" if known_kind else _title(header)
