"""A CLIP tokenizer in which every word of the vocabulary is one token.

Other text splits into bytes.
"""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from orchestrator.dataset.lint.clip_tokens import byte_characters
from tools.demo_world import vocabulary

if TYPE_CHECKING:
    from pathlib import Path

START: Final = "<|startoftext|>"
END: Final = "<|endoftext|>"
LENGTH: Final = 77


def merges_of(words: tuple[str, ...]) -> list[tuple[str, str]]:
    """Return byte-pair merges that make every word one token.

    The most frequent pair is first.
    """
    split = [[*word[:-1], f"{word[-1]}</w>"] for word in words]
    merges: list[tuple[str, str]] = []
    while pairs := Counter(pair for parts in split for pair in pairwise(parts)):
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append(best)
        split = [_merge(parts, best) for parts in split]
    return merges


def _merge(parts: list[str], pair: tuple[str, str]) -> list[str]:
    merged: list[str] = []
    for part in parts:
        if merged and (merged[-1], part) == pair:
            merged[-1] = merged[-1] + part
        else:
            merged.append(part)
    return merged


def write_tokenizer(folder: Path) -> int:
    """Write the files of a CLIPTokenizer to ``folder``.

    Returns the number of tokens.
    """
    folder.mkdir(parents=True, exist_ok=True)
    symbols = tuple(byte_characters().values())
    merges = merges_of(vocabulary.words())
    tokens = [*symbols, *(f"{symbol}</w>" for symbol in symbols), *dict.fromkeys(a + b for a, b in merges), START, END]
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    config = {
        **special,
        "model_max_length": LENGTH,
        "tokenizer_class": "CLIPTokenizer",
        "do_lower_case": True,
        "errors": "replace",
    }
    lines = ["#version: 0.2", *(f"{a} {b}" for a, b in merges), ""]
    (folder / "merges.txt").write_text("\n".join(lines), encoding="utf-8")
    for name, content in (
        ("vocab.json", {token: index for index, token in enumerate(tokens)}),
        ("special_tokens_map.json", special),
        ("tokenizer_config.json", config),
    ):
        (folder / name).write_text(
            json.dumps(content, ensure_ascii=False, indent=None if name == "vocab.json" else 2) + "\n", encoding="utf-8"
        )
    return len(tokens)
