"""The tokenizer of the world."""

from __future__ import annotations

from tools.demo_world import vocabulary
from tools.demo_world.tokenizer import merges_of


def test_every_word_is_one_token() -> None:
    made = {a + b for a, b in merges_of(vocabulary.words())}
    assert {f"{word}</w>" for word in vocabulary.words()} <= made
