"""The benchmark table of the demo's LoRAs, each row with a limit.

Rows measure attributes, leaks, block weights and compression.
"""

from __future__ import annotations

import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from orchestrator.engines.embedded.trainer import model as models
from orchestrator.engines.embedded.trainer.lora_baking import BakedModel
from orchestrator.errors import NotReady, Problem
from orchestrator.plan.step import StepKind
from orchestrator.run.workspace import Selection, Workspace
from orchestrator.weights.merge import merge
from orchestrator.weights.options import MergeOptions, ResizeOptions
from orchestrator.weights.resize import resize
from tools.demo_world import vocabulary as words
from tools.demo_world.bench import (
    SUBJECTS,
    AttributeRates,
    BenchPrompt,
    BenchSubject,
    bench_prompts,
    images,
    measure,
    rates_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from PIL import Image

    from orchestrator.engines.embedded.trainer.model import DiffusionModel

APPEARANCE: Final = ("hair", "length", "eyes", "ears", "choker")
SHOWN: Final = 0.85  # of the images show each attribute of the subject
DRESSED: Final = 0.80  # of a body LoRA's images show the clothes
BOTH: Final = 0.60  # of a group's images show both characters
LEAK: Final = 0.15  # more than the base's own rate, in prompts without the trigger word
RATIOS: Final = (64.0, 32.0, 16.0, 8.0)
_UNTOUCHED: Final = 8  # images compared bit for bit


@dataclass(frozen=True, slots=True)
class BenchFile:
    """One LoRA file to measure, and the file before compression.

    ``whole`` is None if it is not compressed.
    """

    name: str
    released: Path
    whole: Path | None = None

    @property
    def subject(self) -> BenchSubject:
        """Return the subject of the file."""
        return SUBJECTS[self.name.partition("-")[0]]


@dataclass(frozen=True, slots=True)
class BenchSettings:
    """Base model, images per row, and layer of the text encoder."""

    base: Path
    count: int
    clip_skip: int


@dataclass(frozen=True, slots=True)
class BenchRow:
    """One row of the table.

    ``kept`` is None without a limit, ``note`` describes the limit.
    """

    label: str
    measured: AttributeRates
    kept: bool | None = None
    note: str = ""


def of_project(names: Sequence[str]) -> list[BenchFile]:
    """Return the files that the demo profile of this project has trained.

    Without ``names``, those of all recipes.

    Raises:
        NotReady: a recipe has no finished file.
    """
    space = Workspace()
    plan = space.plan(space.load(Selection(tuple(names) or ("all",), "demo")))
    files: list[BenchFile] = []
    missing: list[Problem] = []
    for name in (name for name in plan.recipes if name.partition("-")[0] in SUBJECTS):
        outputs = {step.kind: space.store.folder(step) / f"{name}.safetensors" for step in plan.of(name)}
        stages = [outputs[kind] for kind in (StepKind.TRAIN, StepKind.MERGE, StepKind.RESIZE) if kind in outputs]
        compressed = StepKind.RESIZE in outputs and StepKind.MERGE in outputs
        if stages[-1].is_file():
            files.append(BenchFile(name, stages[-1], outputs[StepKind.MERGE] if compressed else None))
        else:
            missing.append(Problem(name, "is not trained in the demo profile", f"make {name} PROFILE=demo, or make demo"))
    if missing:
        raise NotReady(missing)
    return files


def in_folder(folder: Path) -> list[BenchFile]:
    """Return the files SUBJECT-ALGORITHM.safetensors below a folder."""
    files = sorted(folder.rglob("*.safetensors"))
    return [BenchFile(file.stem, file) for file in files if file.stem.partition("-")[0] in SUBJECTS]


def table(files: Sequence[BenchFile], settings: BenchSettings, processes: int) -> Iterator[BenchRow]:
    """Measure every file, and yield its rows when they are complete."""
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        names = list(dict.fromkeys(file.name.partition("-")[0] for file in files))
        base_rows = dict(zip(names, pool.map(_of_base, names, [settings] * len(names)), strict=True))
        for name in names:
            yield from base_rows[name]
        jobs = [(file, settings, base_rows[file.name.partition("-")[0]]) for file in files]
        for rows in pool.map(_of_file, *zip(*jobs, strict=True)):
            yield from rows


def _of_base(name: str, settings: BenchSettings) -> tuple[BenchRow, BenchRow]:
    """Measure the base with the class word and with the trigger word.

    The class word gives chance. The trigger word is unknown to the base.
    """
    torch.set_num_threads(1)
    model, subject = models.load(settings.base), SUBJECTS[name]
    chance = measure(model, _prompts(_class_word(subject), subject, settings), subject, settings.clip_skip)
    trigger = measure(model, _prompts(subject.trigger, subject, settings), subject, settings.clip_skip)
    kept = _mean_rate(trigger) <= _mean_rate(chance) + LEAK
    return (
        BenchRow(f"{name}: no LoRA", chance),
        BenchRow(f"{name}: no LoRA, trigger", trigger, kept, "appearance at chance"),
    )


def _of_file(file: BenchFile, settings: BenchSettings, base_rows: tuple[BenchRow, BenchRow]) -> list[BenchRow]:
    """Measure all rows of one file."""
    torch.set_num_threads(1)
    model, subject = models.load(settings.base), file.subject
    baked = BakedModel(model, [file.released])
    triggered = _prompts(subject.trigger, subject, settings)
    baked.set((1.0,))
    full = measure(model, triggered, subject, settings.clip_skip)
    rows = [_full_weight(f"{file.name}: trigger", full, subject)]
    plain = measure(model, _prompts(_class_word(subject), subject, settings), subject, settings.clip_skip)
    chance = base_rows[0].measured.rates
    leaks = {name: plain.rates[name] - chance.get(name, 0.0) for name in APPEARANCE if name in plain.rates}
    worst = max(leaks, key=lambda name: leaks[name])
    note = f"at most {LEAK:.0%} over the base; {worst} {leaks[worst]:+.0%}"
    rows.append(BenchRow(f"{file.name}: no trigger", plain, leaks[worst] <= LEAK, note))
    if len(subject.characters) > 1:
        rows += [_alone(file, model, name, settings) for name in ("krnksf", "tyankps")]
    baked.set((0.5,))
    half = measure(model, triggered, subject, settings.clip_skip)
    low, high = sorted((_mean_rate(base_rows[1].measured), _mean_rate(full)))
    rows.append(BenchRow(f"{file.name}: at 0.5", half, low <= _mean_rate(half) <= high, "between"))
    rows.append(_without(file, settings))
    if file.whole is not None:
        rows += _compressed(file.whole, file, settings)
    return rows


def _full_weight(label: str, measured: AttributeRates, subject: BenchSubject) -> BenchRow:
    """Compare a file at full weight with the limits."""
    if len(subject.characters) > 1:
        return BenchRow(label, measured, measured.rates["hair+clothes"] >= BOTH, f"both in {BOTH:.0%}")
    worst = min(APPEARANCE, key=lambda name: measured.rates.get(name, 1.0))
    kept = measured.rates[worst] >= SHOWN
    note = f"every attribute in {SHOWN:.0%}"
    if subject.characters[0].clothes:
        kept = kept and measured.rates["clothes"] >= DRESSED
        note += f", clothes in {DRESSED:.0%}"
    return BenchRow(label, measured, kept, note)


def _alone(file: BenchFile, model: DiffusionModel, name: str, settings: BenchSettings) -> BenchRow:
    subject = SUBJECTS[name]
    measured = measure(model, _prompts(subject.trigger, subject, settings), subject, settings.clip_skip)
    return BenchRow(f"{file.name}: {name} alone", measured, measured.rates["hair+clothes"] >= BOTH, f"alone in {BOTH:.0%}")


def _without(file: BenchFile, settings: BenchSettings) -> BenchRow:
    """Compare images at block weights 0 with the base's, bit for bit."""
    prompts = bench_prompts(file.subject.trigger, file.subject.framing, min(_UNTOUCHED, settings.count))
    of_base = list(images(models.load(settings.base), prompts, settings.clip_skip))
    with tempfile.TemporaryDirectory() as folder:
        zeroed = Path(folder) / file.released.name
        merge(file.released, zeroed, MergeOptions([0.0] * 26, unmapped=0.0))
        model = models.load(settings.base)
        BakedModel(model, [zeroed]).set((1.0,))
        drawn = list(images(model, prompts, settings.clip_skip))
    same = all(a.tobytes() == b.tobytes() for (_, a), (_, b) in zip(of_base, drawn, strict=True))
    rates = rates_of(drawn, file.subject)
    return BenchRow(f"{file.name}: block weights 0", rates, same, "the base's images, bit for bit")


def _compressed(whole: Path, file: BenchFile, settings: BenchSettings) -> list[BenchRow]:
    """Compare the file at falling sv_ratio with the file before compression."""
    prompts = _prompts(file.subject.trigger, file.subject, settings)

    def draw(path: Path) -> list[tuple[BenchPrompt, Image.Image]]:
        model = models.load(settings.base)
        BakedModel(model, [path]).set((1.0,))
        return list(images(model, prompts, settings.clip_skip))

    original = draw(whole)
    note = f"{_bytes(whole):,} bytes"
    rows = [BenchRow(f"{file.name}: not compressed", rates_of(original, file.subject), None, note)]
    before = (1.0, 2.0, float(_bytes(whole) + 1))
    with tempfile.TemporaryDirectory() as folder:
        for ratio in RATIOS:
            path = Path(folder) / f"{ratio:g}.safetensors"
            resize(whole, path, ResizeOptions(param=ratio))
            smaller = draw(path)
            rates = rates_of(smaller, file.subject)
            alike = mean(_alike(a, b) for (_, a), (_, b) in zip(original, smaller, strict=True))
            current = (_mean_rate(rates), alike, float(_bytes(path)))
            kept = all(a <= b for a, b in zip(current, before, strict=True))
            note = f"{_bytes(path):,} bytes, {alike:.1%} alike; less than the row above"
            rows.append(BenchRow(f"{file.name}: sv_ratio {ratio:g}", rates, kept, note))
            before = current
    return rows


def _prompts(start: str, subject: BenchSubject, settings: BenchSettings) -> tuple[BenchPrompt, ...]:
    return bench_prompts(start, subject.framing, settings.count)


def _alike(a: Image.Image, b: Image.Image) -> float:
    """Return 1 minus the relative mean difference of two images."""
    return 1 - float(np.abs(np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)).mean()) / 255


def _mean_rate(row: AttributeRates) -> float:
    """Return the mean rate of the attributes of appearance."""
    return mean(row.rates[name] for name in APPEARANCE if name in row.rates)


def _bytes(file: Path) -> int:
    return file.stat().st_size


def _class_word(subject: BenchSubject) -> str:
    return words.CLASS_WORD if len(subject.characters) == 1 else words.CLASS_WORD_TWO


def line(row: BenchRow) -> str:
    """Return one line of the Markdown table."""
    columns = ("number", *APPEARANCE, "clothes", "hair+clothes")
    cells = (f"{row.measured.rates[column]:.0%}" if column in row.measured.rates else "–" for column in columns)
    outcome = "" if row.kept is None else ("kept" if row.kept else "**missed**")
    return f"| {row.label} | {row.measured.images} | {' | '.join(cells)} | {outcome} | {row.note} |"


def header() -> str:
    """Return the first two lines of the Markdown table."""
    columns = ("images", "number", *APPEARANCE, "clothes", "hair+clothes", "", "promised")
    return f"| what | {' | '.join(columns)} |\n| --- |{' --- |' * len(columns)}"
