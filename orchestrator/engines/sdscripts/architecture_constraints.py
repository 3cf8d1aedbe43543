"""Find combinations that an architecture's script rejects late or ignores.

Source: *_train_network.py, networks/lora_*.py and library/flux_train_utils.py of sd-scripts v0.10.1. Each was tried.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.engines.sdscripts import network_args, parser_options, typed_options
from orchestrator.errors import near_miss
from orchestrator.models import layer_choice, layers
from orchestrator.models.registry import ARCHITECTURES
from orchestrator.weights.families import expected_tensors, layer_ranks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.models.architecture import Architecture
    from orchestrator.recipe import Recipe
    from orchestrator.recipe.base import Conflict

_MERGEABLE = "networks.lora"
"""The network module whose files svd_merge_lora.py reads."""
_SCALED = ("sigmoid", "shift", "flux_shift")
_DENSITIES = ("logit_normal", "mode")
_WEIGHTS = ("sigma_sqrt", "cosmap")
_SHOWN = 6
_EIGHT_BITS = ("fp8_base", "fp8_base_unet", "fp8_scaled")


def problems(recipe: Recipe) -> Iterator[Conflict]:
    """Yield (dotted key, problem) for a recipe's settings on its architecture."""
    entry = ARCHITECTURES[recipe.base.architecture]
    options = typed_options.everything(recipe)
    for name in entry.ignored_options:
        if name in options and options[name][1] is not False:
            yield options[name][0], f"the trainer of {entry.title} ignores it; leave it out"
    for name, reason in entry.rejected_options.items():
        if name in options and options[name][1] is not False:
            yield options[name][0], f"is not for {entry.title}: {reason}"
    if recipe.training.attention == "xformers" and not entry.xformers:
        yield "training.attention", f'is "xformers", which the trainer of {entry.title} ignores; set "sdpa"'
    yield from _network(recipe, entry)
    yield from _layers(recipe, entry)
    yield from _text_encoders(recipe, entry)
    yield from _memory(recipe, entry)
    yield from _flow(recipe, entry)


def _network(recipe: Recipe, entry: Architecture) -> Iterator[Conflict]:
    """Yield families, presets and tools that do not fit."""
    network = recipe.network
    if network.family != "lora" and entry.lycoris is not None:
        if network.family not in entry.lycoris:
            yield "network.family", f"is {network.family}; of LyCORIS {', '.join(entry.lycoris)} train {entry.title}"
        if network.preset is None and entry.lycoris_preset:
            yield "network.preset", f"is missing: {entry.lycoris_preset}"
    if network.family != "lora" and not network.bypass:  # lycoris/modules/locon.py 322 multiplies in the type of the weight
        options = typed_options.everything(recipe)
        for key, value in (options[name] for name in _EIGHT_BITS if name in options):
            if value:
                yield key, "holds weights in 8 bits, in which LyCORIS cannot rebuild them; leave it out, or train family lora"
    if network.conv_dim is not None and not entry.model.targets.convolutions:
        yield "network.conv_dim", f"{entry.title} has no 3x3 convolutions; leave it out"
    if entry.network_module != _MERGEABLE and recipe.merge.tool == "sd-scripts" and recipe.block_weights is not None:
        yield "merge.tool", f"svd_merge_lora.py does not read LoRAs of {entry.title}; leave it out"


def _layers(recipe: Recipe, entry: Architecture) -> Iterator[Conflict]:
    """Yield choices of layers that the network module does not take."""
    network, choice = recipe.network, entry.layer_choice
    chosen = {name: getattr(network, name) for name in network_args.CHOICES}
    possible = {"blocks": bool(choice.by_block), "layer_dims": bool(choice.patterns), "layer_lrs": bool(choice.patterns)}
    possible |= dict.fromkeys(("exclude", "include"), choice.excludes)
    for name, value in chosen.items():
        if value and network.family != "lora":
            yield f"network.{name}", f"is for family lora; {network.family} of LyCORIS chooses layers by network.preset"
        elif value and not possible[name]:
            instead = f"network.args.block_dims takes {entry.block_lists} ranks" if entry.block_lists else ""
            takes = ", ".join(f"network.{other}" for other, able in possible.items() if able) or ", ".join(
                f"network.args.{other}" for other in choice.dims
            )
            way = instead or (f"it takes {takes}" if takes else "leave it out")
            yield f"network.{name}", f"{entry.network_module} of {entry.title} takes none; {way}"
        elif name == "blocks":
            yield from _blocks(network.blocks, entry)
        elif value:
            yield from _patterns(recipe, entry, name, tuple(value))


