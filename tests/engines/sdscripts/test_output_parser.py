"""The trainers' output: real logs of good, resumed, lost and empty runs, and hostile pieces."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.engines.sdscripts import tensorboard
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


def follow(reader: OutputParser, name: str) -> list[Progress]:
    return [found for piece in pieces(name) if (found := reader(piece)) is not None]


def values(**said: Any) -> Callable[[], dict[str, Any]]:
    return lambda: said


# What a log.txt holds after a run of make test-sd-scripts, both streams as they came; only the folders' names are others.
LOGS = DATA / "logs"
PREDICTED = {"gradient accumulation": 1, "text encoder modules": 72, "U-Net modules": 278, "images": 60, "regularization": 0}
PREDICTED |= {"batches per epoch": 60, "epochs": 1}


def logged(name: str, expected: dict[str, Any]) -> list[Progress]:
    """Return what a reader that expects these values finds in a whole log."""
    reader = OutputParser(lambda: expected)
    text = (LOGS / f"{name}.log").read_bytes().decode("utf-8")
    return [found for piece in re.split(r"[\r\n]+", text) if (found := reader(piece)) is not None]


@pytest.mark.parametrize("algo", ["locon", "loha"])
def test_a_whole_log_of_a_lycoris_training(algo: str) -> None:
    seen = logged(algo, PREDICTED | {"algo": algo, "steps": 2})
    assert [one.fault for one in seen if one.fault] == []
    assert (seen[-1].done, seen[-1].total) == (2, 2)
    assert seen[-1].loss is not None
    assert [one.note for one in seen if one.note.startswith("the trainer did not say")] == []
    assert f"saved krnk-{algo}.safetensors" in [one.note for one in seen]
    wrong = logged(algo, PREDICTED | {"algo": "lokr", "steps": 1000, "U-Net modules": 282, "novelty": 1})
    differs = f"U-Net modules 278, predicted 282; algo {algo}, predicted lokr; steps 2, predicted 1000"
    assert [one.fault for one in wrong if one.fault] == [f"the trainer does something else than the plan says: {differs}"]


def test_a_whole_log_of_a_training_that_was_killed_and_resumed() -> None:
    """Step 1 by the first trainer, 2 and 3 by the second, whose bar counts from 0 to 2."""
    same = {"steps": 3, "dim": 2, "alpha": 1.0, "conv_dim": 2, "conv_alpha": 1.0}
    seen = logged("killed-and-resumed", PREDICTED | same)
    assert [one.fault for one in seen if one.fault] == []
    counted = [one.done for one in seen if one.total and one.loss is not None and not one.note]
    assert counted == sorted(counted)
    assert (seen[-1].done, seen[-1].total) == (3, 3)
    states = [one.note for one in seen if "state" in one.note]
    assert states == [f"saved the state at step {step}" for step in (1, 2, 3)]


def test_what_the_trainer_does_not_say_is_noted() -> None:
    seen = logged("killed-and-resumed", PREDICTED | {"steps": 3, "algo": "locon"})
    assert {one.note for one in seen if "did not say" in one.note} == {"the trainer did not say: algo"}


def test_a_good_run_shows_every_step_and_what_was_saved() -> None:
    reader = OutputParser()
    seen = follow(reader, "lora3x3")
    assert (seen[-1].done, seen[-1].total, seen[-1].loss) == (6, 6, 1.11)
    notes = [one.note for one in seen if one.note]
    assert notes[:4] == [
        "saved lora3x3-step00000002.safetensors",
        "saved lora3x3-step00000004.safetensors",
        "saved lora3x3-step00000006.safetensors",
        "saved lora3x3.safetensors",
    ]
    assert not any(one.fault for one in seen)
    assert reader.found["batches per epoch"] == 16
    assert reader.found["steps"] == 6


def test_a_resumed_bar_counts_what_is_left_and_is_set_right() -> None:
    reader = OutputParser()
    seen = [one for one in follow(reader, "lora3x3-resumed") if one.total]
    assert seen[0].done == 2
    assert (seen[-1].done, seen[-1].total) == (6, 6)
    assert reader.found == {
        "skipped": 2,
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


def test_a_run_resumed_in_a_later_epoch_is_counted_from_where_it_was() -> None:
    """1000 steps of 205 batches an epoch, resumed at 400: the bar counts to 805, and the last epoch ends at 625 of it."""
    reader = OutputParser()
    for line in ("  num batches per epoch / x: 205", "  total optimization steps / x: 1000", "skipping 400 steps / x"):
        reader(line)
    shown = [reader(f"steps:  1%|#| {done}/805 [00:01<00:05,  1.96s/it, avr_loss=0.1]") for done in (0, 1, 600, 625)]
    assert [(one.done, one.total) for one in shown if one is not None] == [
        (400, 1000),
        (401, 1000),
        (1000, 1000),
        (1000, 1000),
    ]


@pytest.mark.parametrize("name", ["locon", "loha"])
def test_lycoris_prints_its_modules_with_colours(name: str) -> None:
    reader = OutputParser()
    follow(reader, name)
    assert reader.found["algo"] == name
    assert (reader.found["text encoder modules"], reader.found["U-Net modules"]) == (72, 278)


def test_a_lost_loss_is_a_fault_at_its_first_frame() -> None:
    seen = follow(OutputParser(), "nan")
    assert next(one for one in seen if one.fault).fault == "the loss is nan at step 2"
    assert all(one.loss is None for one in seen if one.fault)


def test_no_data_is_a_fault() -> None:
    assert [one.fault for one in follow(OutputParser(), "nodata")] == ["the trainer found no pictures"]


def test_a_banner_that_differs_from_the_plan_is_a_fault_that_names_every_value() -> None:
    reader = OutputParser(values(steps=1000, images=16, epochs=9))
    faults = [one.fault for one in follow(reader, "locon") if one.fault]
    assert len(faults) == 1
    assert "steps 2, predicted 1000" in faults[0]
    assert "epochs 1, predicted 9" in faults[0]
    assert "images" not in faults[0]
    same = OutputParser(values(steps=2, images=16, epochs=1, algo="locon"))
    assert not any(one.fault for one in follow(same, "locon"))


def test_an_earlier_attempt_in_the_same_log_does_not_count() -> None:
    reader = OutputParser(values(steps=2, **{"text encoder modules": 72}))
    seen = [*follow(reader, "locon"), *follow(reader, "locon")]
    assert not any(one.fault for one in seen)


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
    found = read(piece)
    assert found is not None
    assert (found.done, found.total, found.loss) == shown


def test_a_rendering_counts_its_prompts() -> None:
    assert read("prompt 2/7: krnk, white background") == Progress(1, 7)
    assert read("2026-11-22 22:16:33 INFO     prompt 7/7: krnk    gen_img.py:2792") == Progress(6, 7)
    assert read("generating:  29%|██▊       | 2/7 [00:01<00:05,  1.96s/it]") == Progress(2, 7)


@pytest.mark.parametrize(
    "piece",
    [
        "read caption: 100%|██████████| 4/4 [00:00<00:00, 19531.10it/s]",
        "100%|██████████| 4/4 [00:00<00:00, 85163.53it/s]",
        "Loading pipeline components...:  50%|█████     | 2/4 [00:00<00:00,  5.91it/s]",
        "",
        "steps: 5",
    ],
)
def test_other_bars_are_not_the_training(piece: str) -> None:
    assert read(piece) is None


@given(st.text(max_size=300))
def test_no_piece_breaks_the_reader(piece: str) -> None:
    found = OutputParser()(piece)
    assert found is None or isinstance(found, Progress)


@given(st.integers(0, 10**6), st.integers(1, 10**6), st.floats(0, 1e3))
def test_whatever_tqdm_prints_is_read_back(done: int, total: int, loss: float) -> None:
    found = read(f"steps:  12%|█▏        | {done}/{total} [00:10<01:20,  1.20it/s, avr_loss={loss!r}]")
    assert found == Progress(done, total, loss)


def test_losses_and_rates_come_from_the_event_files() -> None:
    found = tensorboard.history(RECORDINGS / "tensorboard")
    assert [one["step"] for one in found] == [1, 2, 3, 4, 5, 6]
    assert found[0]["loss"] == pytest.approx(1.1059024)
    assert found[2]["lr_unet"] == pytest.approx(5e-5)  # half of a cosine from 1e-4
    assert found[-1]["lr_text_encoder"] == 0.0


def test_a_cut_event_file_gives_what_is_whole(tmp_path: Path) -> None:
    whole = next((RECORDINGS / "tensorboard").glob("events*")).read_bytes()
    cut = tmp_path / "events.out.tfevents.1"
    lengths = []
    for size in (0, 5, 100, 600, len(whole) - 1, len(whole)):
        cut.write_bytes(whole[:size])
        lengths.append(len(tensorboard.history(tmp_path)))
    assert lengths == sorted(lengths)
    assert lengths[0] == 0
    assert lengths[-1] == 6
    assert 0 < lengths[3] < 6


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
    ],
)
def test_numbers_that_are_none_are_passed_over(line: str) -> None:
    reader = OutputParser()
    reader(line)
    assert reader.found == {}


@given(st.binary(max_size=400))
def test_no_event_file_breaks_the_reader(data: bytes) -> None:
    found = list(tensorboard._event(data)) if _parses(data) else []
    assert all(isinstance(tag, str) for _, _, tag, _ in found)


def _parses(data: bytes) -> bool:
    try:
        list(tensorboard._event(data))
    except (IndexError, ValueError, struct.error):
        return False
    return True
