"""Predict the modules, tensors and bytes of a recipe's network. No numpy.

A network without an exact formula here is predicted as None, never guessed.
"""

from __future__ import annotations

import functools
import json
import math
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from orchestrator.models import layers, registry
from orchestrator.models.bases import sd1
from orchestrator.weights.families import layer_ranks, module_shapes

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.models.layers import Model, ModelLayer
    from orchestrator.recipe import Recipe
    from orchestrator.weights.families.module_shapes import Shapes

# The preset "full" of LyCORIS 3.4.0, as far as it names modules of the architectures.
_FULL_CLASSES = (
    *("Transformer2DModel", "ResnetBlock2D", "Downsample2D", "Upsample2D", "DoubleStreamBlock", "SingleStreamBlock"),
    *("SingleDiTBlock", "MMDoubleStreamBlock", "MMSingleStreamBlock", "JointTransformerBlock", "FinalLayer"),
)
_FULL_NAMES = ("conv_in", "conv_out", "time_embedding.linear_1", "time_embedding.linear_2")
_FULL_TEXT = ("CLIPAttention", "CLIPSdpaAttention", "CLIPMLP", "Gemma2Attention", "Gemma2MLP")
_BYTES = {"float": 4, "fp16": 2, "bf16": 2}
# network_args that change the tensors and have no formula here.
_UNPREDICTED = frozenset({"train_norm", "block_dims", "conv_block_dims", "down_lr_weight", "mid_lr_weight", "up_lr_weight"})


@dataclass(frozen=True, slots=True)
class Predicted:
    """Predicted file of a training: bytes of its tensors, and modules."""

    tensor_bytes: int
    modules: int
    text_encoder: int
    unet: int


def of(recipe: Recipe, checkpoint: Path | None = None) -> Model:
    """Return the model whose layers the recipe trains.

    sd-scripts builds SD1.5 or SDXL at their real sizes for any checkpoint. The embedded engine takes the sizes of the model
    folder.

    Raises:
        NotReady: the embedded engine's model folder has no readable configuration.
    """
    if recipe.engine == "embedded" and checkpoint is not None and checkpoint.is_dir():
        return sd1.folder_model(checkpoint)
    return registry.ARCHITECTURES[recipe.base.architecture].model


def targeted(recipe: Recipe, model: Model) -> list[ModelLayer]:
    """Return the layers among which sd-scripts' own network chooses."""
    targets = model.targets
    arguments = layer_ranks.text_arguments(recipe) | recipe.network.args
    more = (name for argument, names in targets.optional.items() if arguments.get(argument) for name in names)
    convolutions = targets.convolutions if recipe.network.conv_dim is not None else ()
    return layers.select(layers.layers(model), (*targets.unet, *convolutions, *targets.text, *more))


def left_out(layer: ModelLayer, model: Model) -> bool:
    """Return whether sd-scripts' own network leaves a layer out.

    A recipe can include it.
    """
    return bool(model.targets.excluded) and re.search(model.targets.excluded, layer.dotted) is not None


def modules(recipe: Recipe, model: Model) -> list[ModelLayer]:
    """Return the layers that the recipe's network trains, text encoders first."""
    network = recipe.network
    candidates = layers.layers(model)
    convolutions = network.conv_dim is not None
    if network.family == "lora":
        included, rank = layer_ranks.included(recipe), layer_ranks.ranks(recipe)
        chosen = [module for module in targeted(recipe, model) if included(module) or not left_out(module, model)]
        chosen = [module for module in chosen if rank(module)]
    elif network.preset is None:
        chosen = layers.select(candidates, (*_FULL_CLASSES, *_FULL_TEXT), _FULL_NAMES)
        convolutions = convolutions or network.family == "full"
    else:
        preset = network.preset
        parts = (
            (True, preset.text_encoder_target_module, preset.text_encoder_target_name),
            (False, preset.unet_target_module, preset.unet_target_name),
        )
        chosen = []
        for text, classes, names in parts:
            chosen += layers.select([layer for layer in candidates if layer.text is text], classes, names)
        convolutions = preset.enable_conv and (convolutions or network.family == "full")
    kept = [module for module in chosen if module.kernel == 1 or convolutions]
    if network.family != "lora":
        kept = [_in_lycoris(module, model) for module in kept]
    match recipe.training.train:
        case "unet":
            return [module for module in kept if not module.text]
        case "text_encoder":
            return [module for module in kept if module.text]
        case "both":
            return kept


def _in_lycoris(module: ModelLayer, model: Model) -> ModelLayer:
    """Return the layer with the name that LyCORIS gives it."""
    for encoder in model.text_encoders:
        if encoder.lycoris_prefix and module.name.startswith(f"{encoder.prefix}_"):
            return replace(module, name=encoder.lycoris_prefix + module.name.removeprefix(encoder.prefix))
    return module


@dataclass(frozen=True, slots=True)
class _Training:
    """A training, equal to others of the same network and model."""

    decisive: str
    recipe: Recipe = field(compare=False)
    model: Model = field(compare=False)


def _training(recipe: Recipe, model: Model) -> _Training:
    training = recipe.training
    network = [recipe.network.model_dump_json(), training.train, training.text_encoders, training.save_precision]
    return _Training(json.dumps([*network, recipe.base.architecture, model.key()]), recipe, model)


def predict(recipe: Recipe, model: Model) -> Predicted | None:
    """Return the predicted file of a training, or None without a formula."""
    return _predict(_training(recipe, model))


def unfit(recipe: Recipe, model: Model) -> ModelLayer | None:
    """Return a layer that the family does not fit, or None.

    BOFT splits channels into blocks times a power of two.
    """
    return _unfit(_training(recipe, model))


@functools.cache
def _predict(training: _Training) -> Predicted | None:
    recipe, network = training.recipe, training.recipe.network
    if any(network.args.get(name) for name in _UNPREDICTED):
        return None
    if training.model.blocks_only and network.preset is not None and network.preset.unet_target_name:
        return None
    chosen = modules(recipe, training.model)
    values = 0
    for module in chosen:
        shapes = of_layer(recipe, module)
        if shapes is None:
            return None
        values += sum(math.prod(shape) for shape in shapes.values())
    text = sum(module.text for module in chosen)
    size = _BYTES[recipe.training.save_precision]
    return Predicted(values * size, len(chosen), text, len(chosen) - text)


@functools.cache
def _unfit(training: _Training) -> ModelLayer | None:
    chosen = modules(training.recipe, training.model)
    return next((module for module in chosen if of_layer(training.recipe, module) is None), None)


def of_layer(recipe: Recipe, module: ModelLayer) -> Shapes | None:
    """Return a layer's tensors at its rank in the recipe, None if unfit."""
    network = recipe.network
    rank = layer_ranks.ranks(recipe)(module)
    return module_shapes.of(network if rank == network.dim else network.model_copy(update={"dim": rank}), module)
