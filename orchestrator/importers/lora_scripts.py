"""Translate the settings of lora-scripts' interface to options of sd-scripts.

Its backend writes most of them as --config_file unchanged (mikazuki/app/api.py, create_toml_file). The others are names of the
interface (mikazuki/schema/shared.ts), which become network_args and optimizer_args.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from orchestrator.errors import Problem, RecipeError
from orchestrator.importers import architectures
from orchestrator.importers.notes import Disposition
from orchestrator.importers.values import pairs
from orchestrator.models.registry import DEFAULT
from orchestrator.recipe.trainer_names import words

if TYPE_CHECKING:
    from orchestrator.importers.notes import ImportedSettings

_TYPES: Final = {"sd": DEFAULT, "lora_basic": DEFAULT, "lora_master": DEFAULT}
_LYCORIS: Final = {
    "lycoris_algo": "algo",
    "lokr_factor": "factor",
    **{name: name for name in words("conv_dim conv_alpha dropout train_norm")},
}
_BLOCKS: Final = words("down_lr_weight mid_lr_weight up_lr_weight block_lr_zero_threshold")
_PRODIGY: Final = {"prodigy_d0": "d0", "prodigy_d_coef": "d_coef"}
# get_sample_prompts of mikazuki/app/api.py: its settings, their option in a prompt line, and the default.
_PROMPT: Final = {
    "negative_prompts": ("n", ""),
    "sample_width": ("w", 512),
    "sample_height": ("h", 512),
    "sample_cfg": ("l", 7),
    "sample_steps": ("s", 24),
    "sample_seed": ("d", 2333),
}
_INTERFACE: Final = words("gpu_ids enable_preview enable_base_weight enable_block_weights ui_custom_params")
_OWN: Final = {*_LYCORIS, *_PRODIGY, *_PROMPT, *_INTERFACE, *words("dylora_unit network_args_custom optimizer_args_custom")}


def flattened(table: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a preset of lora-scripts ([metadata] and [data]) as one table; others as they are."""
    metadata, data = table.get("metadata"), table.get("data")
    if set(table) != {"metadata", "data"} or not isinstance(metadata, dict) or not isinstance(data, dict):
        return table
    return {"model_train_type": metadata.get("train_type", ""), **data}


def translate(settings: ImportedSettings) -> None:
    """Translate the options that lora-scripts does not pass on under their names.

    Raises:
        RecipeError: they are for no training of a LoRA.
    """
    options = settings.options
    kind = options.pop("model_train_type", None)
    if not isinstance(kind, str) or not kind:
        return
    word = kind.removesuffix("-lora").replace("-", "_")
    if not kind.endswith("-lora") and word not in _TYPES:
        hint = "import reads trainings of LoRAs"
        raise RecipeError(Problem(settings.name, f"these are settings for {kind}, which is no training of a LoRA", hint))
    settings.program = "lora-scripts"
    architectures.named(settings, _TYPES.get(word, word), word)
    settings.note(Disposition.KEPT, "model_train_type", "base.architecture")
    given = {
        key: options.pop(key) for key in [*options] if key in _OWN and (key not in _PROMPT or "positive_prompts" in options)
    }
    _network_arguments(settings, given)
    _optimizer_arguments(settings, given)
    _base_weights(settings, given)
    _prompts(settings, given)
    if given.get("ui_custom_params"):
        settings.note(Disposition.LOST, "ui_custom_params", why="write its options into the file itself: they override others")
    if given.get("gpu_ids"):
        settings.note(Disposition.LOST, "gpu_ids", why="a recipe trains on one GPU, which `run` chooses")


def _network_arguments(settings: ImportedSettings, given: dict[str, Any]) -> None:
    options = settings.options
    module = options.get("network_module")
    blocks = {name: options.pop(name) for name in _BLOCKS if name in options}
    sources = dict(_LYCORIS) if module == "lycoris.kohya" else {}
    sources |= {"dylora_unit": "unit"} if module == "networks.dylora" else {}
    sources |= dict.fromkeys(_BLOCKS, "") if given.get("enable_block_weights") is True else {}
    args = options.get("network_args")
    args = dict(args) if isinstance(args, dict) else {}
    for name, value in (given | blocks).items():
        if name in sources and value not in ("", None, False):
            args[sources[name] or name] = value
            settings.origin[sources[name] or name] = name
        elif (name in _LYCORIS or name in blocks or name == "dylora_unit") and value not in ("", None, False, 0):
            settings.note(Disposition.LOST, name, why=f"it is not passed on for the network module {module}")
    custom = pairs(given.get("network_args_custom"))
    settings.origin |= {name: f"network_args_custom.{name}" for name in custom}
    if args | custom:
        options["network_args"] = args | custom


def _optimizer_arguments(settings: ImportedSettings, given: dict[str, Any]) -> None:
    options = settings.options
    args = options.get("optimizer_args")
    args = dict(args) if isinstance(args, dict) else {}
    for name, key in _PRODIGY.items():
        if given.get(name) not in ("", None) and str(options.get("optimizer_type")).lower() == "prodigy":
            args[key] = given[name]
            settings.note(Disposition.KEPT, name, f"training.optimizer_args.{key}")
    custom = pairs(given.get("optimizer_args_custom"))
    for key in custom:
        settings.note(Disposition.KEPT, f"optimizer_args_custom.{key}", f"training.optimizer_args.{key}")
    if args | custom:
        options["optimizer_args"] = args | custom


def _base_weights(settings: ImportedSettings, given: dict[str, Any]) -> None:
    """Split the files and multipliers that stand one a line."""
    for name in ("base_weights", "base_weights_multiplier"):
        value = settings.options.get(name)
        if isinstance(value, str):
            lines = [line.strip() for line in value.splitlines() if line.strip()]
            settings.options[name] = lines if name == "base_weights" else [float(line) for line in lines]
        if value and given.get("enable_base_weight") is False:
            del settings.options[name]
            settings.note(Disposition.LOST, name, why="enable_base_weight is off")


def _prompts(settings: ImportedSettings, given: dict[str, Any]) -> None:
    """Set the sample prompt, as its backend writes it, or the file of prompts."""
    options = settings.options
    prompt, file = options.pop("positive_prompts", None), options.pop("prompt_file", None)
    if options.pop("randomly_choice_prompt", False):
        settings.note(Disposition.LOST, "randomly_choice_prompt", why="a recipe's prompts are fixed")
    if isinstance(file, str) and file.strip():
        options["sample_prompts"] = file.strip()
        settings.origin["sample_prompts"] = "prompt_file"
    elif isinstance(prompt, str) and prompt.strip():
        parts = {letter: given.get(name, default) for name, (letter, default) in _PROMPT.items()}
        line = " ".join(prompt.split())
        options["sample_prompts"] = line + "".join(f" --{letter} {value}" for letter, value in parts.items() if value != "")
        for name in ("positive_prompts", *(name for name in _PROMPT if name in given)):
            settings.note(Disposition.KEPT, name, "render.prompts")
