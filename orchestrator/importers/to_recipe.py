"""Make a recipe of imported settings."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from orchestrator.engines.sdscripts import network_args, parser_options
from orchestrator.importers import architectures, layer_choices, leaves, recipe_check, sample_prompts, shorten
from orchestrator.importers.notes import Disposition, ImportedSettings, Note
from orchestrator.importers.sd_scripts_datasets import dataset
from orchestrator.importers.training import training
from orchestrator.importers.values import argument_value, literal, number, path, plain_number, take, whole, whole_or
from orchestrator.models.registry import ARCHITECTURES, DEFAULT
from orchestrator.recipe import toml, trainer_names

_FAMILIES: Final = ("lora", "locon", "loha", "lokr", "dylora", "glora", "full", "diag-oft", "boft")
_LYCORIS: Final = {"dropout": "dropout", "use_tucker": "tucker", "use_cp": "tucker", "bypass_mode": "bypass"}
_RELEASE: Final = ("_base/release-2023-03", "_base/face", "_algorithms/lora3x3")
_NUMBERS: Final = re.compile(r"\s*\d+(\.\d+)?\s*(,\s*\d+(\.\d+)?\s*)*")
_ALPHA: Final = "the trainer takes the rank for 0"
_TRUE_TEXT: Final = (
    "off here; there it is the text False, which LyCORIS takes for true where the rank is small: set it to true to repeat that"
)
_TOKENS: Final = 75  # what sd-scripts calls None
_OFF: Final = "off, as in a recipe without it"
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
    network, family = _network(settings, remaining)
    data = dataset(settings, name, _steps_of(remaining))
    training_table = training(settings, remaining, data.steps, data.epochs)
    render = sample_prompts.render(settings, remaining)
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
    table |= {"render": render} if render else {}
    return table | {key: settings.extra[key] for key in ("block_weights", "merge", "resize") if settings.extra.get(key)}


def _base(settings: ImportedSettings, remaining: dict[str, Any]) -> dict[str, Any]:
    architecture = settings.extra["architecture"] = architectures.of(settings)
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
    return base


def _network(settings: ImportedSettings, remaining: dict[str, Any]) -> tuple[dict[str, Any], str]:
    args = remaining.pop("network_args", {})
    args = dict(args) if isinstance(args, dict) else {}
    own = ARCHITECTURES[settings.extra["architecture"]].network_module
    family = _family(settings, str(remaining.pop("network_module", own)), args)
    network: dict[str, Any] = {"family": family}
    network["dim"] = take(settings, remaining, "network_dim", "network.dim", whole) or 4
    alpha = take(settings, remaining, "network_alpha", "network.alpha", number)
    network["alpha"] = 1 if alpha is None else alpha
    _convolutions(settings, network, args)
    if alpha == 0:
        network["alpha"] = network["dim"]
        settings.note(Disposition.CHANGED, "network_alpha", "network.alpha", _ALPHA)
    network |= layer_choices.network(settings, args, family)
    for key, where in _LYCORIS.items():
        value = take(settings, args, key, f"network.{where}", argument_value)
        if value:
            network[where] = value
        elif value is not None:
            settings.note(Disposition.KEPT, key, why=_OFF)
    _dropout_and_preset(settings, remaining, args, network)
    rest: dict[str, Any] = {}
    kinds = network_args.taken(network["family"], ARCHITECTURES[settings.extra["architecture"]])
    for key, item in args.items():
        value = _network_argument(kinds, key, item)
        if key in network_args.BLOCK_LISTS and not _NUMBERS.fullmatch(str(value)):
            settings.note(Disposition.LOST, key, why=f"{str(value)[:60]!r} is no list of numbers")
            continue
        if key == "decompose_both" and value is False:
            settings.note(Disposition.CHANGED, key, f"network.args.{key}", _TRUE_TEXT)
            continue
        if value in ("", None, False) or (value == 0 and key in ("rank_dropout", "module_dropout")):
            settings.note(Disposition.KEPT, key, why=_OFF)
            continue
        rest[key] = value
        settings.note(Disposition.KEPT, key, f"network.args.{key}")
    if rest:
        network["args"] = rest
    weights = take(settings, remaining, "network_weights", "network.weights", path)
    if weights:
        network["weights"] = weights
    return network, family


def _family(settings: ImportedSettings, module: str, args: dict[str, Any]) -> str:
    """Return the family of a network module, lora for unsupported ones."""
    family, entry = "lora", ARCHITECTURES[settings.extra["architecture"]]
    if module == "lycoris.kohya":
        algo = str(args.get("algo", "locon")).lower()
        family = {"lora": "locon"}.get(algo, algo)
    names = ("network_module", "algo") if args.pop("algo", None) else ("network_module",)
    own = entry.network_module
    trained = _FAMILIES if entry.lycoris is None or module == own else entry.lycoris
    if module in (own, "lycoris.kohya") and family in trained:
        for name in names:
            settings.note(Disposition.KEPT, name, "network.family")
        return family
    what = module if module != "lycoris.kohya" else f"LyCORIS {family}"
    title = f" for {entry.title}" if family in _FAMILIES and module == "lycoris.kohya" else ""
    for name in names:
        settings.note(Disposition.LOST, name, "network.family", f"recipes cannot train {what}{title}; lora is used")
    for key in [*args]:
        if key not in ("conv_dim", "conv_alpha") and not str(key).startswith("loraplus"):
            del args[key]
            settings.note(Disposition.LOST, key, why=f"of {what}, which recipes cannot train")
    return "lora"


def _convolutions(settings: ImportedSettings, network: dict[str, Any], args: dict[str, Any]) -> None:
    """Set rank and alpha of the convolutions. 0 as rank excludes them."""
    lycoris = network["family"] not in ("lora", "full")
    excluded = network["family"] != "lora" and str(args.get("conv_dim")) in ("0", "0.0")
    rank = take(settings, args, "conv_dim", "network.conv_dim", whole)
    alpha = take(settings, args, "conv_alpha", "network.conv_alpha", number)
    if excluded:
        for key in ("conv_dim", "conv_alpha"):
            settings.note(Disposition.CHANGED, key, why="rank 0: no convolutions are trained, as without it in a recipe")
        return
    if rank:
        network["conv_dim"] = rank
    elif lycoris:
        network["conv_dim"] = network["dim"]
        why = "LyCORIS uses network_dim as its default; a recipe needs it"
        settings.note(Disposition.CHANGED, "conv_dim", "network.conv_dim", why)
    if alpha:
        network["conv_alpha"] = alpha
    elif "conv_dim" in network and (alpha == 0 or (lycoris and network["alpha"] == 0)):
        network["conv_alpha"] = network["conv_dim"]
        settings.note(Disposition.CHANGED, "conv_alpha", "network.conv_alpha", _ALPHA)


def _network_argument(kinds: dict[str, str], key: str, item: Any) -> Any:
    """Return a network argument as a recipe takes it: a list as text."""
    if kinds.get(key) == "text":
        return ",".join(map(str, item)) if isinstance(item, list | tuple) else str(item).strip("'")
    value = argument_value(item)
    whole_number = isinstance(value, float) and value.is_integer() and kinds.get(key) == "whole"
    return int(value) if whole_number else value


def _steps_of(remaining: dict[str, Any]) -> tuple[int | None, float | None]:
    """Return max_train_steps and max_train_epochs.

    The epochs override the steps in sd-scripts.
    """
    steps, epochs = remaining.pop("max_train_steps", None), remaining.pop("max_train_epochs", None)
    count = whole_or(steps, 0)
    return (count if count > 0 else None, float(whole_or(epochs, 0)) or None)


def _dropout_and_preset(
    settings: ImportedSettings, remaining: dict[str, Any], args: dict[str, Any], network: dict[str, Any]
) -> None:
    entry = ARCHITECTURES[settings.extra["architecture"]]
    dropout = take(settings, remaining, "network_dropout", "network.dropout", number)
    if dropout:
        network["dropout"] = dropout
    preset = args.pop("preset", None) or None
    if settings.extra.get("lycoris_2023"):
        network["preset"] = _PRESET_2023
    elif set(settings.extra.get("preset", {"": 0})) <= set(_PRESET_2023):
        network["preset"] = settings.extra["preset"]
        settings.note(Disposition.KEPT, "preset", "network.preset")
    elif network["family"] != "lora" and (classes := entry.lycoris_modules):
        network["preset"] = {"enable_conv": False, "unet_target_module": list(classes)}
        why = f"it is not a file here, and {entry.lycoris_preset}: attention and feed-forward are trained"
        settings.note(Disposition.CHANGED, "preset", "network.preset", why)
    elif preset == "full":
        settings.note(Disposition.KEPT, "preset", why="it is LyCORIS' default")
    elif preset is not None:
        settings.note(Disposition.LOST, "preset", "network.preset", f"{preset}: write its modules into [network.preset]")


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
