"""Make a recipe of imported settings."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from orchestrator.engines.sdscripts import arguments, parser_options
from orchestrator.importers import recipe_check
from orchestrator.importers.notes import Disposition, ImportedSettings, Note
from orchestrator.importers.sd_scripts_datasets import dataset
from orchestrator.importers.training import training
from orchestrator.importers.values import literal, number, path, take, whole
from orchestrator.recipe import toml

_FAMILIES: Final = ("lora", "locon", "loha", "lokr", "dylora", "glora", "full", "diag-oft", "boft")
_LYCORIS: Final = {"dropout": "dropout", "use_tucker": "tucker", "use_cp": "tucker", "bypass_mode": "bypass"}
_RELEASE: Final = ("_base/release-2023-03", "_base/face", "_algorithms/lora3x3")
_PRESET_2023: Final = {
    "enable_conv": True,
    "unet_target_module": ["Transformer2DModel", "ResnetBlock2D", "Downsample2D", "Upsample2D"],
    "unet_target_name": [],
    "text_encoder_target_module": ["CLIPAttention", "CLIPMLP"],
    "text_encoder_target_name": [],
}


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
        """Return the recipe as TOML.

        Comments list the changed and lost settings.
        """
        comments = [f"# {note}" for note in self.notes if note.disposition is not Disposition.KEPT]
        return "\n".join([f"# {self.table['summary']}", *comments, "", *toml.lines(self.table)]) + "\n"

    def as_json(self) -> dict[str, Any]:
        """Return name, tables and notes as JSON."""
        return {"name": self.name, "recipe": self.table, "settings": [note.as_json() for note in self.notes]}


def recipe(settings: ImportedSettings, name: str = "") -> ImportedRecipe:
    """Make a recipe of imported settings."""
    remaining = {key: value for key, value in settings.options.items() if value is not None}
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
        table |= {"dataset": data.table, "release": release}
    else:
        table |= _whole(settings, remaining, name)
    recipe_check.make_acceptable(settings, name, table)
    touched = {note.name for note in settings.notes if note.disposition is not Disposition.KEPT}
    notes = [note for note in settings.notes if note.disposition is not Disposition.KEPT or note.name not in touched]
    return ImportedRecipe(name, table, tuple(notes))


def _whole(settings: ImportedSettings, remaining: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the tables of a recipe that extends nothing."""
    network, family = _network(settings, remaining)
    base = _base(settings, remaining)
    data = dataset(settings, name, _steps_of(remaining))
    training_table = training(settings, remaining, data.steps)
    training_table["options"] = _other_options(settings, remaining)
    algorithm = {"lora": "lora3x3" if "conv_dim" in network else "lora1x1"}.get(family, family)
    table: dict[str, Any] = {
        "subject": data.subject,
        "algorithm": algorithm,
        "engine": "sd-scripts",
        "base": base | settings.extra.get("base", {}),
        "dataset": data.table,
        "network": network,
        "training": {key: value for key, value in training_table.items() if value not in ({}, None)},
    }
    return table | {key: settings.extra[key] for key in ("block_weights", "merge", "resize") if settings.extra.get(key)}


def _base(settings: ImportedSettings, remaining: dict[str, Any]) -> dict[str, Any]:
    sdxl = settings.extra.get("architecture") == "sdxl"
    checkpoint = take(settings, remaining, "pretrained_model_name_or_path", "base.checkpoint", path)
    if not checkpoint:
        checkpoint = "Defmix-v2.0.safetensors"
        settings.note(Disposition.LOST, "the base model", "base.checkpoint", "none is named; the release's is used")
    elif not checkpoint.endswith((".safetensors", ".ckpt")) and not Path(checkpoint).is_dir():
        settings.note(
            Disposition.CHANGED,
            "pretrained_model_name_or_path",
            "base.checkpoint",
            f"{checkpoint!r} is not a file name: name a file in your model folders",
        )
    base: dict[str, Any] = {"architecture": "sdxl" if sdxl else "sd1", "checkpoint": checkpoint}
    vae = take(settings, remaining, "vae", "base.vae", path)
    if vae:
        base["vae"] = vae
    skip = take(settings, remaining, "clip_skip", "base.clip_skip", whole)
    if skip:
        base["clip_skip"] = skip
    for name in ("v2", "v_parameterization"):
        if remaining.pop(name, False):
            settings.note(Disposition.LOST, name, why="recipes cover SD1 and SDXL only")
    return base


