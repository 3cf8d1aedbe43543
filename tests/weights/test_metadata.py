"""Provenance in the metadata."""

from __future__ import annotations

from orchestrator.weights.io import metadata


def test_text_that_is_not_provenance_counts_as_none() -> None:
    for text in ("[1, 2]", "nonsense", '{"a": 1}', "[" * 100000):
        assert metadata.provenance({metadata.PROVENANCE: text}) == []
