"""The embedded renderer, with the arguments of sd-scripts' gen_img.py.

It draws one image per prompt line. Networks of any LoRA family are baked into the weights, so ``--network_module`` has no
effect. Exit codes: 0 all images are written, 2 wrong arguments, prompts or files, 3 missing model, 130 interrupted.
"""

from __future__ import annotations

import argparse
import random
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from PIL.PngImagePlugin import PngInfo
from tqdm import tqdm  # type: ignore[import-untyped]

from orchestrator.engines.embedded.trainer import exit_codes, prompts, threads
from orchestrator.errors import Problem, RecipeError
from orchestrator.system.files import draft

threads.prepare()

from orchestrator.engines.embedded.trainer import model, sampling  # noqa: E402 - they import torch
from orchestrator.engines.embedded.trainer.lora_baking import BakedModel  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL import Image

    from orchestrator.engines.embedded.trainer.prompts import PromptLine

SWITCHES = {
    "v1": "the model is Stable Diffusion 1.x",
    "fp16": "computes in float32",
    "bf16": "computes in float32",
    "sdpa": "attention is PyTorch's own",
    "xformers": "attention is PyTorch's own",
    "no_half_vae": "the VAE always computes in float32",
    "network_merge": "networks are always baked into the weights",
}
VALUES = {
    "network_module": "every LoRA family is recognized by its keys",
    "network_args": "the file holds all settings",
    "max_embeddings_multiples": "75 tokens, the model's own length",
    "tokenizer_cache_dir": "the tokenizer comes with the model folder",
}


def parser() -> argparse.ArgumentParser:
    """Return the renderer's argument parser."""
    result = argparse.ArgumentParser(
        prog="python -m orchestrator.engines.embedded.trainer.gen_img",
        description="Draw images from prompt lines.",
        allow_abbrev=False,
    )
    result.add_argument("--ckpt", required=True, help="model folder in Diffusers layout")
    result.add_argument("--vae", help="another VAE: a folder in Diffusers layout")
    result.add_argument("--outdir", required=True)
    source = result.add_mutually_exclusive_group(required=True)
    source.add_argument("--from_file", help="file of prompt lines")
    source.add_argument("--prompt", help="one prompt line")
    result.add_argument("--W", type=int, default=512)
    result.add_argument("--H", type=int, default=512)
    result.add_argument("--steps", type=int, default=50)
    result.add_argument("--scale", type=float, default=7.5)
    result.add_argument("--sampler", default="ddim")
    result.add_argument("--seed", type=int, help="seed of the first line without --d; later lines count up")
    result.add_argument("--clip_skip", type=int)
    result.add_argument("--batch_size", type=int, default=1)
    result.add_argument("--network_weights", nargs="*", default=[])
    result.add_argument("--network_mul", nargs="*", type=float, default=[])
    result.add_argument("--sequential_file_name", action="store_true")
    accepted = result.add_argument_group("accepted, without effect here")
    for name, here in SWITCHES.items():
        accepted.add_argument(f"--{name}", action="store_true", help=here)
    for name, here in VALUES.items():
        accepted.add_argument(f"--{name}", nargs="*", help=here)
    return result


def main(argv: Sequence[str]) -> int:
    """Draw with these arguments and return the exit code."""
    args = parser().parse_args(list(argv))
    return exit_codes.code(lambda: run(args, _lines(args)))


