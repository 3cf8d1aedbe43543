"""Attribute and leak rates of saved steps, by the reader.

The measures of ``select`` do not use it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from statistics import mean
from typing import TYPE_CHECKING, Final

from orchestrator.engines.embedded.trainer import model as models
from orchestrator.engines.embedded.trainer.lora_baking import BakedModel
from orchestrator.system.files import write_json
from tools.demo_world import vocabulary as words
from tools.demo_world.bench import SUBJECTS, BenchSubject, bench_prompts, measure

if TYPE_CHECKING:
    from pathlib import Path


APPEARANCE: Final = ("hair", "length", "eyes", "ears", "choker", "clothes")
RATES: Final = "reader_rates.json"


@dataclass(frozen=True, slots=True)
class StepRates:
    """Rates of one file.

    ``attributes``: mean share of right attributes with the trigger. ``leak``: how far the share of each attribute, in prompts
    without the trigger, is from the base's, on average.
    """

    attributes: float
    leak: float


class RateReader:
    """Reads rates of files, and keeps them by the files' digests."""

    def __init__(self, base: Path, count: int, kept: Path) -> None:
        """Draw ``count`` images a rate with the base model in ``base``.

        Rates are kept in ``kept``/reader_rates.json.
        """
        self.base, self.count, self.file = base, count, kept / RATES
        self.rates: dict[str, dict[str, float]] = json.loads(self.file.read_text("utf-8")) if self.file.is_file() else {}

    def of(self, lora: Path, subject: str) -> StepRates:
        """Return the rates of a file of a subject of the bench."""
        digest = hashlib.sha256(lora.read_bytes()).hexdigest()
        entry = SUBJECTS[subject]
        right = self._kept(f"{digest} {subject} trigger", lora, entry.trigger, entry)
        plain = self._kept(f"{digest} {subject} plain", lora, _class_word(entry), entry)
        base = self._kept(f"base {subject} plain", None, _class_word(entry), entry)
        leak = mean(abs(plain[name] - base[name]) for name in APPEARANCE if name in plain and name in base)
        return StepRates(mean(right[name] for name in APPEARANCE if name in right), leak)

    def _kept(self, key: str, lora: Path | None, start: str, subject: BenchSubject) -> dict[str, float]:
        """Return the rates of prompts by attribute, drawn if they are not kept."""
        key = f"{key} {self.count}"
        if key not in self.rates:
            model = models.load(self.base)
            if lora is not None:
                BakedModel(model, [lora]).set((1.0,))
            prompts = bench_prompts(start, subject.framing, self.count)
            self.rates[key] = dict(measure(model, prompts, subject, 1).rates)
            write_json(self.file, self.rates)
        return self.rates[key]


def _class_word(subject: BenchSubject) -> str:
    return words.CLASS_WORD if len(subject.characters) == 1 else words.CLASS_WORD_TWO
