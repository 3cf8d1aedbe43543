"""Sample images, TensorBoard and W&B."""

from __future__ import annotations

import sys
import types
from typing import TYPE_CHECKING, Any

import embedded_tiny as tiny
from embedded_tiny import TinyTraining

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_sample_images_and_tensorboard(tiny_training: TinyTraining, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("krnk --w 32 --h 32 --s 2 --d 5\n")
    out, logs = tmp_path / "out", tmp_path / "logs"
    words = (
        "--sample_prompts",
        str(prompts),
        "--sample_every_n_steps",
        "2",
        "--logging_dir",
        str(logs),
        "--log_prefix",
        "krnk_",
    )
    assert tiny_training.train(out, *tiny.LORA, *words, max_train_steps=2) == 0
    assert len(list((out / "sample").glob("krnk_000002_00_*_5.png"))) == 1
    events = list(logs.glob("krnk_*/network_train/events.*"))
    assert len(events) == 1
    assert b"loss/current" in events[0].read_bytes()


def test_wandb_and_tensorboard_log_the_same_steps(
    tiny_training: TinyTraining, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged: list[tuple[int, set[str]]] = []
    arguments: dict[str, Any] = {}

    class FakeWandbRun:
        def log(self, values: dict[str, float], step: int) -> None:
            logged.append((step, set(values)))

        def finish(self) -> None:
            logged.append((0, set()))

    def init(**values: Any) -> FakeWandbRun:
        arguments.update(values)
        return FakeWandbRun()

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init))
    words = ("--logging_dir", str(tmp_path / "logs"), "--log_with", "all", "--wandb_run_name", "krnk")
    assert tiny_training.train(tmp_path / "out", *tiny.LORA, *words, max_train_steps=2) == 0
    assert arguments["project"] == "network_train"
    assert arguments["name"] == "krnk"
    assert [step for step, _ in logged] == [1, 2, 0]
    assert {"loss/current", "loss/average", "lr/unet"} <= logged[0][1]
    assert len(list((tmp_path / "logs").glob("*/network_train/events.*"))) == 1