def run(args: argparse.Namespace, lines: Sequence[PromptLine]) -> None:
    """Draw all lines into ``--outdir``.

    Every file is written whole or not at all.
    """
    threads.apply()
    for line in lines:
        sampling.check_sampler(line.sampler)
    for name in (name for name in (*SWITCHES, *VALUES) if getattr(args, name)):
        print(f"--{name}: {(SWITCHES | VALUES)[name]}", file=sys.stderr, flush=True)
    base = model.load(Path(args.ckpt), Path(args.vae) if args.vae else None)
    print(f"device: {base.device.type}", flush=True)
    baked = BakedModel(base, [Path(file) for file in args.network_weights])
    for file, network in zip(args.network_weights, baked.deltas, strict=True):
        print(f"import network: {file} ({len(network)} changes)", flush=True)
    folder = Path(args.outdir)
    folder.mkdir(parents=True, exist_ok=True)
    default = tuple(args.network_mul)
    stamp = f"{datetime.now().astimezone():%Y%m%d%H%M%S}"
    with tqdm(total=len(lines), desc="generating") as bar:
        number = 0
        for multipliers, members in _by_multipliers(lines, default):
            baked.set(multipliers)
            for line, image in sampling.draw(base, members, args.clip_skip, args.batch_size):
                number += 1
                name = line.file or (
                    f"im_{number:06d}.png" if args.sequential_file_name else f"im_{stamp}_{number - 1:03d}_{line.seed}.png"
                )
                _save(image, folder / name, parameters(line, args, multipliers))
                bar.update(1)
    print("done!", flush=True)


def parameters(line: PromptLine, args: argparse.Namespace, multipliers: Sequence[float]) -> str:
    """Return the settings of an image for a PNG's ``parameters``.

    Web UIs read them back in this form.
    """
    settings = [
        f"Steps: {line.steps}",
        f"Sampler: {sampling.SAMPLERS[line.sampler][2]}",
        f"CFG scale: {line.scale:g}",
        f"Seed: {line.seed}",
        f"Size: {line.width}x{line.height}",
        f"Model: {Path(args.ckpt).name}",
    ]
    if args.clip_skip:
        settings.append(f"Clip skip: {args.clip_skip}")
    networks = zip(args.network_weights, multipliers, strict=True)
    prompt = line.prompt + "".join(f" <lora:{Path(file).stem}:{multiplier:g}>" for file, multiplier in networks)
    negative = [f"Negative prompt: {line.negative}"] if line.negative else []
    return "\n".join([prompt, *negative, ", ".join(settings)])


def _lines(args: argparse.Namespace) -> tuple[PromptLine, ...]:
    problems: list[Problem] = []
    if args.batch_size < 1 or args.steps < 1:
        problems.append(Problem("--batch_size/--steps", "must be at least 1"))
    count = len(args.network_weights)
    if args.network_mul and len(args.network_mul) != count:
        problems.append(Problem("--network_mul", f"{len(args.network_mul)} multipliers for {count} networks"))
    if problems:
        raise RecipeError(problems)
    args.network_mul = args.network_mul or [1.0] * count
    seed = random.SystemRandom().randrange(2**32) if args.seed is None else args.seed
    defaults = prompts.PromptDefaults(args.W, args.H, args.steps, args.scale, args.sampler, seed)
    if args.from_file:
        lines = prompts.read(Path(args.from_file), defaults)
    else:
        try:
            lines = (prompts.parse(args.prompt, defaults),)
        except ValueError as error:
            raise RecipeError(Problem("--prompt", str(error))) from error
    problems += [
        Problem(f"--am of {line.prompt!r}", f"{len(line.multipliers)} multipliers for {count} networks")
        for line in lines
        if line.multipliers is not None and len(line.multipliers) != count
    ]
    names = [line.file for line in lines if line.file]
    problems += [Problem(f"--f {name}", "two lines write this file") for name in sorted(set(names)) if names.count(name) > 1]
    if problems:
        raise RecipeError(problems)
    return lines


def _by_multipliers(
    lines: Sequence[PromptLine], default: tuple[float, ...]
) -> list[tuple[tuple[float, ...], list[PromptLine]]]:
    """Group lines by their multipliers, in order of first appearance.

    This way weights rarely change.
    """
    result: dict[tuple[float, ...], list[PromptLine]] = {}
    for line in lines:
        result.setdefault(line.multipliers if line.multipliers is not None else default, []).append(line)
    return list(result.items())


def _save(image: Image.Image, path: Path, text: str) -> None:
    info = PngInfo()
    info.add_text("parameters", text)
    with draft(path) as part:
        image.save(part, format="PNG", pnginfo=info)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
