"""The trainers' output.

Real logs of good, resumed, lost and empty runs, and hostile pieces.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.engines.sdscripts.output_parser import OutputParser, read
from orchestrator.system.child import Progress

if TYPE_CHECKING:
    from collections.abc import Callable

DATA = Path(__file__).resolve().parents[2] / "data"
RECORDINGS = DATA / "recordings"


def pieces(name: str) -> list[str]:
    """Return the pieces of a recorded run, standard output first, as process.py cuts them."""
    texts = [(RECORDINGS / f"{name}.{stream}.log").read_bytes().decode("utf-8") for stream in ("stdout", "stderr")]
    return [piece for text in texts for piece in re.split(r"[\r\n]+", text) if piece]


def parse(parser: OutputParser, name: str) -> list[Progress]:
    return [progress for piece in pieces(name) if (progress := parser(piece)) is not None]


def values(**expected: Any) -> Callable[[], dict[str, Any]]:
    return lambda: expected


# log.txt of runs of make test-sd-scripts, both streams interleaved; only the folders' names are changed.
LOGS = DATA / "logs"
PREDICTED = {"gradient accumulation": 1, "text encoder modules": 72, "U-Net modules": 278, "images": 60, "regularization": 0}
PREDICTED |= {"batches per epoch": 60, "epochs": 1}


def parsed_log(name: str, expected: dict[str, Any]) -> list[Progress]:
    """Return the progress in a whole log, parsed with expected values."""
    parser = OutputParser(lambda: expected)
    text = (LOGS / f"{name}.log").read_bytes().decode("utf-8")
    return [progress for piece in re.split(r"[\r\n]+", text) if (progress := parser(piece)) is not None]


@pytest.mark.parametrize("algo", ["locon", "loha"])
def test_a_whole_log_of_a_lycoris_training(algo: str) -> None:
    frames = parsed_log(algo, PREDICTED | {"algo": algo, "steps": 2})
    assert [each.fault for each in frames if each.fault] == []
    assert (frames[-1].done, frames[-1].total) == (2, 2)
    assert frames[-1].loss is not None
    assert [each.note for each in frames if each.note.startswith("missing in the trainer's output")] == []
    assert f"saved krnk-{algo}.safetensors" in [each.note for each in frames]
    wrong = parsed_log(algo, PREDICTED | {"algo": "lokr", "steps": 1000, "U-Net modules": 282, "novelty": 1})
    differs = f"U-Net modules 278, predicted 282; algo {algo}, predicted lokr; steps 2, predicted 1000"
    assert [each.fault for each in wrong if each.fault] == [f"the trainer's settings differ from the plan: {differs}"]


def test_a_whole_log_of_a_training_that_was_killed_and_resumed() -> None:
    """Step 1 by the first trainer, 2 and 3 by the second, whose bar counts from 0 to 2."""
    same = {"steps": 3, "dim": 2, "alpha": 1.0, "conv_dim": 2, "conv_alpha": 1.0}
    frames = parsed_log("killed-and-resumed", PREDICTED | same)
    assert [each.fault for each in frames if each.fault] == []
    counted = [each.done for each in frames if each.total and each.loss is not None and not each.note]
    assert counted == sorted(counted)
    assert (frames[-1].done, frames[-1].total) == (3, 3)
    states = [each.note for each in frames if "state" in each.note]
    assert states == [f"saved the state at step {step}" for step in (1, 2, 3)]


def test_a_value_missing_in_the_output_is_noted() -> None:
    frames = parsed_log("killed-and-resumed", PREDICTED | {"steps": 3, "algo": "locon"})
    assert {each.note for each in frames if "missing" in each.note} == {"missing in the trainer's output: algo"}


def test_a_good_run_shows_every_step_and_every_saved_file() -> None:
    parser = OutputParser()
    frames = parse(parser, "lora3x3")
    assert (frames[-1].done, frames[-1].total, frames[-1].loss) == (6, 6, 1.11)
    notes = [each.note for each in frames if each.note]
    assert notes[:4] == [
        "saved lora3x3-step00000002.safetensors",
        "saved lora3x3-step00000004.safetensors",
        "saved lora3x3-step00000006.safetensors",
        "saved lora3x3.safetensors",
    ]
    assert not any(each.fault for each in frames)
    assert parser.values["batches per epoch"] == 16
    assert parser.values["steps"] == 6


def test_a_resumed_bar_that_counts_the_steps_left_is_corrected() -> None:
    parser = OutputParser()
    frames = [each for each in parse(parser, "lora3x3-resumed") if each.total]
    assert frames[0].done == 2
    assert (frames[-1].done, frames[-1].total) == (6, 6)
    assert parser.values == {
        "skipped": 2,
        "validation images": 0,
        "dim": 1,
        "alpha": 1.0,
        "conv_dim": 1,
        "conv_alpha": 1.0,
        "text encoder modules": 72,
        "U-Net modules": 278,
        "images": 16,
        "regularization": 0,
        "batches per epoch": 16,
        "epochs": 1,
        "gradient accumulation": 1,
        "steps": 6,
    }


def test_a_run_resumed_in_a_later_epoch_is_counted_from_its_step() -> None:
    """1000 steps of 205 batches an epoch, resumed at 400: the bar counts to 805, and the last epoch ends at 625 of it."""
    parser = OutputParser()
    for line in ("  num batches per epoch / x: 205", "  total optimization steps / x: 1000", "skipping 400 steps / x"):
        parser(line)
    shown = [parser(f"steps:  1%|#| {done}/805 [00:01<00:05,  1.96s/it, avr_loss=0.1]") for done in (0, 1, 600, 625)]
    assert [(each.done, each.total) for each in shown if each is not None] == [
        (400, 1000),
        (401, 1000),
        (1000, 1000),
        (1000, 1000),
    ]


@pytest.mark.parametrize("name", ["locon", "loha"])
def test_lycoris_prints_its_modules_with_colours(name: str) -> None:
    parser = OutputParser()
    parse(parser, name)
    assert parser.values["algo"] == name
    assert (parser.values["text encoder modules"], parser.values["U-Net modules"]) == (72, 278)


def test_the_networks_of_transformers_count_each_text_encoder() -> None:
    parser = OutputParser()
    for line in (
        "import network module: networks.lora_anima",
        "create LoRA network. base dim (rank): 4, alpha: 1.0",
        "create LoRA for Text Encoder 1:",
        "create LoRA for Text Encoder 1: 72 modules.",
        "create LoRA for Text Encoder 2: 168 modules.",
        "create LoRA for Anima DiT: 280 modules.",
        "enable LoRA for DiT: 280 modules",
    ):
        parser(line)
    assert parser.values == {"dim": 4, "alpha": 1.0, "text encoder modules": 240, "U-Net modules": 280}


def test_a_loss_that_is_not_finite_is_a_fault_at_its_first_frame() -> None:
    frames = parse(OutputParser(), "nan")
    assert next(each for each in frames if each.fault).fault == "the loss is nan at step 2"
    assert all(each.loss is None for each in frames if each.fault)
    infinite = read("steps:  25%|█| 1/4 [00:01<00:05, 1s/it, avr_loss=inf]")
    assert infinite == Progress(1, 4, None, fault="the loss is inf at step 1")


def test_faults_and_notes_keep_the_progress() -> None:
    parser = OutputParser()
    bar = parser("steps:  25%|█| 1/4 [00:01<00:05, 1s/it, avr_loss=0.5]")
    assert bar == Progress(1, 4, 0.5)
    saved = parser("saving checkpoint: /w/x-step00000002.safetensors")
    assert saved == Progress(1, 4, 0.5, note="saved x-step00000002.safetensors")
    assert parser("steps:  50%|█| 2/4 [00:01<00:05, 1s/it]") == Progress(2, 4, 0.5)  # a frame without a loss
    assert parser("no metadata") is None
    assert parser.last == Progress(2, 4, 0.5)


def test_no_data_is_a_fault() -> None:
    assert [each.fault for each in parse(OutputParser(), "nodata")] == ["the trainer found no pictures"]


def test_a_banner_that_differs_from_the_plan_is_a_fault_that_names_every_value() -> None:
    parser = OutputParser(values(steps=1000, images=16, epochs=9))
    faults = [each.fault for each in parse(parser, "locon") if each.fault]
    assert len(faults) == 1
    assert "steps 2, predicted 1000" in faults[0]
    assert "epochs 1, predicted 9" in faults[0]
    assert "images" not in faults[0]
    same = OutputParser(values(steps=2, images=16, epochs=1, algo="locon"))
    assert not any(each.fault for each in parse(same, "locon"))


def test_an_earlier_attempt_in_the_same_log_does_not_count() -> None:
    parser = OutputParser(values(steps=2, **{"text encoder modules": 72}))
    frames = [*parse(parser, "locon"), *parse(parser, "locon")]
    assert not any(each.fault for each in frames)


@pytest.mark.parametrize(
    ("piece", "shown"),
    [
        ("steps:   0%|          | 0/1000 [00:00<?, ?it/s]", (0, 1000, None)),
        ("steps:  25%|██▌       | 1/4 [00:01<00:05,  1.96s/it, avr_loss=1.14]", (1, 4, 1.14)),
        ("steps:  50%|#####     | 500/1000 [1:02:03<1:02:03,  2.1it/s, avr_loss=0.0213, Keys Scaled=12]", (500, 1000, 0.0213)),
        (
            "steps:  25%|█| 1/4 [00:01<00:05, 1s/it, avr_loss=1]steps:  50%|█| 2/4 [00:01<00:05, 1s/it, avr_loss=2]",
            (2, 4, 2.0),
        ),
        ("epoch 1/4 steps:  75%|█| 3/4 [00:01<00:05, 1s/it, avr_loss=1e-3]", (3, 4, 0.001)),
    ],
)
def test_frames(piece: str, shown: tuple[int, int, float | None]) -> None:
    frame = read(piece)
    assert frame is not None
    assert (frame.done, frame.total, frame.loss) == shown


def test_a_rendering_counts_its_prompts() -> None:
    assert read("prompt 2/7: krnk, white background") == Progress(1, 7)
    assert read("2026-11-22 22:16:33 INFO     prompt 7/7: krnk    gen_img.py:2792") == Progress(6, 7)
    assert read("generating:  29%|██▊       | 2/7 [00:01<00:05,  1.96s/it]") == Progress(2, 7)


@pytest.mark.parametrize(
    "piece",
    [
        "read caption: 100%|██████████| 4/4 [00:00<00:00, 19531.10it/s]",
        "100%|██████████| 4/4 [00:00<00:00, 85163.53it/s]",
        "validation steps:  50%|█████     | 4/8 [00:02<00:02,  1.91it/s, val_avg_loss=0.12, timestep=200]",
        "Loading pipeline components...:  50%|█████     | 2/4 [00:00<00:00,  5.91it/s]",
        "",
        "steps: 5",
    ],
)
def test_other_bars_are_not_the_training(piece: str) -> None:
    assert read(piece) is None


@given(st.text(max_size=300))
def test_no_piece_breaks_the_parser(piece: str) -> None:
    progress = OutputParser()(piece)
    assert progress is None or isinstance(progress, Progress)


@given(st.integers(0, 10**6), st.integers(1, 10**6), st.floats(0, 1e3))
def test_every_frame_of_tqdm_is_parsed(done: int, total: int, loss: float) -> None:
    progress = read(f"steps:  12%|█▏        | {done}/{total} [00:10<01:20,  1.20it/s, avr_loss={loss!r}]")
    assert progress == Progress(done, total, loss)


@pytest.mark.parametrize(
    "line",
    [
        "create LoRA network. base dim (rank): 4, alpha: 21474836e",
        "create LoRA network. base dim (rank): 4, alpha: 1.2.3",
        "apply LoRA to Conv2d with kernel size (3,3). dim (rank): 4, alpha: ..",
        f"  num epochs / epoch: {'9' * 5000}",
        f"skipping {'9' * 5000} steps",
        f"prompt {'9' * 5000}/{'9' * 5000}: a cat",
        f"steps:  50%|x| {'9' * 5000}/9 [00:01<00:01,  1.00s/it, avr_loss=0.1]",
        f"steps: {' ' * 5000}{'9' * 5000}%|x| {'9' * 5000}",
    ],
)
def test_invalid_numbers_are_ignored(line: str) -> None:
    parser = OutputParser()
    parser(line)
    assert parser.values == {}
