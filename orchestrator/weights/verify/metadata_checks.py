"""The promises that metadata keep or break, each as one question."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from orchestrator.weights.inspection import Inspection

Answer = tuple[bool | None, str]


def stated(key: str, name: str) -> Callable[[Inspection, Mapping[str, Any]], Answer | None]:
    """Return the question whether the metadata entry ``name`` is what the promise ``key`` says; Dynamic after a resize."""

    def question(found: Inspection, promised: Mapping[str, Any]) -> Answer | None:
        if key not in promised:
            return None
        have = found.adapter.header.metadata.get(name)
        if have is None:
            return None, f"no {name} in the metadata"
        want = "Dynamic" if key in {"network_dim", "network_alpha"} and promised.get("resize") else promised[key]
        same = have == str(want) or (isinstance(want, int | float) and _number(have) == float(want))
        return same, f"{name} is {have}" + ("" if same else f", promised {want}")

    return question


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def comment(found: Inspection, promised: Mapping[str, Any]) -> Answer | None:
    """Whether ss_training_comment tells of the resize, as sd-scripts writes it."""
    resize = promised.get("resize")
    if not resize:
        return None
    comment = found.adapter.header.metadata.get("ss_training_comment")
    if comment is None:
        return None, "no ss_training_comment in the metadata"
    return "resize" in comment, comment[:80]


def words(found: Inspection, promised: Mapping[str, Any]) -> Answer | None:
    """Whether every trigger word is among the words or training tags of the metadata."""
    if "trigger_words" not in promised:
        return None
    want = promised["trigger_words"]
    words = [word.strip() for word in (want.split(",") if isinstance(want, str) else want) if word.strip()]
    if not found.trigger_words and "ss_tag_frequency" not in found.adapter.header.metadata:
        return None, "no words in the metadata"
    seen = found.adapter.header.metadata.get("ss_tag_frequency", "")
    missing = [word for word in words if word not in found.trigger_words and f'"{word}"' not in seen]
    return not missing, f"missing: {', '.join(missing)}" if missing else ", ".join(words)
