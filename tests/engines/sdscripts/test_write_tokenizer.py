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
    write_tokenizer.write(folder, tmp_path)
    words = json.loads((folder / "vocab.json").read_text("utf-8"))
    assert len(words) == 49408
    assert (words["!"], words["!</w>"], words["<|endoftext|>"]) == (0, 256, 49407)
    assert write_tokenizer.characters() == list(clip_tokens.byte_characters().values())
    assert len(set(write_tokenizer.characters())) == 256
    assert json.loads((folder / "tokenizer_config.json").read_text("utf-8"))["model_max_length"] == 77
    assert not folder.with_name(f"{folder.name}.part").exists()
    second = folder.with_name(write_tokenizer.SD2)
    write_tokenizer.write(second, tmp_path)
    assert '"pad_token": "!"' in (second / "tokenizer_config.json").read_text("utf-8")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(FileNotFoundError):
        write_tokenizer.write(tmp_path / "other", tmp_path)


def test_t5_is_copied_from_the_checkout_and_byt5_has_no_source(tmp_path: Path) -> None:
    (tmp_path / "configs" / "t5_old").mkdir(parents=True)
    (tmp_path / "configs" / "t5_old" / "spiece.model").write_text("words", "utf-8")
    write_tokenizer.write(tmp_path / write_tokenizer.T5, tmp_path)
    assert (tmp_path / write_tokenizer.T5 / "spiece.model").read_text("utf-8") == "words"
    write_tokenizer.write(tmp_path / write_tokenizer.BYT5, tmp_path)
    commit = (tmp_path / write_tokenizer.BYT5 / "refs" / "main").read_text("utf-8")
    assert (tmp_path / write_tokenizer.BYT5 / "snapshots" / commit / "tokenizer_config.json").is_file()
    with pytest.raises(FileNotFoundError):
        write_tokenizer.write(tmp_path / "other" / write_tokenizer.T5, tmp_path / "no checkout")
