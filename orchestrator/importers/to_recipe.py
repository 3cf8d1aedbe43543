"""Make a recipe of imported settings."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from orchestrator.engines.sdscripts import parser_options
from orchestrator.importers import architectures, leaves, recipe_check, sample_prompts, shorten
from orchestrator.importers.network import network
from orchestrator.importers.notes import Disposition, ImportedSettings, Note
from orchestrator.importers.sd_scripts_datasets import dataset
from orchestrator.importers.training import training
from orchestrator.importers.values import literal, path, plain_number, take, whole, whole_or
from orchestrator.models.registry import ARCHITECTURES, DEFAULT
from orchestrator.recipe import toml, trainer_names

_RELEASE: Final = ("_base/release-2023-03", "_base/face", "_algorithms/lora3x3")
_TOKENS: Final = 75  # what sd-scripts calls None


@dataclass(frozen=True, slots=True)
class ImportedRecipe:
    """Name and tables of a recipe, and a note on every setting."""

    name: str
    table: dict[str, Any]
    notes: tuple[Note, ...]

    def of(self, disposition: Disposition) -> list[Note]:
        """Return the notes of one disposition."""
        return [note for note in self.notes if note.disposition is disposition]

    def text(self) -> str:
        """Return the recipe as TOML, without the values that defaults set.

        Comments list the changed and lost settings.
        """
        comments = [f"# {note}" for note in leaves.grouped(self.notes) if note.disposition is not Disposition.KEPT]
        return "\n".join([*comments, "", *toml.lines(shorten.shortened(self.name, self.table))]).lstrip("\n") + "\n"

    def write(self, file: Path) -> None:
        """Write the recipe, with the path of the schema for editors."""
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(toml.with_schema(self.text(), file), "utf-8")

    def as_json(self) -> dict[str, Any]:
        """Return name, tables and notes as JSON."""
        return {"name": self.name, "recipe": self.table, "settings": [note.as_json() for note in self.notes]}


def recipe(settings: ImportedSettings, name: str = "") -> ImportedRecipe:
    """Make a recipe of imported settings."""
    remaining = {key: value for key, value in settings.options.items() if value not in (None, "", [])}
    output_name = str(remaining.pop("output_name", ""))
    settings.name = output_name or settings.name
    name = re.sub(r"[^A-Za-z0-9._+-]+", "-", name or settings.name).strip("-._+") or "imported"
    if output_name:
        same = name == output_name
        settings.note(
            Disposition.KEPT if same else Disposition.CHANGED, "output_name", "the recipe's name", "" if same else name
        )
    table: dict[str, Any] = {"summary": f"{name}, imported from {settings.program}"}
    if settings.extra.get("release"):
        data = dataset(settings, name, (None, None))
        table = {"extends": list(_RELEASE), "unset": ["dataset", "release"]} | table | {"subject": data.subject}
        release = {"collection": data.subject, "collection_title": f"LoRAs of {data.subject}", "title": data.subject}
        settings.extra["architecture"] = DEFAULT  # of the release
        options = _other_options(settings, remaining)
        table |= {"dataset": data.table} | ({"training": {"options": options}} if options else {}) | {"release": release}
    else:
        table |= _whole(settings, remaining, name)
    recipe_check.make_acceptable(settings, name, table)
    return ImportedRecipe(name, table, leaves.account(settings, table))


def _whole(settings: ImportedSettings, remaining: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the tables of a recipe that extends nothing."""
    base = _base(settings, remaining)
    network_table, family = network(settings, remaining)
    data = dataset(settings, name, _steps_of(remaining))
    training_table = training(settings, remaining, data.steps, data.epochs)
    render = sample_prompts.render(settings, remaining)
    training_table["options"] = _other_options(settings, remaining)
    algorithm = {"lora": "lora3x3" if "conv_dim" in network_table else "lora1x1"}.get(family, family)
    table: dict[str, Any] = {
        "subject": data.subject,
        "algorithm": algorithm,
        "engine": "sd-scripts",
        "base": base | settings.extra.get("base", {}),
        "dataset": data.table,
        "network": network_table,
        "training": {key: value for key, value in training_table.items() if value not in ({}, None)},
    }
    table |= {"render": render} if render else {}
    return table | {key: settings.extra[key] for key in ("block_weights", "merge", "resize") if settings.extra.get(key)}


