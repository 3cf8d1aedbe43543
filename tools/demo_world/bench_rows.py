"""What the demo's LoRAs promise of their pictures, one row each: who appears, what leaks, what weights and compression do."""

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
from tools.demo_world.bench import SUBJECTS, Ask, Row, Subject, asks, counted, measure, pictures

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from PIL import Image

    from orchestrator.engines.embedded.trainer.model import DiffusionModel

LOOKS: Final = ("hair", "length", "eyes", "ears", "choker")
SHOWN: Final = 0.85  # of the pictures show each look of the subject
DRESSED: Final = 0.80  # of a body LoRA's pictures show the clothes
BOTH: Final = 0.60  # of a group's pictures show everyone who was asked for
LEAK: Final = 0.15  # more than the base's own rate, in prompts without the trigger word
RATIOS: Final = (64.0, 32.0, 16.0, 8.0)
_UNTOUCHED: Final = 8  # pictures compared byte by byte


@dataclass(frozen=True, slots=True)
class Wish:
    """One recipe to measure: its released file, and the file before compression (None: it is not compressed)."""

    name: str
    released: Path
    whole: Path | None = None

    @property
    def subject(self) -> Subject:
        """Who is asked for."""
        return SUBJECTS[self.name.partition("-")[0]]


@dataclass(frozen=True, slots=True)
class Setting:
    """The base, how many pictures a row has, and which layer of the text encoder speaks."""

    base: Path
    count: int
    clip_skip: int


@dataclass(frozen=True, slots=True)
class Result:
    """One row of the table; ``kept`` is None where nothing is promised, ``note`` says what was."""

    what: str
    row: Row
    kept: bool | None = None
    note: str = ""


def of_project(names: Sequence[str]) -> list[Wish]:
    """Return what the demo profile of this project has trained; ``names`` are recipes, none: all of them.

    Raises:
        NotReady: a recipe has no finished file yet.
    """
    space = Workspace()
    plan = space.plan(space.load(Selection(tuple(names) or ("all",), "demo")))
    found: list[Wish] = []
    missing: list[Problem] = []
    for name in (name for name in plan.recipes if name.partition("-")[0] in SUBJECTS):
        steps = {step.kind: space.store.folder(step) / f"{name}.safetensors" for step in plan.of(name)}
        files = [steps[kind] for kind in (StepKind.TRAIN, StepKind.MERGE, StepKind.RESIZE) if kind in steps]
        if files[-1].is_file():
            found.append(
                Wish(name, files[-1], steps[StepKind.MERGE] if StepKind.RESIZE in steps and StepKind.MERGE in steps else None)
            )
        else:
            missing.append(Problem(name, "is not trained in the demo profile", f"make {name} PROFILE=demo, or make demo"))
    if missing:
        raise NotReady(missing)
    return found


def in_folder(folder: Path) -> list[Wish]:
    """Return the files SUBJECT-ALGORITHM.safetensors at or below a folder."""
    files = sorted(folder.rglob("*.safetensors"))
    return [Wish(file.stem, file) for file in files if file.stem.partition("-")[0] in SUBJECTS]


def table(wishes: Sequence[Wish], setting: Setting, processes: int) -> Iterator[Result]:
    """Measure every file; rows of one file come together, as soon as it is done."""
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        names = list(dict.fromkeys(wish.name.partition("-")[0] for wish in wishes))
        own = dict(zip(names, pool.map(_of_base, names, [setting] * len(names)), strict=True))
        for name in names:
            yield from own[name]
        jobs = [(wish, setting, own[wish.name.partition("-")[0]]) for wish in wishes]
        for rows in pool.map(_of_file, *zip(*jobs, strict=True)):
            yield from rows


def _of_base(name: str, setting: Setting) -> tuple[Result, Result]:
    """The base's own rates: with the class word, which is chance, and with the trigger word, which it does not know."""
    torch.set_num_threads(1)
    model, subject = models.load(setting.base), SUBJECTS[name]
    chance = measure(model, asks(_class_word(subject), subject.framing, setting.count), subject, setting.clip_skip)
    trigger = measure(model, asks(subject.trigger, subject.framing, setting.count), subject, setting.clip_skip)
    kept = _looks(trigger) <= _looks(chance) + LEAK
    return Result(f"{name}: no LoRA", chance), Result(f"{name}: no LoRA, trigger", trigger, kept, "looks at chance")


def _of_file(wish: Wish, setting: Setting, own: tuple[Result, Result]) -> list[Result]:
    """All rows of one file."""
    torch.set_num_threads(1)
    model, subject = models.load(setting.base), wish.subject
    baked = BakedModel(model, [wish.released])
    triggered = asks(subject.trigger, subject.framing, setting.count)
    baked.set((1.0,))
    full = measure(model, triggered, subject, setting.clip_skip)
    rows = [_shown(f"{wish.name}: trigger", full, subject)]
    plain = measure(model, asks(_class_word(subject), subject.framing, setting.count), subject, setting.clip_skip)
    leaks = {name: plain.rates[name] - own[0].row.rates.get(name, 0.0) for name in LOOKS if name in plain.rates}
    worst = max(leaks, key=lambda name: leaks[name])
    said = f"at most {LEAK:.0%} over the base; {worst} {leaks[worst]:+.0%}"
    rows.append(Result(f"{wish.name}: no trigger", plain, leaks[worst] <= LEAK, said))
    if len(subject.characters) > 1:
        rows += [_alone(wish, model, name, setting) for name in ("krnksf", "tyankps")]
    baked.set((0.5,))
    half = measure(model, triggered, subject, setting.clip_skip)
    low, high = sorted((_looks(own[1].row), _looks(full)))
    rows.append(Result(f"{wish.name}: at 0.5", half, low <= _looks(half) <= high, "between"))
    rows.append(_without(wish, setting))
    if wish.whole is not None:
        rows += _compressed(wish.whole, wish, setting)
    return rows


