"""Translate network arguments that choose layers, ranks and text encoders."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from orchestrator.importers.notes import Disposition, ImportedSettings
from orchestrator.importers.values import argument_value, number, take, whole
from orchestrator.models.registry import ARCHITECTURES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from orchestrator.models.architecture import Architecture

_NUMBERS = re.compile(r"\s*\d{1,3}(?:\s*-\s*\d{1,3})?\s*")
_OFF = "off, as in a recipe without it"


def network(settings: ImportedSettings, args: dict[str, Any], family: str) -> dict[str, Any]:
    """Return the keys of [network] for a network module's own arguments.

    Args:
        settings: receives the notes, and the text encoders that are trained.
        args: the network arguments; translated ones are removed.
        family: of the network.
    """
    entry = ARCHITECTURES[settings.extra["architecture"]]
    if family != "lora":
        return {}
    table: dict[str, Any] = {}
    if blocks := _blocks(settings, args, entry):
        table["blocks"] = blocks
    if entry.layer_choice.patterns:
        for name, key, convert in (("network_reg_dims", "layer_dims", whole), ("network_reg_lrs", "layer_lrs", number)):
            pairs = take(settings, args, name, f"network.{key}", _pairs(convert))
            table |= {key: pairs} if pairs else {}
    if entry.layer_choice.excludes:
        for name, key in (("exclude_patterns", "exclude"), ("include_patterns", "include")):
            patterns = take(settings, args, name, f"network.{key}", _patterns)
            table |= {key: patterns} if patterns else {}
    if argument_value(args.get("split_qkv")) is True:
        del args["split_qkv"]
        why = "q, k and v get a LoRA each with it; a recipe trains the one layer of the model that holds them"
        settings.note(Disposition.LOST, "split_qkv", why=why)
    _text_encoders(settings, args, entry)
    return table


def _blocks(settings: ImportedSettings, args: dict[str, Any], entry: Architecture) -> list[str]:
    """Return the blocks that are trained, or [] for all."""
    arguments = dict(entry.layer_choice.block_arguments)
    given = {letter: args.pop(name) for letter, name in arguments.items() if args.get(name) not in (None, "")}
    kind = args.pop("train_blocks", None)
    if kind not in (None, "", "all") and len(arguments) == len(("double", "single")):
        first, second = arguments  # the letters of double and of single blocks
        given |= {second: "none"} if kind == "double" else {first: "none"}
    if kind not in (None, ""):
        settings.note(
            Disposition.KEPT, "train_blocks", "network.blocks" if kind != "all" else "", "" if kind != "all" else _OFF
        )
    blocks: list[str] = []
    limited = False
    for letter, name in arguments.items():
        text = str(given.get(letter, "all"))
        count = sum(block.rstrip("0123456789") == letter for block in entry.blocks)
        parts = [] if text == "none" else [f"0-{count - 1}"] if text == "all" else text.split(",")
        if not all(_NUMBERS.fullmatch(part) for part in parts):
            settings.note(Disposition.LOST, name, why=f"{text[:60]!r} cannot be read")
            return []
        limited = limited or text != "all"
        blocks += [_range(letter, part) for part in parts]
        if letter in given:
            settings.note(Disposition.KEPT, name, "network.blocks")
    return blocks if limited else []


def _range(letter: str, text: str) -> str:
    """Return 0-3 as D00-D03."""
    return "-".join(f"{letter}{int(number):02}" for number in text.split("-"))


def _pairs(convert: Callable[[Any], Any]) -> Callable[[Any], Mapping[str, Any]]:
    """Return a reader of pattern=value,pattern=value."""

    def read(value: Any) -> Mapping[str, Any]:
        items = [item.strip().partition("=") for item in str(value).split(",") if item.strip()]
        return {key.strip(): convert(text.strip()) for key, _, text in items}

    return read


def _patterns(value: Any) -> list[str]:
    read = argument_value(value)
    return [str(item) for item in (read if isinstance(read, list) else [read])]


def _text_encoders(settings: ImportedSettings, args: dict[str, Any], entry: Architecture) -> None:
    """Read the arguments that train further text encoders."""
    encoders = entry.model.text_encoders
    for encoder in encoders:
        if not encoder.argument or encoder.argument not in args:
            continue
        on = argument_value(args.pop(encoder.argument)) is True
        if on:
            always = [each.name for each in encoders if not each.argument]
            settings.extra["text_encoders"] = [*always, encoder.name]
        settings.note(Disposition.KEPT, encoder.argument, "training.text_encoders" if on else "", "" if on else _OFF)