def _blocks(texts: tuple[str, ...], entry: Architecture) -> Iterator[Conflict]:
    """Yield names of blocks that do not exist."""
    possible = tuple(name for name in entry.blocks if name.rstrip("0123456789") in entry.layer_choice.by_block)
    for text in texts:
        try:
            layer_choice.expand([text], possible)
        except ValueError:
            near = near_miss(text, possible)
            ends = [[name for name in possible if name.startswith(letter)] for letter in entry.layer_choice.by_block]
            has = ", ".join(f"{names[0]} to {names[-1]}" for names in ends)
            yield "network.blocks", f"has {text!r}{near}; {entry.title} has {has}, and ranges as {possible[0]}-{possible[1]}"


def _patterns(recipe: Recipe, entry: Architecture, name: str, patterns: tuple[str, ...]) -> Iterator[Conflict]:
    """Yield patterns that the network module misreads, or without a layer."""
    choice, targeted = entry.layer_choice, expected_tensors.targeted(recipe, entry.model)
    by_default = [layer for layer in targeted if not expected_tensors.left_out(layer, entry.model)]
    excluded = [layer for layer in by_default if any(choice.matches(each, layer) for each in recipe.network.exclude)]
    included = layer_ranks.included(recipe)
    listed, what = by_default, "matches no layer that is trained"
    if name == "include":
        what = "matches no layer that is left out"
        listed = [layer for layer in targeted if layer not in by_default or layer in excluded]
    elif name != "exclude":
        listed = [layer for layer in targeted if included(layer) or (layer in by_default and layer not in excluded)]
    for pattern in patterns:
        where = f"network.{name}" if name in ("exclude", "include") else f"network.{name}.{pattern}"
        if name.startswith("layer_") and ("," in pattern or "=" in pattern):
            yield where, f"{pattern!r} has a comma or =, where the network module ends a pattern"
        elif not any(choice.matches(pattern, layer) for layer in listed):
            scope = "the whole of a name as" if choice.patterns == "whole" else "a part of a name as"
            example = next((one for one in listed if not one.text), targeted[0])
            yield where, f"{pattern!r} {what}; it matches {scope} {_pattern_name(example, choice.patterns)}"


def _pattern_name(layer: layers.ModelLayer, patterns: str) -> str:
    return layer.dotted if patterns == "whole" else layer.name


def _text_encoders(recipe: Recipe, entry: Architecture) -> Iterator[Conflict]:
    """Yield text encoders that cannot be trained in this way."""
    training = recipe.training
    encoders = {encoder.name: encoder for encoder in entry.model.text_encoders}
    named = training.text_encoders
    always = [name for name, encoder in encoders.items() if not encoder.argument]
    trained = [] if training.train == "unet" else list(named if named is not None else always)
    if named is not None:
        where = "training.text_encoders"
        for name in named:
            if name not in encoders:
                has = f"trains {', '.join(encoders)}" if encoders else "trains no text encoder"
                yield where, f"has {name!r}{near_miss(name, encoders)}; {entry.title} {has}"
        if training.train == "unet":
            yield where, 'is set with training.train = "unet", which trains none; leave one of them out'
        elif missing := [name for name in always if name not in named]:
            rates = "0 in training.text_encoder_lr leaves one untrained"
            way = 'training.train = "unet" trains none' + (f", and {rates}" if entry.layer_choice.text_rates else "")
            yield where, f"lacks {', '.join(missing)}, which the script trains in any case; {way}"
        if recipe.network.family != "lora" and any(encoders[name].argument for name in named if name in encoders):
            yield where, f"LyCORIS does not train {', '.join(name for name in named if encoders[name].argument)}"
    if not encoders and training.train != "unet":
        yield "training.train", f'is "{training.train}"; {entry.title} trains no text encoder: set "unet"'
    yield from _rates(recipe, entry)
    if training.cache_text_encoder_outputs != "no":
        where = f"training.{typed_options.CACHE}"
        if cached := [name for name in trained if name not in entry.trained_beside_cache]:
            yield where, f'excludes training of {", ".join(cached)}; set training.train = "unet", or leave it out'
        if entry.disk_cache_only and training.cache_text_encoder_outputs == "memory":
            yield where, f'is "memory"; {entry.disk_cache_only}: set "disk"'