def _network(settings: ImportedSettings, remaining: dict[str, Any]) -> tuple[dict[str, Any], str]:
    module = str(remaining.pop("network_module", "networks.lora"))
    args = remaining.pop("network_args", {})
    args = dict(args) if isinstance(args, dict) else {}
    family = "lora"
    if module == "lycoris.kohya":
        algo = str(args.pop("algo", "locon")).lower()
        family = {"lora": "locon"}.get(algo, algo)
    if module not in ("networks.lora", "lycoris.kohya") or family not in _FAMILIES:
        settings.note(
            Disposition.LOST,
            module if family in _FAMILIES else family,
            "network.family",
            "recipes cannot train it; lora is used",
        )
        family = "lora"
    else:
        settings.note(Disposition.KEPT, "network_module", f"network.family = {family}")
    network: dict[str, Any] = {"family": family}
    network["dim"] = take(settings, remaining, "network_dim", "network.dim", whole) or 4
    network["alpha"] = take(settings, remaining, "network_alpha", "network.alpha", number) or 1
    args.pop("algo", None)
    for key in ("conv_dim", "conv_alpha"):
        value = take(settings, args, key, f"network.{key}", whole if key == "conv_dim" else number)
        if value:
            network[key] = value
    if family not in ("lora", "full") and "conv_dim" not in network:
        network["conv_dim"] = network["dim"]
        settings.note(
            Disposition.CHANGED, "conv_dim", "network.conv_dim", "LyCORIS uses network_dim as its default; a recipe needs it"
        )
    for key, where in _LYCORIS.items():
        value = take(settings, args, key, f"network.{where}", literal)
        if value:
            network[where] = value
    _dropout_and_preset(settings, remaining, args, network)
    rest = {key: literal(value) for key, value in args.items() if value not in ("", None)}
    if rest:
        network["args"] = rest
        for key in rest:
            settings.note(Disposition.KEPT, key, f"network.args.{key}")
    weights = take(settings, remaining, "network_weights", "network.weights", path)
    if weights:
        network["weights"] = weights
    return network, family


def _steps_of(remaining: dict[str, Any]) -> tuple[int | None, float | None]:
    """Return max_train_steps and max_train_epochs.

    The epochs override the steps in sd-scripts.
    """
    steps, epochs = remaining.pop("max_train_steps", None), remaining.pop("max_train_epochs", None)
    return (whole(steps) if steps else None, float(epochs) if epochs else None)


def _dropout_and_preset(
    settings: ImportedSettings, remaining: dict[str, Any], args: dict[str, Any], network: dict[str, Any]
) -> None:
    dropout = take(settings, remaining, "network_dropout", "network.dropout", number)
    if dropout:
        network["dropout"] = dropout
    preset = args.pop("preset", None)
    if settings.extra.get("lycoris_2023"):
        network["preset"] = _PRESET_2023
    elif set(settings.extra.get("preset", {"": 0})) <= set(_PRESET_2023):
        network["preset"] = settings.extra["preset"]
        settings.note(Disposition.KEPT, "preset", "network.preset")
    elif preset not in (None, "full"):
        settings.note(Disposition.LOST, f"preset {preset}", "network.preset", "write its modules into [network.preset]")


def _other_options(settings: ImportedSettings, remaining: dict[str, Any]) -> dict[str, Any]:
    """Return the options without a key in recipes."""
    script = "sdxl_train_network.py" if settings.extra.get("architecture") == "sdxl" else "train_network.py"
    options = parser_options.of(script)
    kept: dict[str, Any] = {}
    for name, value in remaining.items():
        if name in arguments.OWNED:
            where = arguments.OWNED[name]
            if where:
                settings.note(Disposition.LOST, name, where, "it is not imported: set it there")
            else:
                settings.note(Disposition.CHANGED, name, why="it is set by the orchestrator")
            continue
        parsed = tuple(value) if isinstance(value, list) else value
        if name in options and options[name].type == "float" and isinstance(parsed, str):
            parsed = literal(parsed)
        if options.get(name) is not None and options[name].default == parsed:
            settings.note(Disposition.KEPT, name, why="it is sd-scripts' default")
            continue
        wrong = dict(parser_options.problems(options, {name: parsed}, "training.options", {}))
        if wrong:
            settings.note(Disposition.LOST, name, why=next(iter(wrong.values())))
        else:
            kept[name] = value
            settings.note(Disposition.KEPT, name, f"training.options.{name}")
    return kept
