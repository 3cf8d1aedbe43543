"""Attribute and leak rates of saved steps, by the reader. The measures of ``select`` do not use it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from statistics import mean
from typing import TYPE_CHECKING, Final

import torch

from orchestrator.engines.embedded.trainer import model as models
from orchestrator.engines.embedded.trainer.lora_baking import BakedModel
from orchestrator.system.files import write_json
from tools.demo_world import vocabulary as words
from tools.demo_world.bench import SUBJECTS, BenchSubject, bench_prompts, measure

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from orchestrator.engines.embedded.trainer.model import DiffusionModel

APPEARANCE: Final = ("hair", "length", "eyes", "ears", "choker", "clothes")
RATES: Final = "reader_rates.json"


@dataclass(frozen=True, slots=True)
class StepRates:
    """Rates of one file.

    ``attributes``: mean share of right attributes with the trigger. ``leak``: the same without it, above the base's.
    """

    attributes: float
    leak: float


class RateReader:
    """Reads rates of files, and keeps them by the files' digests."""

    def __init__(self, base: Path, count: int, kept: Path, threads: int = 1) -> None:
        """Draw ``count`` images a rate with the base model in ``base``. Rates are kept in ``kept``/reader_rates.json."""
        torch.set_num_threads(threads)
        self.base, self.count, self.file = base, count, kept / RATES
        self.rates: dict[str, dict[str, float]] = json.loads(self.file.read_text("utf-8")) if self.file.is_file() else {}

    def of(self, lora: Path, subject: str) -> StepRates:
        """Return the rates of a file of a subject of the bench."""
        key = f"{hashlib.sha256(lora.read_bytes()).hexdigest()} {subject} {self.count}"
        if key not in self.rates:
            model = models.load(self.base)
            baked = BakedModel(model, [lora])
            baked.set((1.0,))
            entry = SUBJECTS[subject]
            right = self._rate(model, entry.trigger, entry)
            plain = self._rate(model, _class_word(entry), entry)
            self.rates[key] = asdict(StepRates(right, plain - self._of_base(subject)))
            write_json(self.file, self.rates)
        return StepRates(**self.rates[key])

    def _of_base(self, subject: str) -> float:
        key = f"base {subject} {self.count}"
        if key not in self.rates:
            entry = SUBJECTS[subject]
            self.rates[key] = {"attributes": self._rate(models.load(self.base), _class_word(entry), entry)}
        return self.rates[key]["attributes"]

    def _rate(self, model: DiffusionModel, start: str, subject: BenchSubject) -> float:
        rates: Mapping[str, float] = measure(model, bench_prompts(start, subject.framing, self.count), subject, 1).rates
        return mean(rates[name] for name in APPEARANCE if name in rates)


def _class_word(subject: BenchSubject) -> str:
    return words.CLASS_WORD if len(subject.characters) == 1 else words.CLASS_WORD_TWO
