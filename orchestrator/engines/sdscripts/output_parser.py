"""Parser of the trainers' output: progress, banner, faults.

The embedded trainer prints what sd-scripts prints. A piece is the text between two line ends or carriage returns.
Grammar: sd-scripts v0.10.1 train_network.py 987-1000 (banner), 1300-1316 (checkpoints), 1357 and 1508 (tqdm), train_util.py
(messages); LyCORIS 3.4.0 kohya.py (modules).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from orchestrator.system.child import SAVED, Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_BAR = re.compile(
    r"\d{1,3}%\|[^|]*\|\s*(?P<done>\d{1,18})/(?P<total>\d{1,18})\s+\[[\d:]+<[\d:?]+,\s*[^,\]]+(?P<post>[^\]]*)\]"
)
_COUNTED = re.compile(r"(?<!validation )steps:?$|generating:?$")  # before a bar: training, the embedded renderer
_LOSS = re.compile(r"\bavr_loss=([^,\s\]]+)")
_ANSI = re.compile(r"\x1b\[[0-9;]*m|\[(?:0;)?\d{1,2}m(?=INFO|WARN|ERR)")
_BANNER = {
    "images": re.compile(r"^\s*num train images \* repeats [^:]*: (\d{1,18})$"),
    "validation images": re.compile(r"^\s*num validation images \* repeats [^:]*: (\d{1,18})$"),
    "regularization": re.compile(r"^\s*num reg images [^:]*: (\d{1,18})$"),
    "batches per epoch": re.compile(r"^\s*num batches per epoch [^:]*: (\d{1,18})$"),
    "epochs": re.compile(r"^\s*num epochs [^:]*: (\d{1,18})$"),
    "gradient accumulation": re.compile(r"^\s*gradient accumulation steps [^=]*= (\d{1,18})$"),
    "steps": re.compile(r"^\s*total optimization steps [^:]*: (\d{1,18})$"),
}
_BEFORE_BANNER = {"text encoder modules", "U-Net modules", "dim", "alpha", "conv_dim", "conv_alpha", "algo"}
_NUMBER = r"(\d+(?:\.\d+)?(?:e[+-]?\d+)?)(?![.\w])"
_TEXT_MODULES = re.compile(r"create (?:LoRA|LyCORIS) for (?:\w+ )?Text Encoder: (\d{1,18}) modules")
_ONE_TEXT_MODULES = re.compile(r"create LoRA for Text Encoder \d: (\d{1,18}) modules")
_UNET_MODULES = re.compile(r"create (?:LoRA|LyCORIS) for (?![^:]*Text Encoder)[^:]+: (\d{1,18}) modules")
_DIM = re.compile(r"create LoRA network\. base dim \(rank\): (\d{1,18}), alpha: " + _NUMBER)
_CONV = re.compile(r"apply LoRA to Conv2d with kernel size \(3,\s*3\)\. dim \(rank\): (\d{1,18}), alpha: " + _NUMBER)
_ALGO = re.compile(r"Using rank adaptation algo: ([\w-]+)")
_SAVED = re.compile(r"(?:^|\n)\s*saving checkpoint: (.+)$")
_STATE = re.compile(r"saving state at step (\d{1,18})")
_BEGIN = re.compile(r"^import network module: ")
_ENDED = re.compile(r"^(?:.*INFO\s+)?model saved\.")
_PROMPT = re.compile(r"^(?:.*INFO\s+)?prompt (\d{1,18})/(\d{1,18}): ")  # gen_img.py, before it draws
_SKIPPED = re.compile(r"^(?:.*INFO\s+)?skipping (\d{1,18}) steps\b")
_NO_DATA = re.compile(r"No data found\. Please verify")
_NO_PROMPTS = re.compile(r"No prompt file|sample_prompts.*(?:not found|does not exist)", re.IGNORECASE)


@dataclass(slots=True)
class OutputParser:
    """Parser of one run's output.

    ``expected`` is called when the banner is complete and returns its values by name ("images", "steps", "text encoder
    modules", …). A banner that differs is a ``fault``, so that the run is stopped within its first minute.
    """

    expected: Callable[[], Mapping[str, int | float | str]] = dict
    values: dict[str, int | float | str] = field(default_factory=dict)
    last: Progress = field(default_factory=Progress)

    def __call__(self, piece: str) -> Progress | None:
        """Return the progress in one piece of output, or None."""
        text = _ANSI.sub("", piece)
        if (bar := self._bar(text)) is not None:
            self.last = bar
            return bar
        if drawing := _PROMPT.search(text):
            self.last = Progress(int(drawing.group(1)) - 1, int(drawing.group(2)))
            return self.last
        if _NO_DATA.search(text):
            return self._fault("the trainer found no pictures")
        if _NO_PROMPTS.search(text):
            return self._fault("the trainer cannot read the sample prompts")
        if self._banner(text):
            return self._compare() if "steps" in self.values else None
        note = _saved_note(text)
        return self._note(note) if note else None

    def _bar(self, text: str) -> Progress | None:
        """Return the last progress frame of a piece, or None.

        Other bars (captions, loading, validation) do not count.
        """
        if "%|" not in text:
            return None
        text = text[-2000:]
        frames = list(_BAR.finditer(text))  # several may be glued together
        frame = frames[-1] if frames else None
        if frame is None or not _COUNTED.search(text[: frame.start()].rstrip()):
            return None
        done, total = int(frame["done"]), int(frame["total"])
        planned = self.values.get("steps")
        skipped = self.values.get("skipped")
        if isinstance(planned, int) and isinstance(skipped, int):
            # A resumed bar counts from 0, in a later epoch to a total that is too large (see training_states).
            done, total = min(done + skipped, planned), planned
        elif isinstance(planned, int) and planned > total:
            done, total = done + planned - total, planned
        match = _LOSS.search(frame["post"])
        if match is None:
            return Progress(done, total, self.last.loss)
        try:
            loss = float(match.group(1))
        except ValueError:
            loss = math.nan
        if not math.isfinite(loss):
            return Progress(done, total, None, fault=f"the loss is {match.group(1)} at step {done}")
        return Progress(done, total, loss)

    def _note(self, note: str) -> Progress:
        self.last = Progress(self.last.done, self.last.total, self.last.loss, note=note)
        return self.last

    def _fault(self, fault: str) -> Progress:
        return Progress(self.last.done, self.last.total, self.last.loss, fault=fault)

    def _banner(self, text: str) -> bool:
        """Keep the values that a piece states about the run.

        Return whether it was the banner's last line.
        """
        if _BEGIN.match(text):  # the log may begin with an earlier attempt
            self.values.clear()
        for name, pattern in _BANNER.items():
            if match := pattern.match(text):
                self.values[name] = int(match.group(1))
                return name == "steps"
        if match := _SKIPPED.search(text):
            self.values["skipped"] = int(match.group(1))
        elif match := _TEXT_MODULES.search(text):  # all text encoders together (networks/lora.py 1035)
            self.values["text encoder modules"] = int(match.group(1))
        elif match := _ONE_TEXT_MODULES.search(text):  # networks of transformers print no sum
            self.values["text encoder modules"] = int(self.values.get("text encoder modules", 0)) + int(match.group(1))
        elif match := _UNET_MODULES.search(text):
            self.values["U-Net modules"] = int(match.group(1))
        elif match := _DIM.search(text):
            self.values |= {"dim": int(match.group(1)), "alpha": float(match.group(2))}
        elif match := _CONV.search(text):
            self.values |= {"conv_dim": int(match.group(1)), "conv_alpha": float(match.group(2))}
        elif match := _ALGO.search(text):
            self.values["algo"] = match.group(1)
        return False

    def _compare(self) -> Progress | None:
        """Return a fault with every value that differs from the prediction."""
        wrong = [
            f"{name} {self.values[name]}, predicted {value}"
            for name, value in self.expected().items()
            if name in self.values and self.values[name] != value
        ]
        if wrong:
            return self._fault("the trainer's settings differ from the plan: " + "; ".join(wrong))
        missing = sorted((self.expected().keys() & (_BANNER.keys() | _BEFORE_BANNER)) - self.values.keys())
        return self._note(f"missing in the trainer's output: {', '.join(missing)}") if missing else None


def _saved_note(text: str) -> str:
    """Return a note of the file or state that a piece reports as saved, or ""."""
    if _ENDED.search(text):
        return SAVED
    if saved := _SAVED.search(text):
        name = re.split(r"[/\\]", saved.group(1).strip())[-1]
        return f"saved {name}"
    state = _STATE.search(text)
    return f"saved the state at step {state.group(1)}" if state else ""


def read(piece: str) -> Progress | None:
    """Return the progress in one piece of output, or None.

    Without the run's banner, a resumed bar counts the steps that are left.
    """
    return OutputParser()(piece)
