"""Read sd-scripts' dataset TOML (DreamBooth form) as typed datasets.

A value is looked up in the subset, then its dataset, then ``[general]``, then the defaults. Unknown keys, wrong types and
features that this engine does not have are reported all at once.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.dataset.buckets import BucketRules
from orchestrator.errors import Problem, RecipeError, near_miss


@dataclass(frozen=True, slots=True)
class SubsetSection:
    """One folder of images and its settings."""

    image_dir: Path
    num_repeats: int
    class_tokens: str | None
    caption_extension: str
    is_reg: bool
    flip_aug: bool
    color_aug: bool
    shuffle_caption: bool
    keep_tokens: int
    caption_separator: str
    caption_dropout_rate: float
    caption_dropout_every_n_epochs: int
    caption_tag_dropout_rate: float
    caption_prefix: str | None
    caption_suffix: str | None


@dataclass(frozen=True, slots=True)
class DatasetSection:
    """Subsets that share a resolution and a batch size.

    ``validation``: they are validated, and not trained.
    """

    subsets: tuple[SubsetSection, ...]
    batch_size: int
    rules: BucketRules
    validation: bool = False


_SUBSET: dict[str, tuple[type, Any]] = {
    "num_repeats": (int, 1),
    "class_tokens": (str, None),
    "caption_extension": (str, ".caption"),
    "flip_aug": (bool, False),
    "color_aug": (bool, False),
    "shuffle_caption": (bool, False),
    "keep_tokens": (int, 0),
    "caption_separator": (str, ","),
    "caption_dropout_rate": (float, 0.0),
    "caption_dropout_every_n_epochs": (int, 0),
    "caption_tag_dropout_rate": (float, 0.0),
    "caption_prefix": (str, None),
    "caption_suffix": (str, None),
}
_OWN = {"image_dir": (str, None), "is_reg": (bool, False)}
_DATASET: dict[str, tuple[type, Any]] = {
    "batch_size": (int, 1),
    "enable_bucket": (bool, False),
    "bucket_no_upscale": (bool, False),
    "min_bucket_reso": (int, 256),
    "max_bucket_reso": (int, 1024),
    "bucket_reso_steps": (int, 64),
    "validation_split": (float, 0.0),
}
# Keys of sd-scripts that this engine does not have. A value that switches them off is harmless.
_UNSUPPORTED = frozenset(
    (
        "face_crop_aug_range",
        "random_crop",
        "alpha_mask",
        "conditioning_data_dir",
        "metadata_file",
        "enable_wildcard",
        "token_warmup_min",
        "token_warmup_step",
        "keep_tokens_separator",
        "secondary_separator",
        "custom_attributes",
        "resize_interpolation",
        "cache_info",
        "network_multiplier",
        "validation_seed",
    )
)


def read(path: Path, caption_extension: str) -> tuple[DatasetSection, ...]:
    """Read and validate a dataset TOML.

    Raises:
        RecipeError: with every problem found (unknown key, wrong type, unsupported feature, bad bounds).
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RecipeError(Problem(str(path), f"cannot be read: {error}")) from error
    return _ConfigReader(path, caption_extension).datasets(document)


