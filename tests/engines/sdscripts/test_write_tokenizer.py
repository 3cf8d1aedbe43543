"""Tokenizers from the vocabulary of open_clip_torch, without a download."""

from __future__ import annotations

import gzip
import importlib.util
import json
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from orchestrator.dataset.lint import clip_tokens
from orchestrator.engines.sdscripts import write_tokenizer

if TYPE_CHECKING:
    from pathlib import Path


def test_the_tokenizer_is_written_from_the_shipped_vocabulary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "open_clip"
    package.mkdir()
    merges = ["#version: 0.2", *(f"a b{number}" for number in range(write_tokenizer.MERGES + 100))]
    (package / write_tokenizer.VOCABULARY).write_bytes(gzip.compress("\n".join(merges).encode()))
    spec = SimpleNamespace(origin=str(package / "__init__.py"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: spec)
    folder = tmp_path / "out" / write_tokenizer.NAMES[0]
    write_tokenizer.write(folder)
    words = json.loads((folder / "vocab.json").read_text("utf-8"))
    assert len(words) == 49408
    assert (words["!"], words["!</w>"], words["<|endoftext|>"]) == (0, 256, 49407)
    assert write_tokenizer.characters() == list(clip_tokens.byte_characters().values())
    assert len(set(write_tokenizer.characters())) == 256
    assert json.loads((folder / "tokenizer_config.json").read_text("utf-8"))["model_max_length"] == 77
    assert not folder.with_name(f"{folder.name}.part").exists()
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(FileNotFoundError):
        write_tokenizer.write(tmp_path / "other")