def _shown(what: str, row: Row, subject: Subject) -> Result:
    """The promise of a file at full weight."""
    if len(subject.characters) > 1:
        return Result(what, row, row.rates["hair+clothes"] >= BOTH, f"both in {BOTH:.0%}")
    least = min(LOOKS, key=lambda name: row.rates.get(name, 1.0))
    kept = row.rates[least] >= SHOWN
    said = f"every look in {SHOWN:.0%}"
    if subject.characters[0].clothes:
        kept = kept and row.rates["clothes"] >= DRESSED
        said += f", clothes in {DRESSED:.0%}"
    return Result(what, row, kept, said)


def _alone(wish: Wish, model: DiffusionModel, name: str, setting: Setting) -> Result:
    one = SUBJECTS[name]
    row = measure(model, asks(one.trigger, one.framing, setting.count), one, setting.clip_skip)
    return Result(f"{wish.name}: {name} alone", row, row.rates["hair+clothes"] >= BOTH, f"alone in {BOTH:.0%}")


def _without(wish: Wish, setting: Setting) -> Result:
    """All block weights 0: the base's own pictures, bit for bit."""
    wanted = asks(wish.subject.trigger, wish.subject.framing, min(_UNTOUCHED, setting.count))
    own = list(pictures(models.load(setting.base), wanted, setting.clip_skip))
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / wish.released.name
        merge(wish.released, file, MergeOptions([0.0] * 26, unmapped=0.0))
        model = models.load(setting.base)
        BakedModel(model, [file]).set((1.0,))
        drawn = list(pictures(model, wanted, setting.clip_skip))
    same = all(a.tobytes() == b.tobytes() for (_, a), (_, b) in zip(own, drawn, strict=True))
    return Result(f"{wish.name}: block weights 0", counted(drawn, wish.subject), same, "the base's pictures, bit for bit")


def _compressed(whole: Path, wish: Wish, setting: Setting) -> list[Result]:
    """The file at falling sv_ratio beside the file that is not compressed."""
    triggered = asks(wish.subject.trigger, wish.subject.framing, setting.count)

    def drawn(file: Path) -> list[tuple[Ask, Image.Image]]:
        model = models.load(setting.base)
        BakedModel(model, [file]).set((1.0,))
        return list(pictures(model, triggered, setting.clip_skip))

    original = drawn(whole)
    rows = [Result(f"{wish.name}: not compressed", counted(original, wish.subject), None, f"{_bytes(whole):,} bytes")]
    before = (1.0, 2.0, float(_bytes(whole) + 1))
    with tempfile.TemporaryDirectory() as name:
        for ratio in RATIOS:
            file = Path(name) / f"{ratio:g}.safetensors"
            resize(whole, file, ResizeOptions(param=ratio))
            smaller = drawn(file)
            row = counted(smaller, wish.subject)
            alike = mean(_alike(a, b) for (_, a), (_, b) in zip(original, smaller, strict=True))
            now = (_looks(row), alike, float(_bytes(file)))
            kept = all(a <= b for a, b in zip(now, before, strict=True))
            said = f"{_bytes(file):,} bytes, {alike:.1%} alike; less than the row above"
            rows.append(Result(f"{wish.name}: sv_ratio {ratio:g}", row, kept, said))
            before = now
    return rows


def _alike(a: Image.Image, b: Image.Image) -> float:
    """1 minus the mean absolute difference of two pictures, of 255."""
    return 1 - float(np.abs(np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)).mean()) / 255


def _looks(row: Row) -> float:
    """The mean rate of the looks."""
    return mean(row.rates[name] for name in LOOKS if name in row.rates)


def _bytes(file: Path) -> int:
    return file.stat().st_size


def _class_word(subject: Subject) -> str:
    return words.CLASS_WORD if len(subject.characters) == 1 else words.CLASS_WORD_TWO


def line(result: Result) -> str:
    """Return one line of the Markdown table."""
    columns = ("number", *LOOKS, "clothes", "hair+clothes")
    cells = (f"{result.row.rates[column]:.0%}" if column in result.row.rates else "–" for column in columns)
    verdict = "" if result.kept is None else ("kept" if result.kept else "**missed**")
    return f"| {result.what} | {result.row.pictures} | {' | '.join(cells)} | {verdict} | {result.note} |"


def header() -> str:
    """Return the two first lines of the Markdown table."""
    columns = ("pictures", "number", *LOOKS, "clothes", "hair+clothes", "", "promised")
    return f"| what | {' | '.join(columns)} |\n| --- |{' --- |' * len(columns)}"
