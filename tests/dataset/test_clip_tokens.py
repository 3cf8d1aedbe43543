"""CLIP tokens, against the tokenizers library."""

from __future__ import annotations

import random

import pytest

from orchestrator.dataset.lint import clip_tokens


def test_tokens_are_those_of_the_tokenizer_that_trains() -> None:
    """The Rust tokenizers library, set up as transformers sets up CLIP's."""
    rust = pytest.importorskip("tokenizers")
    merges = list(clip_tokens._ranks())
    alphabet = list(clip_tokens.byte_characters().values())
    pieces = [*alphabet, *(f"{letter}</w>" for letter in alphabet), *("".join(pair) for pair in merges)]
    vocabulary = {piece: index for index, piece in enumerate([*pieces, "<|startoftext|>", "<|endoftext|>"])}
    assert len(vocabulary) == 49408
    theirs = rust.Tokenizer(rust.models.BPE(vocabulary, merges, end_of_word_suffix="</w>", unk_token="<|endoftext|>"))  # noqa: S106
    normal = rust.normalizers
    theirs.normalizer = normal.Sequence([normal.NFC(), normal.Replace(rust.Regex(r"\s+"), " "), normal.Lowercase()])
    words = rust.Regex(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+")
    before = rust.pre_tokenizers
    theirs.pre_tokenizer = before.Sequence(
        [before.Split(words, "removed", invert=True), before.ByteLevel(add_prefix_space=False)]
    )
    dice = random.Random(7)  # noqa: S311
    texts = ["krnk, simple background, white background, from above, upper body, smile", "it's 2026!", "", "a" * 60, "½①ß_é"]
    letters = "abcdefgh ijklmno pqrstuvwxyz ABC 0123,.!?'-_#()&é½ß"
    texts += ["".join(dice.choices(letters, k=dice.randrange(40))) for _ in range(500)]
    for text in texts:
        assert clip_tokens.split(text) == theirs.encode(text).tokens, text
    assert [clip_tokens.limit(length) for length in (75, 76, 225, 226)] == [75, 150, 225, None]