def _rates(recipe: Recipe, entry: Architecture) -> Iterator[Conflict]:
    """Yield a list of rates of which the trainer takes the first only."""
    rates = recipe.training.text_encoder_lr
    several = entry.layer_choice.text_rates and recipe.network.family == "lora"
    encoders = [encoder.name for encoder in entry.model.text_encoders] if several else []
    if isinstance(rates, tuple) and len(rates) not in {1, len(encoders)}:
        takes = f"one for each of {', '.join(encoders)}, or one" if several else "one for all text encoders"
        yield "training.text_encoder_lr", f"has {len(rates)} rates; the trainer of {entry.title} takes {takes}"


def _memory(recipe: Recipe, entry: Architecture) -> Iterator[Conflict]:
    """Yield options that exclude cached text outputs and moved blocks."""
    options, training = recipe.training.options, recipe.training
    if training.cache_text_encoder_outputs != "no":
        for key in entry.uncached_captions:
            table, _, name = key.rpartition(".")
            value = options.get(name) if table == "training.options" else getattr(recipe.dataset, name)
            if value:
                yield key, f"changes captions, whose outputs are cached (training.{typed_options.CACHE})"
    swapped = training.blocks_to_swap
    if swapped and entry.swappable_blocks:
        if swapped > entry.swappable_blocks:
            yield "training.blocks_to_swap", f"is {swapped}; {entry.title} takes at most {entry.swappable_blocks}"
        for name in ("cpu_offload_checkpointing", "unsloth_offload_checkpointing"):
            if options.get(name):
                yield "training.blocks_to_swap", f"excludes training.options.{name}; leave one of them out"
    if options.get("cpu_offload_checkpointing") and options.get("unsloth_offload_checkpointing"):
        what = "excludes cpu_offload_checkpointing; leave one of them out"
        yield "training.options.unsloth_offload_checkpointing", what
    if options.get("dynamo_backend") and not training.torch_compile:
        yield "training.options.dynamo_backend", "needs training.torch_compile = true"


def _flow(recipe: Recipe, entry: Architecture) -> Iterator[Conflict]:
    """Yield settings of flow matching that the other settings turn off."""
    training = recipe.training
    options = parser_options.of(entry.trainer_script)
    if not entry.flow_shift:
        return  # the parser's options are missing, which each key reports
    has_sampling = "timestep_sampling" in options
    sampling = training.timestep_sampling or (options["timestep_sampling"].default if has_sampling else "sigma")
    own = "" if training.timestep_sampling else ", the default"
    if training.sigmoid_scale is not None and has_sampling and sampling not in _SCALED:
        yield "training.sigmoid_scale", f'is ignored with timestep_sampling = "{sampling}"{own}; {", ".join(_SCALED)} use it'
    if training.flow_shift is not None and sampling not in entry.shifted_samplings:
        uses = ", ".join(entry.shifted_samplings)
        yield "training.flow_shift", f'is ignored with timestep_sampling = "{sampling}"{own}; {uses} use it'
    scheme = training.weighting_scheme
    if scheme in _DENSITIES and sampling != "sigma":
        what = f'is "{scheme}", which only timestep_sampling = "sigma" uses; it is "{sampling}"{own}'
        yield "training.weighting_scheme", what
    prediction = options.get("model_prediction_type")
    read = training.model_prediction_type or (prediction.default if prediction else None)
    if scheme in _WEIGHTS and not entry.loss_weighting and read != "sigma_scaled":
        what = f'is "{scheme}", which only model_prediction_type = "sigma_scaled" uses; it is "{read}"'
        yield "training.weighting_scheme", what
    for name, needed in (("logit_mean", "logit_normal"), ("logit_std", "logit_normal"), ("mode_scale", "mode")):
        if getattr(training, name) is not None and scheme != needed:
            yield f"training.{name}", f'needs training.weighting_scheme = "{needed}"'
