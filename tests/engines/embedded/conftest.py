"""The tiny model, its trainings and one thread for all tests of the embedded trainer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

import embedded_tiny as tiny

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Use one thread, because more threads slow down a model this small."""
    before = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        torch.set_num_threads(1)
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_training(tmp_path_factory: pytest.TempPathFactory) -> tiny.TinyTraining:
    return tiny.TinyTraining(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def base(tiny_training: tiny.TinyTraining) -> Path:
    return tiny_training.base


@pytest.fixture(scope="session")
def preset(tiny_training: tiny.TinyTraining) -> Path:
    return tiny_training.preset


@pytest.fixture(scope="session")
def trained(tiny_training: tiny.TinyTraining, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return files of three steps by family."""
    out = tmp_path_factory.mktemp("trained")
    networks = {
        "lora": tiny.LORA,
        "locon": tiny.locon(tiny_training.preset, "bypass_mode=True"),
        "loha": tiny.loha(tiny_training.preset),
    }
    for name, words in networks.items():
        assert tiny_training.train(out, *words, output_name=name, max_train_steps=3) == 0
    return {name: out / f"{name}.safetensors" for name in networks}


@pytest.fixture(scope="session")
def lora(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the file of an untrained LoRA with random factors."""
    file = tmp_path_factory.mktemp("lora") / "lora.safetensors"
    tiny.network_file(base, tiny.LORA, file)
    return file
