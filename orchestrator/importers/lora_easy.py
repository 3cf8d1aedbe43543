"""Read TOML files of LoRA_Easy_Training_Scripts.

[X_args.args] are options, [X_args.dataset_args] and [[subsets]] the dataset.
"""

from __future__ import annotations

from typing import Any, Final

from orchestrator.importers import architectures, sd_scripts_toml
from orchestrator.importers.notes import Disposition, ImportedSettings
from orchestrator.importers.values import pairs

# Settings of its interface, and what each of them is there.
_OWN: Final = {
    "tag_occurrence": "it writes a list of the tags beside the LoRA",
    "tag_file_location": "it writes a list of the tags beside the LoRA",
    "name": "it names a subset in the interface",
}
# utils/validation.py of its backend: the module by the algo among the network_args; without one it is networks.lora.
_MODULES: Final = {"fa": "networks.lora_fa", "unit": "networks.dylora"}

# Sections that its forks write for one architecture alone.
_SECTIONS: Final = {"flux": "FLUX.1", "anima": "Anima", "sd3": "SD3", "lumina": "Lumina 2", "hunyuan_image": "HunyuanImage"}


def is_lora_easy(table: dict[str, Any]) -> bool:
    """Return True if a table has the sections of LoRA_Easy."""
    return any(
        name.endswith("_args") and isinstance(part, dict) and {"args", "dataset_args"} & set(part)
        for name, part in table.items()
    )


def read(name: str, table: dict[str, Any]) -> ImportedSettings:
    """Read the table of one file."""
    settings = ImportedSettings(name, "LoRA_Easy_Training_Scripts")
    settings.leaves = sd_scripts_toml.argument_leaves(table)
    dataset: dict[str, Any] = {}
    for inside in table.values():
        if not isinstance(inside, dict):
            continue
        args = inside.get("args", {})
        settings.options |= args if isinstance(args, dict) else {}
        shared = inside.get("dataset_args", {})
        dataset |= shared if isinstance(shared, dict) else {}
    options = settings.options
    for path in settings.leaves:
        key = path.rpartition(".")[2]
        if key in _OWN:
            options.pop(key, None)
            settings.note(Disposition.LOST, path, why=_OWN[key])
        elif ".lr_scheduler_args." in path:
            settings.note(Disposition.KEPT, path, "training.options.lr_scheduler_args")
    for key in ("network_args", "optimizer_args"):
        if key in options:
            options[key] = pairs(options[key])
    if isinstance(options.get("lr_scheduler_args"), dict):
        options["lr_scheduler_args"] = [f"{key}={value}" for key, value in options["lr_scheduler_args"].items()]
    _architecture(settings, table)
    network_args = options.get("network_args")
    if isinstance(network_args, dict) and "algo" in network_args and "network_module" not in options:
        algo = str(network_args["algo"]).lower()
        options["network_module"] = _MODULES.get(algo, "lycoris.kohya")
        settings.origin["network_module"] = next(path for path in settings.leaves if path.endswith("network_args.algo"))
    ratio = options.pop("warmup_ratio", None)
    if isinstance(ratio, int | float) and ratio:
        options["lr_warmup_steps"] = float(ratio)
        settings.origin["lr_warmup_steps"] = "warmup_ratio"
    sd_scripts_toml.add_datasets(settings, {"datasets": [{**dataset, "subsets": table.get("subsets", [])}]})
    _locate(settings)
    return settings


def _architecture(settings: ImportedSettings, table: dict[str, Any]) -> None:
    """Set the architecture that switches and sections state."""
    options = settings.options
    sdxl = options.pop("sdxl", None)
    settings.extra["architecture"] = "sd1"
    if sdxl is True:
        architectures.named(settings, "sdxl", "SDXL")
    if sdxl is not None:
        settings.note(Disposition.KEPT, "sdxl", "base.architecture")
    for word, title in _SECTIONS.items():
        section = table.get(f"{word}_args")
        if isinstance(section, dict) and section.get("args"):
            architectures.named(settings, word, title)
    if options.pop("v2", False):
        architectures.named(settings, "sd2", "Stable Diffusion 2")
        settings.note(Disposition.KEPT, "v2", "base.architecture")


def _locate(settings: ImportedSettings) -> None:
    """Locate the values of [X_args.dataset_args] and [[subsets]]."""
    for group in settings.datasets:
        for subset in group["subsets"]:
            subset["leaf"] = subset["leaf"].replace("datasets[0].", "")
