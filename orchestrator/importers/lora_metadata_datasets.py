"""Read the datasets of a training from the metadata of a LoRA."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from orchestrator.importers.notes import Disposition
from orchestrator.recipe.trainer_names import words

if TYPE_CHECKING:
    from orchestrator.importers.notes import ImportedSettings

SHARED: Final = words(
    "enable_bucket bucket_no_upscale min_bucket_reso max_bucket_reso color_aug flip_aug random_crop"
    " shuffle_caption keep_tokens"
)
"""Fields of the file that hold for all folders of --train_data_dir."""
_RESULTS: Final = words("is_dreambooth num_train_images num_reg_images tag_frequency bucket_info img_count resized_images")


def read(settings: ImportedSettings, fields: dict[str, Any], record: str) -> None:
    """Set the datasets by ss_datasets, or by the folders of an older file.

    Args:
        settings: to add the datasets and notes to.
        fields: the values of ss_*, by names without the prefix.
        record: the note on results of the run.
    """
    datasets = fields.get("datasets")
    if not isinstance(datasets, list):
        settings.datasets = [_from_folders(fields)]
        return
    settings.datasets = [
        _from_json(dataset, f"ss_datasets[{index}]") for index, dataset in enumerate(datasets) if isinstance(dataset, dict)
    ]
    for leaf in settings.leaves:
        if leaf.endswith("].batch_size_per_device"):
            settings.note(Disposition.KEPT, leaf, "dataset.batch_size.default")
        elif leaf.startswith("ss_datasets[") and leaf.rpartition(".")[2] in _RESULTS:
            settings.note(Disposition.KEPT, leaf, why=record)


def leaves(above: str, dataset: Any) -> dict[str, Any]:
    """Return the values of one dataset and its subsets by their paths."""
    if not isinstance(dataset, dict):
        return {above: dataset}
    result = {f"{above}.{key}": value for key, value in dataset.items() if key != "subsets"}
    subsets = dataset.get("subsets")
    for index, subset in enumerate(subsets if isinstance(subsets, list) else []):
        path = f"{above}.subsets[{index}]"
        result |= {f"{path}.{key}": value for key, value in subset.items()} if isinstance(subset, dict) else {path: subset}
    return result


def _from_json(table: dict[str, Any], leaf: str) -> dict[str, Any]:
    keys = ("resolution", "enable_bucket", "bucket_no_upscale", "bucket_reso_steps", "min_bucket_reso", "max_bucket_reso")
    dataset = {key: table[key] for key in keys if table.get(key) is not None}
    dataset |= {"batch_size": table.get("batch_size_per_device", 1), "leaf": leaf}
    subset_keys = (
        "num_repeats",
        "color_aug",
        "flip_aug",
        "random_crop",
        "shuffle_caption",
        "keep_tokens",
        "class_tokens",
        "is_reg",
        "img_count",
    )
    subsets = table.get("subsets")
    dataset["subsets"] = [
        {
            **{key: subset[key] for key in subset_keys if subset.get(key) is not None},
            "image_dir": f"data/{subset.get('image_dir') or 'pictures'}",
            "leaf": f"{leaf}.subsets[{index}].image_dir",
        }
        for index, subset in enumerate(subsets if isinstance(subsets, list) else [])
        if isinstance(subset, dict)
    ]
    return dataset


def _from_folders(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the dataset of a file that was trained with --train_data_dir."""
    sides = [int(side) for side in re.findall(r"\d+", str(fields.get("resolution") or "512"))]
    dataset: dict[str, Any] = {key: fields[key] for key in SHARED if fields.get(key) is not None}
    shared = {key: dataset.pop(key) for key in list(dataset) if "bucket" not in key}
    dataset |= {
        "resolution": sides[:2] if len(sides) > 1 else sides * 2,
        "batch_size": fields.get("batch_size_per_device") or 1,
    }
    folders = fields.get("dataset_dirs")
    dataset["subsets"] = [
        {
            **shared,
            "image_dir": f"data/{name}",
            "num_repeats": folder.get("n_repeats", 1),
            "img_count": folder.get("img_count", 0),
        }
        for name, folder in (folders.items() if isinstance(folders, dict) else ())
        if isinstance(folder, dict)
    ]
    return dataset
