"""Write the tables of base models in both READMEs.

Run: python -m tools.models_table
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from orchestrator.models.registry import ARCHITECTURES
from orchestrator.system import files

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.models.architecture import Architecture

ROOT: Final = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- models -->", "<!-- /models -->"
HEADS: Final = {
    "README.md": (
        *("base model", "`base.architecture`", "trained by", "sd-scripts' LoRA", "LyCORIS"),
        *("blocks for weights", "images drawn by", "tested at"),
    ),
    "README.ja.md": (
        *("ベースモデル", "`base.architecture`", "学習スクリプト", "sd-scripts の LoRA", "LyCORIS"),
        *("層別の重み", "画像を描くスクリプト", "テスト"),
    ),
}
WORDS: Final = {
    "README.md": {"all": "all", "with a preset": "with a preset", "full size": "full size", "small size": "small size"},
    "README.ja.md": {
        "all": "すべて",
        "with a preset": "プリセット必須",
        "full size": "本来のサイズ",
        "small size": "小さなサイズ",
    },
}
FULL_SIZE: Final = ("sd1", "sdxl", "anima")
"""Architectures that make test-sd-scripts trains at full size, too: all but SD1.5 with SLOW=1."""


def rows(name: str) -> Iterator[str]:
    """Yield the lines of the table in one of the two files."""
    yield f"| {' | '.join(HEADS[name])} |"
    yield f"|{' --- |' * len(HEADS[name])}"
    for entry in ARCHITECTURES.values():
        yield f"| {' | '.join(_cells(entry, WORDS[name]))} |"


def _cells(entry: Architecture, words: dict[str, str]) -> Iterator[str]:
    yield entry.title
    yield f"`{entry.name}`"
    yield f"`{entry.trainer_script}`"
    yield f"`{entry.network_module}`"
    families = words["all"] if entry.lycoris is None else ", ".join(entry.lycoris)
    yield f"{families} ({words['with a preset']})" if entry.lycoris_preset else families
    yield _blocks(entry.blocks)
    yield f"`{entry.renderer.script}`"
    yield ", ".join(words[size] for size in ("small size", *(["full size"] if entry.name in FULL_SIZE else [])))


def _blocks(blocks: tuple[str, ...]) -> str:
    """Return BASE, D00-D18, S00-S37."""
    ranges: dict[str, list[str]] = {}
    for block in blocks:
        ranges.setdefault(block.rstrip("0123456789"), []).append(block)
    return ", ".join(names[0] if len(names) == 1 else f"{names[0]}-{names[-1]}" for names in ranges.values())


def updated(name: str, text: str) -> str:
    """Return the text of a file with its table of today.

    Raises:
        ValueError: the file has no marks for the table.
    """
    if BEGIN not in text:
        raise ValueError(f"{name} lacks {BEGIN}")
    table = "\n".join([BEGIN, *rows(name), END])
    return re.sub(f"{re.escape(BEGIN)}.*?{re.escape(END)}", lambda _: table, text, flags=re.DOTALL)


def main() -> None:
    """Write both files."""
    for name in HEADS:
        path = ROOT / name
        files.write_text(path, updated(name, path.read_text("utf-8")))
        sys.stdout.write(f"wrote {path}\n")


if __name__ == "__main__":
    main()
