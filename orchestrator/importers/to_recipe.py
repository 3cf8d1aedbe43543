"""Options of train_network.py and datasets of sd-scripts -> the tables of a recipe, with what became of every setting."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from orchestrator.engines.sdscripts import arguments, parser_options
from orchestrator.importers import Fate, Found, Note
from orchestrator.importers.sd_scripts_datasets import dataset
from orchestrator.importers.training import training
from orchestrator.importers.values import literal, number, path, take, whole

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
class Imported:
    """A recipe's name and tables, and what became of every setting it was made from."""

    name: str
    table: dict[str, Any]
    notes: tuple[Note, ...]

    def of(self, fate: Fate) -> list[Note]:
        """Return the notes of one fate."""
        return [note for note in self.notes if note.fate is fate]


def recipe(found: Found, name: str = "") -> Imported:
    """Make a recipe of what was found."""
    left = {key: value for key, value in found.options.items() if value is not None}
    said_name = str(left.pop("output_name", ""))
    found.name = said_name or found.name
    name = re.sub(r"[^A-Za-z0-9._+-]+", "-", name or found.name).strip("-._+") or "imported"
    if said_name:
        same = name == said_name
        found.say(Fate.KEPT if same else Fate.CHANGED, "output_name", "the recipe's name", "" if same else name)
    table: dict[str, Any] = {"summary": f"{name}, imported from {found.kind}"}
    if found.extra.get("release"):
        data = dataset(found, name, (None, None))
        table = {"extends": list(_RELEASE), "unset": ["dataset", "release"]} | table | {"subject": data.subject}
        words = {"collection": data.subject, "collection_title": f"LoRAs of {data.subject}", "title": data.subject}
        table |= {"dataset": data.table, "release": words}
    else:
        table |= _whole(found, left, name)
    touched = {note.name for note in found.notes if note.fate is not Fate.KEPT}
    notes = [note for note in found.notes if note.fate is not Fate.KEPT or note.name not in touched]
    return Imported(name, table, tuple(notes))


