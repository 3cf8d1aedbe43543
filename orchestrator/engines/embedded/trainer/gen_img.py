"""The embedded renderer: a program with the arguments of sd-scripts' gen_img.py.

One picture per prompt line; networks of any LoRA family are baked into the weights (so ``--network_module`` is taken, and
nothing depends on it). Exit codes: 0 all pictures are there; 2 wrong arguments, prompts or files; 3 no such model; 130.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.engines.embedded.trainer import exit_codes, prompts, threads
from orchestrator.errors import Problem, RecipeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.engines.embedded.trainer.prompts import Line

# What a process that forks for every step imports beforehand.
PRELOAD = ("orchestrator.engines.embedded.trainer.preload",)
SWITCHES = {
    "v1": "the model is a Stable Diffusion 1.x anyway",
    "fp16": "computes in float32",
    "bf16": "computes in float32",
    "sdpa": "attention is PyTorch's own anyway",
    "xformers": "attention is PyTorch's own anyway",
    "no_half_vae": "the VAE computes in float32 anyway",
    "network_merge": "networks are always baked into the weights",
}
VALUES = {
    "network_module": "every family is recognized by its keys",
    "network_args": "everything is in the file",
    "max_embeddings_multiples": "75 tokens, the model's own length",
    "tokenizer_cache_dir": "the tokenizer comes with the model folder",
}


def parser() -> argparse.ArgumentParser:
    """The renderer's argument parser."""
    result = argparse.ArgumentParser(
        prog="python -m orchestrator.engines.embedded.trainer.gen_img",
        description="Draw pictures from prompt lines.",
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
    result.add_argument("--seed", type=int, help="for lines without --d: this number, then counting up")
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
    """Draw with these arguments; the exit code. Torch is imported here, not before."""
    args = parser().parse_args(list(argv))
    return exit_codes.code(lambda: run(args, _lines(args)))


def run(args: argparse.Namespace, lines: Sequence[Line]) -> None:
    """Draw all lines into ``--outdir``; every file appears by rename, whole."""
    threads.prepare()
    from tqdm import tqdm  # type: ignore[import-untyped]  # noqa: PLC0415

    from orchestrator.engines.embedded.trainer import model, sampling  # noqa: PLC0415
    from orchestrator.engines.embedded.trainer.lora_baking import Baked  # noqa: PLC0415

    threads.apply()
    for line in lines:
        sampling.check_sampler(line.sampler)
    for name in (name for name in (*SWITCHES, *VALUES) if getattr(args, name)):
        print(f"--{name}: {(SWITCHES | VALUES)[name]}", file=sys.stderr, flush=True)
    base = model.load(Path(args.ckpt), Path(args.vae) if args.vae else None)
    print(f"device: {base.device.type}", flush=True)
    baked = Baked(base, [Path(file) for file in args.network_weights])
    for file, network in zip(args.network_weights, baked.deltas, strict=True):
        print(f"import network: {file} ({len(network)} changes)", flush=True)
    folder = Path(args.outdir)
    folder.mkdir(parents=True, exist_ok=True)
    default = tuple(args.network_mul)
    stamp = f"{datetime.now().astimezone():%Y%m%d%H%M%S}"
    with tqdm(total=len(lines), desc="generating") as bar:
        number = 0
        for multipliers, same in _by_multipliers(lines, default):
            baked.set(multipliers)
            for line, image in sampling.draw(base, same, args.clip_skip, args.batch_size):
                number += 1
                name = line.file or (
                    f"im_{number:06d}.png" if args.sequential_file_name else f"im_{stamp}_{number - 1:03d}_{line.seed}.png"
                )
                _save(image, folder / name, parameters(line, args, multipliers))
                bar.update(1)
    print("done!", flush=True)


def parameters(line: Line, args: argparse.Namespace, multipliers: Sequence[float]) -> str:
    """How a picture was made, in the form that web UIs read back from a PNG's ``parameters``."""
    from orchestrator.engines.embedded.trainer.sampling import SAMPLERS  # noqa: PLC0415

    facts = [
        f"Steps: {line.steps}",
        f"Sampler: {SAMPLERS[line.sampler][2]}",
        f"CFG scale: {line.scale:g}",
        f"Seed: {line.seed}",
        f"Size: {line.width}x{line.height}",
        f"Model: {Path(args.ckpt).name}",
    ]
    if args.clip_skip:
        facts.append(f"Clip skip: {args.clip_skip}")
    networks = zip(args.network_weights, multipliers, strict=True)
    prompt = line.prompt + "".join(f" <lora:{Path(file).stem}:{multiplier:g}>" for file, multiplier in networks)
    negative = [f"Negative prompt: {line.negative}"] if line.negative else []
    return "\n".join([prompt, *negative, ", ".join(facts)])


def _lines(args: argparse.Namespace) -> tuple[Line, ...]:
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
    defaults = prompts.Defaults(args.W, args.H, args.steps, args.scale, args.sampler, seed)
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


def _by_multipliers(lines: Sequence[Line], default: tuple[float, ...]) -> list[tuple[tuple[float, ...], list[Line]]]:
    """Lines by the multipliers they are drawn at, in order of first appearance: weights are changed as rarely as possible."""
    result: dict[tuple[float, ...], list[Line]] = {}
    for line in lines:
        result.setdefault(line.multipliers if line.multipliers is not None else default, []).append(line)
    return list(result.items())


def _save(image: Any, path: Path, text: str) -> None:
    from PIL.PngImagePlugin import PngInfo  # noqa: PLC0415

    info = PngInfo()
    info.add_text("parameters", text)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    image.save(part, format="PNG", pnginfo=info)
    part.replace(path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
