"""Checkpoints and their hashes."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest
from safetensors.torch import load_file, save

import embedded_tiny as tiny
from embedded_tiny import TinyTraining

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("family", ["lora", "locon", "loha"])
def test_hashes_follow_the_rule_of_sd_scripts(trained: dict[str, Path], family: str) -> None:
    metadata = tiny.metadata(trained[family])
    data = trained[family].read_bytes()
    body = data[8 + int.from_bytes(data[:8], "little") :]
    assert metadata["sshs_model_hash"] == hashlib.sha256(body).hexdigest()
    plain = save(load_file(trained[family]), {key: value for key, value in metadata.items() if key.startswith("ss_")})
    assert metadata["sshs_legacy_hash"] == hashlib.sha256(plain[0x100000:0x110000]).hexdigest()[:8]


def test_old_checkpoints_and_states_are_removed(
    tiny_training: TinyTraining, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ("--save_state", "--save_every_n_steps", "1", "--save_last_n_steps", "1", *tiny.LORA)
    assert tiny_training.train(tmp_path, *words, max_train_steps=4) == 0
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert kept == [
        "krnk-state",
        "krnk-step00000003-state",
        "krnk-step00000003.safetensors",
        "krnk-step00000004-state",
        "krnk-step00000004.safetensors",
        "krnk.safetensors",
    ]
    assert f"removing old checkpoint: {tmp_path}/krnk-step00000002.safetensors" in capfd.readouterr().out
