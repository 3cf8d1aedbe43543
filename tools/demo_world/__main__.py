"""Draw the demo's images, train its base model, and measure its LoRAs."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import fields
from pathlib import Path

from orchestrator.engines.embedded import EMBEDDED_BASE
from orchestrator.errors import OrchestratorError


def _data(options: argparse.Namespace) -> None:
    from tools.demo_world.demo import write_images  # noqa: PLC0415 - a verb imports only what it uses

    print(f"{write_images(options.out, options.size)} images in {options.out}")


def _base(options: argparse.Namespace) -> None:
    from tools.demo_world.make_base import BaseTraining, make_base  # noqa: PLC0415 - torch

    training = BaseTraining(options.seed, options.minutes, options.pictures, options.start)
    make_base(training, options.out, options.work, options.threads)
    print(f"base model in {options.out}")


def _names(options: argparse.Namespace) -> None:
    from tools.demo_world.make_base import BaseTraining, teach_names  # noqa: PLC0415 - torch

    training = BaseTraining(options.seed, options.minutes, options.pictures)
    teach_names(options.base, training, options.work, options.threads)
    print(f"text encoder in {options.base}")


def _probe(options: argparse.Namespace) -> None:
    from PIL import Image  # noqa: PLC0415

    from tools.demo_world.attribute_reader import read  # noqa: PLC0415
    from tools.demo_world.attributes import parse_view  # noqa: PLC0415

    view = parse_view(options.view or options.file.stem)
    with Image.open(options.file) as image:
        reading = read(image, view)
    print(f"view {reading.view.name}, {len(reading.characters)} character(s)")
    for character in reading.characters:
        print("  " + ", ".join(f"{field.name}: {getattr(character, field.name)}" for field in fields(character)))


def _bench(options: argparse.Namespace) -> None:
    from tools.demo_world import bench_rows  # noqa: PLC0415

    files = bench_rows.in_folder(options.folder) if options.folder else bench_rows.of_project(options.recipes)
    settings = bench_rows.BenchSettings(options.base, options.seeds, options.clip_skip)
    print(bench_rows.header())
    missed = 0
    for row in bench_rows.table(files, settings, os.cpu_count() or 1):
        print(bench_rows.line(row), flush=True)
        missed += row.kept is False
    print(f"\n{missed} promises missed" if missed else "\nevery promise kept")
    if not options.folder and not options.recipes:
        print()
        _own(options)
        print()
        _select(options)


def _own(options: argparse.Namespace) -> None:
    from tools.demo_world import own_proof  # noqa: PLC0415

    print(own_proof.header())
    for row in own_proof.prove(options.base, options.seeds, Path("build/own_subjects").absolute()):
        print(own_proof.line(row), flush=True)


def _select(options: argparse.Namespace) -> None:
    from tools.demo_world import select_proof  # noqa: PLC0415

    print(select_proof.header())
    proved = list(select_proof.prove(options.base, options.seeds, lambda line: print(line, flush=True)))
    print("\n" + "\n".join(select_proof.summary(proved)))


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.demo_world", description=__doc__)
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    data = verbs.add_parser("data", help="draw the images of the demo characters")
    data.add_argument("--out", type=Path, default=Path("data"))
    data.add_argument("--size", type=int, default=768)
    data.set_defaults(call=_data)
    base = verbs.add_parser("base", help="train the small base model")
    base.add_argument("--out", type=Path, required=True)
    base.add_argument("--seed", type=int, default=2026)
    base.add_argument("--minutes", type=float, default=85.0)
    base.add_argument("--start", type=Path, metavar="FOLDER", help="continue from this base; its VAE stays as it is")
    base.add_argument("--pictures", type=int, default=15_000)
    base.add_argument("--threads", type=int, default=2)
    base.add_argument("--work", type=Path, default=Path("build/world"), help="intermediate weights, about 200 MB")
    base.set_defaults(call=_base)
    names = verbs.add_parser("names", help="the last stage of `base` alone: unknown names do not fix the appearance")
    names.add_argument("--base", type=Path, required=True)
    names.add_argument("--seed", type=int, default=2026)
    names.add_argument("--minutes", type=float, default=8.5)
    names.add_argument("--pictures", type=int, default=15_000, help="scenes to caption")
    names.add_argument("--threads", type=int, default=2)
    names.add_argument("--work", type=Path, default=Path("build/world"))
    names.set_defaults(call=_names)
    probe = verbs.add_parser("probe", help="read the attributes in an image")
    probe.add_argument("file", type=Path)
    probe.add_argument("--view", help="as in a file name, for example f00; default: the file's name")
    probe.set_defaults(call=_probe)
    bench = verbs.add_parser("bench", help="measure the LoRA files that `make demo` has trained")
    bench.add_argument("recipes", nargs="*", metavar="RECIPE", help="default: all of the demo")
    bench.add_argument("--folder", type=Path, help="measure files SUBJECT-ALGORITHM.safetensors below a folder instead")
    bench.add_argument("--base", type=Path, default=EMBEDDED_BASE)
    bench.add_argument("--seeds", type=int, default=32, help="images per row")
    bench.add_argument("--clip-skip", type=int, default=1)
    bench.set_defaults(call=_bench)
    own = verbs.add_parser("own", help="the part of `bench` about characters of your own: train three, read their colours")
    own.add_argument("--base", type=Path, default=EMBEDDED_BASE)
    own.add_argument("--seeds", type=int, default=32, help="images per row")
    own.set_defaults(call=_own)
    select = verbs.add_parser("select", help="the part of `bench` about select: train at several rates, compare the proposals")
    select.add_argument("--base", type=Path, default=EMBEDDED_BASE)
    select.add_argument("--seeds", type=int, default=16, help="images per rate")
    select.set_defaults(call=_select)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run one verb and return the exit code."""
    options = _arguments().parse_args(arguments)
    try:
        options.call(options)
    except OrchestratorError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
