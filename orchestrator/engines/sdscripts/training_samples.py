"""Images that the trainer draws during a training.

Their prompt file, and settings that the trainer ignores or rejects.

Source: line_to_prompt_dict of library/train_util.py, and sample_image_inference of each trainer, sd-scripts v0.10.1.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from orchestrator.engines.sdscripts import gen_img, network_args
from orchestrator.models.registry import ARCHITECTURES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.recipe import Recipe
    from orchestrator.recipe.base import Conflict

_EVERY = "training.sample_every_n_steps"
_OPTION = re.compile(r"(?:[whds] \d|[lg] [\d.]|(?:n|ss|cn|ctr|rcfg|fs) .)", re.IGNORECASE)
"""A beginning of a prompt that the trainer reads as an option, though "--" is missing."""


def prompts(recipe: Recipe) -> str:
    """Return the text of --sample_prompts, one line per prompt."""
    sample_line = ARCHITECTURES[recipe.base.architecture].sample_line
    values = {letters: getattr(recipe.render, key) for key, letters in sample_line.items()}
    further = "".join(f" --{letters} {network_args.text(value)}" for letters, value in values.items() if value is not None)
    return "".join(f"{line}{further}\n" for line in gen_img.lines(recipe, names=False).splitlines())


def problems(recipe: Recipe) -> Iterator[Conflict]:
    """Yield (dotted key, problem) of settings that the trainer misuses."""
    entry, render = ARCHITECTURES[recipe.base.architecture], recipe.render
    if recipe.training.sample_every_n_steps is None:
        return
    if not render.prompts:
        yield _EVERY, "needs render.prompts: without them nothing is drawn; leave it out, or add a prompt"
        return
    if entry.samples_need_autocast and recipe.training.mixed_precision == "no":
        yield _EVERY, f'stops the training of {entry.title} at mixed_precision = "no": it draws in bf16; leave one of them out'
    renderer = entry.renderer
    for key in ("guidance", "flow_shift"):
        taken = key in {**renderer.line, **renderer.arguments}  # else it is refused for every image
        if taken and getattr(render, key) is not None and key not in entry.sample_line:
            yield f"render.{key}", f"images during the training of {entry.title} ignore it; leave it or {_EVERY} out"
    seeds = {"render.seed": render.seed} if any(prompt.seed is None for prompt in render.prompts.values()) else {}
    seeds |= {f"render.prompts.{name}.seed": each.seed for name, each in render.prompts.items() if each.seed is not None}
    for key, seed in seeds.items():
        if seed < entry.least_sample_seed:
            yield key, f"is {seed}; the trainer of {entry.title} draws from {entry.least_sample_seed} on ({_EVERY})"
    for name, line in zip(render.prompts, gen_img.lines(recipe, names=False).splitlines(), strict=True):
        if _OPTION.match(line):
            yield f"render.prompts.{name}.prompt", f"begins with {line[:6]!r}, which the trainer reads as an option ({_EVERY})"