def _whole(found: Found, left: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the tables of a recipe that extends nothing."""
    network, family = _network(found, left)
    base = _base(found, left)
    data = dataset(found, name, _steps_of(left))
    said = training(found, left, data.steps)
    said["options"] = _others(found, left)
    algorithm = {"lora": "lora3x3" if "conv_dim" in network else "lora1x1"}.get(family, family)
    table: dict[str, Any] = {
        "subject": data.subject,
        "algorithm": algorithm,
        "engine": "sd-scripts",
        "base": base | found.extra.get("base", {}),
        "dataset": data.table,
        "network": network,
        "training": {key: value for key, value in said.items() if value not in ({}, None)},
    }
    return table | {key: found.extra[key] for key in ("block_weights", "merge", "resize") if found.extra.get(key)}


def _base(found: Found, left: dict[str, Any]) -> dict[str, Any]:
    sdxl = found.extra.get("architecture") == "sdxl"
    checkpoint = take(found, left, "pretrained_model_name_or_path", "base.checkpoint", path)
    if not checkpoint:
        checkpoint = "Defmix-v2.0.safetensors"
        found.say(Fate.LOST, "the base model", "base.checkpoint", "none is named; the release's stands in")
    elif not checkpoint.endswith((".safetensors", ".ckpt")) and not Path(checkpoint).is_dir():
        found.say(
            Fate.CHANGED,
            "pretrained_model_name_or_path",
            "base.checkpoint",
            f"{checkpoint!r} is no file name: name a file in your model folders",
        )
    base: dict[str, Any] = {"architecture": "sdxl" if sdxl else "sd1", "checkpoint": checkpoint}
    vae = take(found, left, "vae", "base.vae", path)
    if vae:
        base["vae"] = vae
    skip = take(found, left, "clip_skip", "base.clip_skip", whole)
    if skip and not sdxl:
        base["clip_skip"] = skip
    for name in ("v2", "v_parameterization"):
        if left.pop(name, False):
            found.say(Fate.LOST, name, why="recipes are about SD1 and SDXL")
    return base


def _network(found: Found, left: dict[str, Any]) -> tuple[dict[str, Any], str]:
    module = str(left.pop("network_module", "networks.lora"))
    args = left.pop("network_args", {})
    args = dict(args) if isinstance(args, dict) else {}
    family = "lora"
    if module == "lycoris.kohya":
        said = str(args.pop("algo", "locon")).lower()
        family = {"lora": "locon"}.get(said, said)
    if module not in ("networks.lora", "lycoris.kohya") or family not in _FAMILIES:
        found.say(
            Fate.LOST, module if family in _FAMILIES else family, "network.family", "recipes cannot train it; lora stands in"
        )
        family = "lora"
    else:
        found.say(Fate.KEPT, "network_module", f"network.family = {family}")
    network: dict[str, Any] = {"family": family}
    network["dim"] = take(found, left, "network_dim", "network.dim", whole) or 4
    network["alpha"] = take(found, left, "network_alpha", "network.alpha", number) or 1
    args.pop("algo", None)
    for key in ("conv_dim", "conv_alpha"):
        value = take(found, args, key, f"network.{key}", whole if key == "conv_dim" else number)
        if value:
            network[key] = value
    if family not in ("lora", "full") and "conv_dim" not in network:
        network["conv_dim"] = network["dim"]
        found.say(
            Fate.CHANGED, "conv_dim", "network.conv_dim", "LyCORIS takes network_dim where none is given; a recipe says it"
        )
    for key, where in _LYCORIS.items():
        value = take(found, args, key, f"network.{where}", literal)
        if value:
            network[where] = value
    _dropout_and_preset(found, left, args, network)
    rest = {key: literal(value) for key, value in args.items() if value not in ("", None)}
    if rest:
        network["args"] = rest
        for key in rest:
            found.say(Fate.KEPT, key, f"network.args.{key}")
    weights = take(found, left, "network_weights", "network.weights", path)
    if weights:
        network["weights"] = weights
    return network, family


def _steps_of(left: dict[str, Any]) -> tuple[int | None, float | None]:
    """Return max_train_steps and max_train_epochs; sd-scripts lets the second win."""
    steps, epochs = left.pop("max_train_steps", None), left.pop("max_train_epochs", None)
    return (whole(steps) if steps else None, float(epochs) if epochs else None)


def _dropout_and_preset(found: Found, left: dict[str, Any], args: dict[str, Any], network: dict[str, Any]) -> None:
    dropout = take(found, left, "network_dropout", "network.dropout", number)
    if dropout:
        network["dropout"] = dropout
    preset = args.pop("preset", None)
    if found.extra.get("lycoris_2023"):
        network["preset"] = _PRESET_2023
    elif set(found.extra.get("preset", {"": 0})) <= set(_PRESET_2023):
        network["preset"] = found.extra["preset"]
        found.say(Fate.KEPT, "preset", "network.preset")
    elif preset not in (None, "full"):
        found.say(Fate.LOST, f"preset {preset}", "network.preset", "write the modules it names into [network.preset]")


def _others(found: Found, left: dict[str, Any]) -> dict[str, Any]:
    """Return the options that have no key of their own, checked against sd-scripts' own parser."""
    script = "sdxl_train_network.py" if found.extra.get("architecture") == "sdxl" else "train_network.py"
    known = parser_options.of(script)
    kept: dict[str, Any] = {}
    for name, value in left.items():
        if name in arguments.OWNED:
            where = arguments.OWNED[name]
            if where:
                found.say(Fate.LOST, name, where, "it is not taken over: say it there")
            else:
                found.say(Fate.CHANGED, name, why="it is set by the orchestrator")
            continue
        one = tuple(value) if isinstance(value, list) else value
        if name in known and known[name].type == "float" and isinstance(one, str):
            one = literal(one)
        if known.get(name) is not None and known[name].default == one:
            found.say(Fate.KEPT, name, why="it is sd-scripts' default")
            continue
        wrong = dict(parser_options.problems(known, {name: one}, "training.options", {}))
        if wrong:
            found.say(Fate.LOST, name, why=next(iter(wrong.values())))
        else:
            kept[name] = value
            found.say(Fate.KEPT, name, f"training.options.{name}")
    return kept


def as_json(imported: Imported) -> str:
    """Return the notes as JSON."""
    said = [{"fate": str(note.fate), "name": note.name, "where": note.where, "why": note.why} for note in imported.notes]
    return json.dumps({"name": imported.name, "settings": said}, indent=1, ensure_ascii=False)
