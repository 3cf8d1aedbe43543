"""Read TOML files of LoRA_Easy_Training_Scripts.

[X_args.args] are options, [X_args.dataset_args] and [[subsets]] the dataset. What of it reaches sd-scripts, and how:
utils/validation.py of its backend, and main_ui_files/MainUI.py (train_helper).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from orchestrator.engines.sdscripts import parser_options
from orchestrator.errors import Problem, RecipeError
from orchestrator.importers import architectures, epochs, sd_scripts_toml
from orchestrator.importers.notes import Disposition, ImportedSettings
from orchestrator.importers.values import pairs, whole_or
from orchestrator.models.registry import ARCHITECTURES

if TYPE_CHECKING:
    from collections.abc import Iterator

# Settings of its interface, and what each of them is there.
_OWN: Final = {
    "tag_occurrence": "it writes a list of the tags beside the LoRA",
    "tag_file_location": "it writes a list of the tags beside the LoRA",
    "save_toml": "it writes a copy of these settings",
    "save_toml_location": "it writes a copy of these settings",
    "name": "it names a subset in the interface",
}
_NAME: Final = "${replace}"
_LIBRARY: Final = "LoraEasyCustomOptimizer."
_SCHEDULE: Final = "cosine_with_restarts"

# Sections that it and its forks write for one architecture alone.
_SECTIONS: Final = {"flux": "FLUX.1", "anima": "Anima", "sd3": "SD3", "lumina": "Lumina 2", "hunyuan_image": "HunyuanImage"}


def is_lora_easy(table: dict[str, Any]) -> bool:
    """Return True if a table has the sections of LoRA_Easy."""
    return any(
        name.endswith("_args") and isinstance(part, dict) and {"args", "dataset_args"} & set(part)
        for name, part in table.items()
    )


def read(name: str, table: dict[str, Any]) -> ImportedSettings:
    """Read the table of one file.

    Raises:
        RecipeError: it trains no LoRA, or an architecture that recipes do not train.
    """
    settings = ImportedSettings(name, "LoRA_Easy_Training_Scripts")
    settings.leaves = sd_scripts_toml.argument_leaves(table)
    _train_mode(settings, table)
    for section, inside in _parts(table, "args"):
        for key, value in inside.items():
            if not _is_passed(value):
                continue
            if key in settings.origin:
                settings.overridden[settings.origin[key]] = f"{section} has it, too"
            settings.options[key] = value
            if (path := f"{section}.args.{key}") in settings.leaves:
                settings.origin[key] = path
    _architecture(settings, table)
    _not_passed(settings, table)
    _interface(settings)
    _network(settings)
    dataset = {key: value for _, inside in _parts(table, "dataset_args") for key, value in inside.items() if value}
    subsets = [
        {key: value for key, value in subset.items() if value}
        for subset in table.get("subsets", [])
        if isinstance(subset, dict)
    ]
    sd_scripts_toml.add_datasets(settings, {"datasets": [{**dataset, "subsets": subsets}]})
    for group in settings.datasets:
        for subset in group["subsets"]:
            subset["leaf"] = subset["leaf"].replace("datasets[0].", "")
    _schedule(settings)
    return settings


def _parts(table: dict[str, Any], kind: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (section, values) of the sections that have a part."""
    for section, inside in table.items():
        part = inside.get(kind) if isinstance(inside, dict) else None
        if isinstance(part, dict):
            yield section, part


def _is_passed(value: Any) -> bool:
    """Return True if the backend passes a value on: not 0, false or nothing."""
    return bool(value) and str(value).lower() != "false"


def _train_mode(settings: ImportedSettings, table: dict[str, Any]) -> None:
    section = table.get("train_mode")
    mode = section.get("train_mode", "lora") if isinstance(section, dict) else "lora"
    if mode != "lora":
        hint = "import reads trainings of LoRAs"
        raise RecipeError(Problem(settings.name, f"these are settings for {mode}, which is no training of a LoRA", hint))
    settings.note(Disposition.KEPT, "train_mode", why="a LoRA is trained")


def _architecture(settings: ImportedSettings, table: dict[str, Any]) -> None:
    """Set the architecture that switches and sections state."""
    options = settings.options
    sdxl = options.pop("sdxl", None)
    settings.extra["architecture"] = "sd1"
    if sdxl is not None:
        architectures.named(settings, "sdxl", "SDXL")
        settings.note(Disposition.KEPT, "sdxl", "base.architecture")
    for word, title in _SECTIONS.items():
        section = table.get(f"{word}_args")
        if isinstance(section, dict) and section.get("args"):
            architectures.named(settings, word, title)
    if options.pop("v2", False):
        architectures.named(settings, "sd2", "Stable Diffusion 2")
        settings.note(Disposition.KEPT, "v2", "base.architecture")