class _ConfigReader:
    """Converts tables to datasets and collects problems on the way."""

    def __init__(self, path: Path, caption_extension: str) -> None:
        self.path = path
        self.caption_extension = caption_extension
        self.problems: list[Problem] = []

    def datasets(self, document: dict[str, Any]) -> tuple[DatasetSection, ...]:
        """Return all datasets of the document.

        Raises:
            RecipeError: with all problems.
        """
        for key in document.keys() - {"general", "datasets"}:
            self._add_problem(key, f"unknown table{near_miss(key, ('general', 'datasets'))}")
        general = document.get("general", {})
        self._check("general", general, _SUBSET | _DATASET)
        datasets = tuple(self._dataset(i, table, general) for i, table in enumerate(document.get("datasets", [])))
        if not datasets and not self.problems:
            self._add_problem("datasets", "is missing. No data found")
        if self.problems:
            raise RecipeError(self.problems)
        return tuple(dataset for dataset in datasets if dataset is not None)

    def _dataset(self, number: int, table: dict[str, Any], general: dict[str, Any]) -> DatasetSection | None:
        where = f"datasets[{number}]"
        self._check(where, table, _SUBSET | _DATASET, also=("subsets",))
        values = {key: table.get(key, general.get(key, default)) for key, (_, default) in _DATASET.items()}
        size = self._resolution(where, table.get("resolution", general.get("resolution")))
        subsets = [
            self._subset(f"{where}.subsets[{i}]", subset, table, general) for i, subset in enumerate(table.get("subsets", []))
        ]
        if size is None or self.problems:
            return None
        rules = BucketRules(
            size,
            values["enable_bucket"],
            values["bucket_no_upscale"],
            values["min_bucket_reso"],
            values["max_bucket_reso"],
            values["bucket_reso_steps"],
        )
        self._check_rules(where, rules)
        if values["batch_size"] < 1:
            self._add_problem(f"{where}.batch_size", f"must be at least 1, is {values['batch_size']}")
        if values["validation_split"] not in (0, 1):
            hint = "0 trains all of a dataset, 1 none of it; sd-scripts would split by file"
            self._add_problem(f"{where}.validation_split", f"is {values['validation_split']}; this engine takes 0 or 1", hint)
        validation = values["validation_split"] == 1
        return DatasetSection(tuple(subset for subset in subsets if subset), values["batch_size"], rules, validation)

    def _check_rules(self, where: str, rules: BucketRules) -> None:
        """Add the bucket settings that stop sd-scripts.

        These are bounds that do not enclose the resolution, and steps below 1.
        """
        if rules.bucket_reso_steps < 1:
            self._add_problem(where, f"bucket_reso_steps must be at least 1, is {rules.bucket_reso_steps}")
        elif rules.enable_bucket and not rules.bucket_no_upscale:
            low, high = rules.bounds()
            if min(rules.resolution) < low:
                self._add_problem(where, f"min_bucket_reso {low} must be equal or less than resolution {rules.resolution}")
            if max(rules.resolution) > high:
                self._add_problem(where, f"max_bucket_reso {high} must be equal or greater than resolution {rules.resolution}")

    def _subset(
        self, where: str, table: dict[str, Any], dataset: dict[str, Any], general: dict[str, Any]
    ) -> SubsetSection | None:
        self._check(where, table, _SUBSET | _OWN)
        if not isinstance(table.get("image_dir"), str):
            self._add_problem(f"{where}.image_dir", "missing; a subset is a folder of images")
            return None
        values = {key: table.get(key, dataset.get(key, general.get(key, default))) for key, (_, default) in _SUBSET.items()}
        if not any("caption_extension" in level for level in (table, dataset, general)):
            values["caption_extension"] = self.caption_extension
        return SubsetSection(image_dir=Path(table["image_dir"]), is_reg=bool(table.get("is_reg", False)), **values)

    def _resolution(self, where: str, value: Any) -> tuple[int, int] | None:
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return (value, value)
        if isinstance(value, list) and len(value) == 2 and all(type(side) is int and side > 0 for side in value):
            return (value[0], value[1])
        self._add_problem(f"{where}.resolution", f"must be a number or [width, height] in pixels, is {value!r}")
        return None

    def _check(self, where: str, table: Any, known: dict[str, tuple[type, Any]], also: tuple[str, ...] = ()) -> None:
        if not isinstance(table, dict):
            self._add_problem(where, "must be a table")
            return
        for key, value in table.items():
            if key in also or (key == "resolution" and "batch_size" in known):
                continue
            if key in _UNSUPPORTED:
                if value:
                    self._add_problem(
                        f"{where}.{key}", "not supported by the embedded engine", "remove it, or train with sd-scripts"
                    )
            elif key not in known:
                self._add_problem(f"{where}.{key}", f"unknown key{near_miss(key, known)}")
            elif not _fits(value, known[key][0]):
                self._add_problem(f"{where}.{key}", f"must be of type {known[key][0].__name__}, is {value!r}")

    def _add_problem(self, where: str, what: str, hint: str = "") -> None:
        self.problems.append(Problem(f"{self.path}: {where}", what, hint))


def _fits(value: Any, kind: type) -> bool:
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is kind
