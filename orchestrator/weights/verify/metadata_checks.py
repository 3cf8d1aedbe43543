"""Check the promises of a recipe that metadata keep or break."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from orchestrator.weights.inspection import Inspection

Result = tuple[bool | None, str]


def entry(key: str, name: str) -> Callable[[Inspection, Mapping[str, Any]], Result | None]:
    """Return the check of the metadata entry ``name`` by the promise ``key``.

    It equals the promise, or is Dynamic after a resize.
    """

    def check(inspection: Inspection, promises: Mapping[str, Any]) -> Result | None:
        if key not in promises:
            return None
        stated = inspection.adapter.header.metadata.get(name)
        if stated is None:
            return None, f"no {name} in the metadata"
        expected = "Dynamic" if key in {"network_dim", "network_alpha"} and promises.get("resize") else promises[key]
        same = stated == str(expected) or (isinstance(expected, int | float) and _number(stated) == float(expected))
        return same, f"{name} is {stated}" + ("" if same else f", promised {expected}")

    return check


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def comment(inspection: Inspection, promises: Mapping[str, Any]) -> Result | None:
    """Check that ss_training_comment contains the resize, as by sd-scripts."""
    resize = promises.get("resize")
    if not resize:
        return None
    comment = inspection.adapter.header.metadata.get("ss_training_comment")
    if comment is None:
        return None, "no ss_training_comment in the metadata"
    return "resize" in comment, comment[:80]


def words(inspection: Inspection, promises: Mapping[str, Any]) -> Result | None:
    """Check that every trigger word is in the metadata's words or tags."""
    if "trigger_words" not in promises:
        return None
    expected = promises["trigger_words"]
    words = [word.strip() for word in (expected.split(",") if isinstance(expected, str) else expected) if word.strip()]
    if not inspection.trigger_words and "ss_tag_frequency" not in inspection.adapter.header.metadata:
        return None, "no words in the metadata"
    tags = inspection.adapter.header.metadata.get("ss_tag_frequency", "")
    missing = [word for word in words if word not in inspection.trigger_words and f'"{word}"' not in tags]
    return not missing, f"missing: {', '.join(missing)}" if missing else ", ".join(words)
