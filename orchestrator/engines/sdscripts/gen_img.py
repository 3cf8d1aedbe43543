"""Arguments and prompt files of gen_img.py.

The embedded renderer takes the same.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from orchestrator.engines.sdscripts import network_args
from orchestrator.errors import near_or_all
from orchestrator.models.registry import ARCHITECTURES
from orchestrator.models.renderer import SAMPLERS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from orchestrator.engines.protocol import RenderItem
    from orchestrator.recipe import Recipe
    from orchestrator.recipe.base import Conflict

SCRIPT, PROMPTS = "gen_img.py", "prompts.txt"
# Texts that a prompt file would read as something else: an option, a second line, dynamic-prompt syntax.
_SYNTAX: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"(^|\s)--"), '" --" begins an option of a prompt line'),
    (re.compile(r"[\r\n]"), "is more than one line"),
    (re.compile(r"\{.*\||\}"), "{a|b} is dynamic-prompt syntax of gen_img.py"),
    (re.compile(r"^\s*#"), "# begins a comment"),
)


def problems(recipe: Recipe) -> Iterator[Conflict]:
    """Yield (dotted key, problem) for prompts and samplers.

    The programs would misread them.
    """
    if recipe.render.sampler not in SAMPLERS:
        yield "render.sampler", f'is "{recipe.render.sampler}"{near_or_all(recipe.render.sampler, SAMPLERS)}'
    texts = {"render.negative": recipe.render.negative}
    for name, drawn in recipe.drawn_prompts().items():
        texts[f"render.prompts.{name}.prompt"] = drawn.text
        texts[f"render.prompts.{name}.negative"] = recipe.render.prompts[name].negative or ""
    for where, text in texts.items():
        for pattern, why in _SYNTAX:
            if pattern.search(text):
                yield where, why
    scale = recipe.render.scale
    if scale < 1:
        yield "render.scale", f"is {scale}, which {SCRIPT} draws as 1, without guidance; set 1"
    for where, text in texts.items():
        if where.endswith("negative") and text and scale == 1 and recipe.render.prompts:
            yield where, f'has no effect at render.scale = 1; leave it out: unset = ["{where}"]'
    for key in ("guidance", "flow_shift"):
        if getattr(recipe.render, key) is not None:
            yield f"render.{key}", f"{SCRIPT} has no such setting; leave it out"


def lines(recipe: Recipe, *, names: bool, prefix: str = "", multipliers: Sequence[float] = ()) -> str:
    """Return a prompt file: one line per prompt, with all its options.

    Without ``--d`` in each line, ``--seed`` only seeds a generator of seeds (gen_img.py 2339-2347).

    Args:
        recipe: its ``render`` table is used.
        names: add ``--f PROMPT.png`` (gen_img.py; the trainer names its samples itself).
        prefix: text before PROMPT.png.
        multipliers: of the networks in their order; empty: those of the command.
    """
    render, result = recipe.render, []
    for name, drawn in recipe.drawn_prompts().items():
        line = drawn.text + (f" --n {drawn.negative}" if drawn.negative else "")
        line += f" --w {drawn.width} --h {drawn.height} --d {drawn.seed}"
        line += f" --s {render.steps} --l {network_args.text(render.scale)}"
        line += f" --am {','.join(network_args.text(multiplier) for multiplier in multipliers)}" if multipliers else ""
        result.append(line + (f" --f {prefix}{name}.png" if names else ""))
    return "\n".join(result) + "\n"


def lines_together(items: Sequence[RenderItem]) -> str:
    """Return one prompt file of several items, each with its LoRA alone.

    Images are NNN-PROMPT.png by the position of the item.
    """
    files = loras(items)
    texts = []
    for number, item in enumerate(items):
        multipliers = [item.recipe.render.multiplier if file == item.lora else 0.0 for file in files]
        texts.append(lines(item.recipe, names=True, prefix=prefix(number), multipliers=multipliers))
    return "".join(texts)


def prefix(number: int) -> str:
    """Return the beginning of the image names of an item."""
    return f"{number:03d}-"


def loras(items: Sequence[RenderItem]) -> list[Path]:
    """Return the LoRA files of items, each once."""
    return list(dict.fromkeys(item.lora for item in items if item.lora is not None))


def settings(recipe: Recipe) -> tuple[object, ...]:
    """Return the settings that all images of one process share."""
    shared = recipe.render.model_dump_json(include={"sampler", "batch_size", "precision", "options"})
    trained = ARCHITECTURES[recipe.base.architecture].renderer.trained
    return shared, *(recipe.training.options.get(name) for name in trained)


def arguments(recipe: Recipe, checkpoint: Path, vae: Path | None, loras: Sequence[Path], work: Path) -> list[str]:
    """Return the arguments of gen_img.py.

    Args:
        recipe: its ``render`` table is used.
        checkpoint: the base model, or one with the LoRA baked in.
        vae: a separate VAE, or None.
        loras: files that networks.lora can read, none when it is baked in.
        work: folder with the prompt file; receives PROMPT.png.
    """
    render, work = recipe.render, work.absolute()
    # Without --v1 the program guesses the kind of model by the file's size.
    entry = ARCHITECTURES[recipe.base.architecture]
    argv = ["--ckpt", str(checkpoint), *entry.renderer.switches]
    argv += ["--vae", str(vae)] if vae is not None else []
    argv += ["--outdir", str(work), "--from_file", str(work / PROMPTS), "--W", str(render.width), "--H", str(render.height)]
    argv += ["--steps", str(render.steps), "--scale", network_args.text(render.scale), "--sampler", render.sampler]
    argv += ["--batch_size", str(render.batch_size), "--seed", str(render.seed)]
    argv += ["--clip_skip", str(recipe.base.clip_skip)] if not entry.fixed_clip_skip else []
    argv += ["--max_embeddings_multiples", "3", "--sdpa"]
    argv += [f"--{render.precision}"] if render.precision != "no" else []
    argv += [f"--{name}" for name in entry.renderer.trained if recipe.training.options.get(name)]
    if loras:
        argv += ["--network_module", *["networks.lora"] * len(loras), "--network_weights", *map(str, loras)]
        argv += ["--network_mul", *[network_args.text(render.multiplier)] * len(loras)]
    for name, value in render.options.items():
        argv += network_args.option(name, value)
    return argv