def _base(settings: ImportedSettings, remaining: dict[str, Any]) -> dict[str, Any]:
    architecture = settings.extra["architecture"] = architectures.of(settings)
    checkpoint = take(settings, remaining, "pretrained_model_name_or_path", "base.checkpoint", path)
    if not checkpoint:
        checkpoint = "Defmix-v2.0.safetensors"
        settings.note(Disposition.LOST, "the base model", "base.checkpoint", "none is named; the release's is used")
    elif not checkpoint.endswith((".safetensors", ".ckpt", ".sft", ".pt")) and not Path(checkpoint).is_dir():
        settings.note(
            Disposition.CHANGED,
            "pretrained_model_name_or_path",
            "base.checkpoint",
            f"{checkpoint!r} is not a file name: name a file in your model folders",
        )
    base: dict[str, Any] = {"architecture": architecture, "checkpoint": checkpoint}
    vae = take(settings, remaining, "vae", "base.vae", path)
    if vae:
        base["vae"] = vae
    elif ARCHITECTURES[architecture].needs_vae:
        base["vae"] = "vae.safetensors"
        settings.note(Disposition.LOST, "vae", "base.vae", "none is named: name its file")
    if files := architectures.base_files(settings, remaining, architecture):
        base["files"] = files
    skip = take(settings, remaining, "clip_skip", "base.clip_skip", whole)
    if skip:
        base["clip_skip"] = skip
    elif skip == 0:
        why = "0 takes the embeddings in front of the first layer there; without it, the last layer counts"
        settings.note(Disposition.CHANGED, "clip_skip", "base.clip_skip", why)
    return base


def _steps_of(remaining: dict[str, Any]) -> tuple[int | None, float | None]:
    """Return max_train_steps and max_train_epochs.

    The epochs override the steps in sd-scripts.
    """
    steps, epochs = remaining.pop("max_train_steps", None), remaining.pop("max_train_epochs", None)
    count = whole_or(steps, 0)
    return (count if count > 0 else None, float(whole_or(epochs, 0)) or None)


def _other_options(settings: ImportedSettings, remaining: dict[str, Any]) -> dict[str, Any]:
    """Return the options without a key in recipes."""
    options = parser_options.of(ARCHITECTURES[settings.extra["architecture"]].trainer_script)
    kept: dict[str, Any] = {}
    for name, value in remaining.items():
        if name not in options and not value:
            continue  # off, whatever it is
        if name in trainer_names.OWNED:
            where = trainer_names.OWNED[name]
            if where:
                settings.note(Disposition.LOST, name, where, "it is not imported: set it there")
            else:
                settings.note(Disposition.CHANGED, name, why="it is set by the orchestrator")
            continue
        parsed = tuple(value) if isinstance(value, list) else value
        if name in options and options[name].type == "float" and isinstance(parsed, str):
            parsed = literal(parsed)
        usual = _TOKENS if name == "max_token_length" else options[name].default if name in options else ...
        if usual == plain_number(parsed):
            settings.note(Disposition.KEPT, name, why="it is sd-scripts' default")
            continue
        wrong = dict(parser_options.problems(options, {name: parsed}, "training.options", {}))
        if wrong:
            settings.note(Disposition.LOST, name, why=next(iter(wrong.values())))
        else:
            kept[name] = list(parsed) if isinstance(parsed, tuple) else parsed
            settings.note(Disposition.KEPT, name, f"training.options.{name}")
    return kept
