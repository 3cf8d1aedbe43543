"""Commands of sd-scripts' programs that draw one architecture.

Each script is described by its architecture's ``Renderer``. ``draw_prompts`` runs it, in sd-scripts' Python.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from orchestrator.engines.sdscripts import draw_prompts, launch, network_args, typed_options
from orchestrator.models.registry import ARCHITECTURES
from orchestrator.system import settings
from orchestrator.system.process import Command

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from orchestrator.models.renderer import Renderer
    from orchestrator.recipe import DrawnPrompt, Recipe
    from orchestrator.recipe.base import Conflict

REQUEST, PROMPTS, TEMPORARY = "draw.json", "prompts.txt", "drawing"


def command(recipe: Recipe, models: Mapping[str, Path], lora: Path | None, work: Path) -> Command:
    """Return the command that draws the recipe's prompts.

    Args:
        recipe: its ``render`` table is used.
        models: model files by their key.
        lora: a file that the script reads, or None where it is baked in.
        work: folder that receives PROMPT.png.
    """
    entry, work = ARCHITECTURES[recipe.base.architecture], work.absolute()
    renderer, typed = entry.renderer, lines(recipe)
    request = {
        "names": list(recipe.render.prompts),
        "lines": typed,
        "dialog": renderer.dialog,
        "last_line": renderer.last_line,
        "temporary": str(work / TEMPORARY),
        "tokenizers": {"folder": str(settings.tokenizers()), "names": list(entry.tokenizers)},
    }
    files = {REQUEST: json.dumps(request, indent=1, ensure_ascii=False), PROMPTS: "\n".join(typed) + "\n"}
    script = str(settings.sd_scripts() / renderer.script)
    argv = (str(settings.sd_scripts_python()), draw_prompts.__file__, str(work / REQUEST), script)
    environment = launch.environment(settings.tokenizers(), entry.tokenizers)
    return Command((*argv, *arguments(recipe, models, lora, work)), work, environment, files)


def arguments(recipe: Recipe, models: Mapping[str, Path], lora: Path | None, work: Path) -> list[str]:
    """Return the arguments of the script (see ``command``)."""
    renderer, render = ARCHITECTURES[recipe.base.architecture].renderer, recipe.render
    argv = [*renderer.switches]
    for key, name in renderer.models.items():
        argv += [f"--{name}", str(models[key])] if key in models else []
    if lora is not None:
        multiplier = network_args.text(render.multiplier)
        argv += [f"--{renderer.lora}", str(lora) if renderer.multiplier else f"{lora};{multiplier}"]
        argv += [f"--{renderer.multiplier}", multiplier] if renderer.multiplier else []
    argv += renderer.precisions.get(render.precision, ())
    for key, name in renderer.arguments.items():
        value = getattr(render, key)
        argv += [f"--{name}", network_args.text(value)] if value is not None else []
    training = typed_options.of(recipe) | recipe.training.options
    for name in renderer.trained:
        if (trained := training.get(name)) is not None and name not in render.options:
            argv += network_args.option(name, trained)
    for name, further in render.options.items():
        argv += network_args.option(name, further)
    argv += ["--interactive"] if renderer.dialog else ["--from_file", str(work / PROMPTS)]
    return [*argv, f"--{renderer.output}", str(work / TEMPORARY / "images")]


def lines(recipe: Recipe) -> list[str]:
    """Return the prompt lines, each with all its options."""
    return [_line(recipe, drawn) for drawn in recipe.drawn_prompts().values()]


def _line(recipe: Recipe, drawn: DrawnPrompt) -> str:
    renderer, render = ARCHITECTURES[recipe.base.architecture].renderer, recipe.render
    line = _escaped(renderer, drawn.text)
    line += f" --n {_escaped(renderer, drawn.negative)}" if drawn.negative else ""
    line += f" --w {drawn.width} --h {drawn.height} --d {drawn.seed} --s {render.steps}"
    for key, letters in renderer.line.items():
        value = getattr(render, key)
        line += f" --{letters} {network_args.text(value)}" if value is not None else ""
    return line


def _escaped(renderer: Renderer, text: str) -> str:
    return text.encode("unicode_escape").decode("ascii") if renderer.unescapes else text


def problems(recipe: Recipe) -> Iterator[Conflict]:
    """Yield (dotted key, problem) of values that the script lacks or misreads.

    Nothing is drawn without prompts, and nothing is wrong.
    """
    entry, render = ARCHITECTURES[recipe.base.architecture], recipe.render
    renderer, script = entry.renderer, entry.renderer.script
    if not render.prompts:
        return
    if render.sampler not in renderer.samplers:
        yield "render.sampler", f'is "{render.sampler}"; {script} has {" or ".join(renderer.samplers)} only'
    if render.precision not in renderer.precisions:
        yield "render.precision", f'is "{render.precision}"; {script} draws in {" or ".join(renderer.precisions)}'
    if render.batch_size != 1:
        yield "render.batch_size", f"is {render.batch_size}; {script} draws one image at a time"
    for key in ("guidance", "flow_shift"):
        if getattr(render, key) is not None and key not in {**renderer.line, **renderer.arguments}:
            yield f"render.{key}", f"{script} has no such setting for {entry.title}; leave it out"
    if recipe.base.vae and "vae" not in renderer.models:
        what = f"{script} draws with the VAE of the checkpoint only; leave it out, or draw in another program"
        yield "base.vae", f'{what}: unset = ["render.prompts"]'
    for name, reason in renderer.without_use.items():
        if render.options.get(name):
            yield f"render.options.{name}", f"has no use: {reason}; leave it out"
    key, saved = ("training", recipe.training.save_precision)
    if recipe.resize is not None:
        key, saved = ("resize", recipe.resize.save_precision)
    if render.options.get("fp8_scaled") and renderer.merges and "fp8_scaled" not in renderer.without_use and saved != "bf16":
        # Merged into bf16 weights another type gives float32 ones, which the patched layers multiply by bf16.
        yield "render.options.fp8_scaled", f'takes a LoRA in bf16 only; set {key}.save_precision = "bf16", which is "{saved}"'
    for where, side in render.sides().items():
        if side % renderer.side_step:
            yield where, f"is {side}; {script} draws sides that are multiples of {renderer.side_step}"
    yield from _texts(recipe, renderer)


def _texts(recipe: Recipe, renderer: Renderer) -> Iterator[Conflict]:
    """Yield misread prompts, and negative prompts without effect."""
    mark = re.compile("--" if renderer.dialog else r"(^|\s)--")
    for name, drawn in recipe.drawn_prompts().items():
        key, negative = f"render.prompts.{name}", drawn.negative
        where = f"{key}.negative" if recipe.render.prompts[name].negative is not None else "render.negative"
        for location, text in ((f"{key}.prompt", drawn.text), (where, negative)):
            if mark.search(text):
                yield location, '"--" begins an option of a prompt line'
            if re.search(r"[\r\n]", text):
                yield location, "is more than one line"
            if text.lstrip().startswith("#"):
                yield location, "# begins a comment"
        if negative and recipe.render.scale == 1:
            yield where, f'has no effect at render.scale = 1; leave it out: unset = ["{where}"]'
        if not negative and recipe.render.scale != 1 and renderer.scale_needs_negative:
            yield "render.scale", f"is {recipe.render.scale}, which {renderer.script} takes with a negative prompt only; set 1"