def _not_passed(settings: ImportedSettings, table: dict[str, Any]) -> None:
    """Note zeros that the backend leaves out, against the trainer's default."""
    options = parser_options.of(ARCHITECTURES[settings.extra["architecture"]].trainer_script)
    for section, inside in _parts(table, "args"):
        for key, value in inside.items():
            option = options.get(key)
            if option is None or _is_passed(value) or isinstance(value, bool | str | list | dict):
                continue
            if option.default or key == "seed":
                default = "a random one" if key == "seed" else f"its default, {option.default}"
                why = f"the backend does not pass 0 on: sd-scripts took {default}"
                settings.note(Disposition.CHANGED, f"{section}.args.{key}", f"training.{key}" if key == "seed" else "", why)


def _interface(settings: ImportedSettings) -> None:
    """Resolve names of the interface, and the placeholder of names."""
    options = settings.options
    for path in settings.leaves:
        key = path.rpartition(".")[2]
        if key in _OWN:
            options.pop(key, None)
            settings.note(Disposition.LOST, path, why=_OWN[key])
    name = str(options.pop("easy_name", ""))
    for key in ("output_name", "log_prefix"):
        if isinstance(options.get(key), str):
            options[key] = options[key].replace(_NAME, name)
    if name:
        settings.note(Disposition.KEPT, "easy_name", why=f"it stands for {_NAME} in names")


def _network(settings: ImportedSettings) -> None:
    """Set the network module, and the arguments as tables or lists."""
    options = settings.options
    if options.pop("fa", None):
        _module(settings, "networks.lora_fa", "fa")
    for key in ("network_args", "optimizer_args"):
        if key in options:
            options[key] = pairs(options[key])
    for key in options.get("network_args", {}):
        if key in ("algo", "unit"):
            path = next(path for path in settings.leaves if path.endswith(f"network_args.{key}"))
            _module(settings, "lycoris.kohya" if key == "algo" else "networks.dylora", path)
    schedule = options.get("lr_scheduler_args")
    if isinstance(schedule, dict):
        options["lr_scheduler_args"] = [f"{key}={value}" for key, value in schedule.items()]


def _module(settings: ImportedSettings, module: str, leaf: str) -> None:
    settings.options["network_module"] = module
    settings.origin["network_module"] = settings.origin.get(leaf, leaf)


def _schedule(settings: ImportedSettings) -> None:
    """Set the schedule and its warm-up, which the backend counts in steps.

    Its own schedules (with restarts) are not of sd-scripts: the nearest one stands in.
    """
    options = settings.options
    kind = options.get("lr_scheduler_type")
    if isinstance(kind, str) and kind.startswith(_LIBRARY):
        del options["lr_scheduler_type"]
        if options.pop("lr_scheduler", None) is not None and "lr_scheduler" in settings.origin:
            settings.overridden[settings.origin["lr_scheduler"]] = "lr_scheduler_type overrides it there"
        options["lr_scheduler"] = _SCHEDULE
        settings.origin["lr_scheduler"] = settings.origin.get("lr_scheduler_type", "lr_scheduler_type")
        options.setdefault("lr_scheduler_num_cycles", 1)
        why = f"it is of LoRA_Easy's own library; {_SCHEDULE} is the nearest of sd-scripts"
        settings.note(Disposition.CHANGED, "lr_scheduler_type", "training.lr_scheduler", why)
        options.pop("lr_scheduler_args", None)
        for path in settings.leaves:
            if ".lr_scheduler_args." in path:
                settings.note(Disposition.LOST, path, why=f"{_SCHEDULE} has no such argument")
    else:
        for path in settings.leaves:
            if ".lr_scheduler_args." in path:
                settings.note(Disposition.KEPT, path, "training.options.lr_scheduler_args")
    ratio = options.pop("warmup_ratio", None)
    if not isinstance(ratio, int | float) or isinstance(ratio, bool):
        return
    settings.origin["lr_warmup_steps"] = settings.origin.get("warmup_ratio", "warmup_ratio")
    steps = whole_or(options.get("max_train_steps"), 0)
    if not steps:
        updates = epochs.updates(settings, share=False)  # calculate_steps does not balance regularization images
        steps = (updates or 0) * whole_or(options.get("max_train_epochs"), 0)
    if steps:
        warmup = round(steps * ratio)
        options["lr_warmup_steps"] = warmup
        settings.note(Disposition.CHANGED, "warmup_ratio", "training.lr_warmup_steps", f"{ratio:.3g} of {steps} steps")
    else:
        options["lr_warmup_steps"] = float(ratio)
