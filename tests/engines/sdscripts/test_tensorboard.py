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
