"""Ranks of single layers, where a recipe chooses layers or ranks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.models import layer_choice, registry

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.models.layers import ModelLayer
    from orchestrator.recipe import Recipe


def text_arguments(recipe: Recipe) -> dict[str, bool]:
    """Return the network arguments of the text encoders that the recipe names."""
    named = recipe.training.text_encoders or ()
    encoders = registry.ARCHITECTURES[recipe.base.architecture].model.text_encoders
    return {encoder.argument: True for encoder in encoders if encoder.argument and encoder.name in named}


def arguments(recipe: Recipe) -> tuple[dict[str, str], dict[str, int]]:
    """Return arguments and patterns (pattern -> rank) of a recipe's layers.

    Unknown blocks are left out: a check of the recipe names them.
    """
    entry, network = registry.ARCHITECTURES[recipe.base.architecture], recipe.network
    chosen = known_blocks(network.blocks, entry.blocks)
    blocks, patterns = entry.layer_choice.arguments(chosen, entry.blocks) if chosen else ({}, {})
    return blocks, {**network.layer_dims, **patterns}


def known_blocks(texts: tuple[str, ...], all_blocks: tuple[str, ...]) -> frozenset[str]:
    """Return the blocks of a list, or none if it has an unknown one."""
    try:
        return layer_choice.expand(texts, all_blocks)
    except ValueError:
        return frozenset()


def included(recipe: Recipe) -> Callable[[ModelLayer], bool]:
    """Return whether a layer is trained although it is left out.

    ``network.include`` has precedence over ``network.exclude`` and over the layers that the network module leaves out.
    """
    choice = registry.ARCHITECTURES[recipe.base.architecture].layer_choice
    return lambda layer: any(choice.matches(pattern, layer) for pattern in recipe.network.include)


def ranks(recipe: Recipe) -> Callable[[ModelLayer], int]:
    """Return a function from layers to ranks. 0: the layer is not trained."""
    entry, network = registry.ARCHITECTURES[recipe.base.architecture], recipe.network
    choice = entry.layer_choice
    if network.family != "lora" or not (network.blocks or network.layer_dims or network.exclude or choice.dims):
        return lambda _: network.dim
    chosen, patterns, kept = known_blocks(network.blocks, entry.blocks), arguments(recipe)[1], included(recipe)

    def rank(layer: ModelLayer) -> int:
        if any(choice.matches(pattern, layer) for pattern in network.exclude) and not kept(layer):
            return 0
        for pattern, value in patterns.items():
            if choice.matches(pattern, layer):
                return value
        if layer.text:
            return network.dim
        block = entry.block_of(layer.name)
        if chosen and block is not None and block.rstrip("0123456789") in choice.block_arguments and block not in chosen:
            return 0
        typed = (network.args.get(name) for name, words in choice.dims.items() if all(word in layer.name for word in words))
        return next((int(value) for value in typed if value is not None), network.dim)

    return rank
