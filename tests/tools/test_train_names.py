"""The stage of unknown names."""

from __future__ import annotations

import pytest

from orchestrator.engines.embedded import EMBEDDED_BASE
from tools.demo_world.attributes import random_scene


@pytest.mark.parametrize("people", [1, 2])
def test_positions_align_names_with_the_class_word(people: int) -> None:
    train_names = pytest.importorskip("tools.demo_world.train_names")
    base = pytest.importorskip("tools.demo_world.base_parts").load_base(EMBEDDED_BASE)
    task = train_names.NamesTask(base, [scene for scene in map(random_scene, range(60)) if len(scene.characters) == people])
    task.start(1)
    for scene in task.scenes:
        pair = task._pair(task.captions, scene)
        named = [position for position in range(77) if pair.weights[position] < 1]
        assert named[0] == 1
        assert all(
            pair.named[position] == pair.plain[pair.positions[position]] for position in range(77) if position not in named
        )
        assert base.tokenizer.convert_ids_to_tokens([pair.plain[1]]) == ["two</w>" if people == 2 else "character</w>"]


def test_training_on_names_reduces_the_loss() -> None:
    torch = pytest.importorskip("torch")
    train_names = pytest.importorskip("tools.demo_world.train_names")
    base = pytest.importorskip("tools.demo_world.base_parts").load_base(EMBEDDED_BASE)
    task = train_names.NamesTask(base, [random_scene(seed) for seed in range(40)])
    torch.manual_seed(1)
    letters = base.text_encoder.text_model.embeddings.token_embedding.weight.data[:300]
    letters += 0.1 * torch.randn(letters.shape)
    task.start(1)
    first = sum(task.loss().item() for _ in range(3))
    optimizer = torch.optim.Adam(base.text_encoder.parameters(), 3e-3)
    for _ in range(15):
        optimizer.zero_grad()
        task.loss().backward()
        optimizer.step()
    assert sum(task.loss().item() for _ in range(3)) < 0.8 * first
