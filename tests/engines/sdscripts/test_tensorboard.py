"""Scalars of TensorBoard event files: recorded, cut off and hostile ones."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.engines.sdscripts import tensorboard

RECORDINGS = Path(__file__).resolve().parents[2] / "data" / "recordings"


def test_losses_and_rates_are_read_from_event_files() -> None:
    steps = tensorboard.history(RECORDINGS / "tensorboard")
    assert [each["step"] for each in steps] == [1, 2, 3, 4, 5, 6]
    assert steps[0]["loss"] == pytest.approx(1.1059024)
    assert steps[2]["lr_unet"] == pytest.approx(5e-5)  # half of a cosine from 1e-4
    assert steps[-1]["lr_text_encoder"] == 0.0


def test_a_cut_event_file_yields_its_whole_records(tmp_path: Path) -> None:
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


@pytest.mark.parametrize("first_epoch", [0, 20, 30, 100])
def test_the_trainers_average_of_validations_is_separated(first_epoch: int) -> None:
    """Compare with the recorder of sd-scripts v0.10.1 (train_util.py 6668), of two losses a validation."""
    losses = {step: (step / 7, step / 9 + 1) for step in range(10, 70, 10)}
    kept: list[float] = []
    logged = []
    for step, values in losses.items():
        for number, value in enumerate(values):
            if step <= first_epoch or number >= len(kept):
                kept.append(value)
            else:
                kept[number] = value
        logged.append((step, sum(kept) / len(kept)))
    separated = tensorboard.separated(logged, first_epoch)
    assert [step for step, _ in separated] == list(losses)
    assert [value for _, value in separated] == pytest.approx([sum(values) / 2 for values in losses.values()])


def field(number: int, value: bytes | float, *, double: bool = False) -> bytes:
    """Return a field of a protocol-buffer message: bytes, a float, or an integer below 2**14."""
    if isinstance(value, bytes):
        return bytes([number << 3 | 2, len(value)]) + value
    if isinstance(value, float):
        return bytes([number << 3 | (1 if double else 5)]) + struct.pack("<d" if double else "<f", value)
    return bytes([number << 3, value & 127 | 128, value >> 7])


def event(tag: str, scalar: bytes, *, step: int | None = None, when: float = 0.0) -> bytes:
    value = field(1, tag.encode()) + scalar
    data = field(1, when, double=True) + (b"" if step is None else field(2, step)) + field(5, field(1, value))
    return struct.pack("<QI", len(data), 0) + data + bytes(4)


def events(folder: Path, *records: bytes) -> Path:
    path = folder / "events.out.tfevents.1"
    path.write_bytes(b"".join(records))
    return path


def test_every_form_of_a_scalar_is_read(tmp_path: Path) -> None:
    simple = field(2, 0.5)
    packed, single = (field(8, field(5, value)) for value in (struct.pack("<f", 0.25), 0.125))
    image = field(4, b"png")
    unknown = field(6, 7) + field(7, 1.5, double=True) + field(9, b"x") + simple
    path = events(
        tmp_path,
        event("loss/current", simple, step=300, when=8.5),
        event("loss/average", packed, step=1),
        event("lr/unet", single),  # an event of step 0 has no field for it
        event("a picture", image, step=2),
        event("two", field(8, field(5, 1.0) + field(5, 2.0)), step=2),
        event("other", unknown, step=3),
    )
    assert list(tensorboard.scalars(path)) == [
        (8.5, 300, "loss/current", 0.5),
        (0.0, 1, "loss/average", 0.25),
        (0.0, 0, "lr/unet", 0.125),
        (0.0, 3, "other", 0.5),
    ]
    names = [list(entry) for entry in tensorboard.history(tmp_path)]
    assert names == [["step", "lr_unet"], ["step", "average_loss"], ["step", "loss"]]


def test_a_record_beyond_the_end_and_a_broken_one_end_the_file(tmp_path: Path) -> None:
    good = event("loss/current", field(2, 0.5), step=1)
    broken = struct.pack("<QI", 3, 0) + bytes([5 << 3 | 2, 9, 0]) + bytes(4)
    for last in (struct.pack("<QI", 2**63, 0), broken, good[:-1], good[:12], good[:5]):
        assert len(list(tensorboard.scalars(events(tmp_path, good, good, last)))) == 2
    assert len(list(tensorboard.scalars(events(tmp_path, good, good)))) == 2


def test_steps_are_shifted_by_time_and_a_loss_that_is_not_finite_is_none(tmp_path: Path) -> None:
    nan = field(2, float("nan"))
    validation = "loss/validation/step_average"
    events(
        tmp_path,
        event("loss/current", nan, step=1, when=10.0),
        event(validation, field(2, 3.0), step=2, when=10.0),
        event(validation, field(2, 2.0), step=4, when=20.0),
        event(validation, nan, step=5, when=20.0),
    )
    read = tensorboard.history(tmp_path, lambda when: 100 if when > 15 else 0)
    assert read == [
        {"step": 1, "loss": None},
        {"step": 2, "validation_loss": 3.0},
        {"step": 104, "validation_loss": 2.0},
        {"step": 105, "validation_loss": None},
    ]


def test_a_later_file_wins(tmp_path: Path) -> None:
    for number, loss in (("2", 0.5), ("1", 0.25)):
        path = tmp_path / number / "events.out.tfevents.1"
        path.parent.mkdir()
        path.write_bytes(event("loss/current", field(2, loss), step=1))
        os.utime(path, (1000 - int(number), 1000 - int(number)))
    assert tensorboard.history(tmp_path) == [{"step": 1, "loss": 0.25}]


@given(st.binary(max_size=400))
def test_no_event_file_breaks_the_reader(data: bytes) -> None:
    scalars = list(tensorboard._event(data)) if _parses(data) else []
    assert all(isinstance(tag, str) for _, _, tag, _ in scalars)


def _parses(data: bytes) -> bool:
    try:
        list(tensorboard._event(data))
    except (IndexError, ValueError, struct.error):
        return False
    return True
