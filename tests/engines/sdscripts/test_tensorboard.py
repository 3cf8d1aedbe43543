"""Scalars of TensorBoard event files: recorded, cut off and hostile ones."""

from __future__ import annotations

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
