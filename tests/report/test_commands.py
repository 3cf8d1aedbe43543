"""The commands of finished steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.report import collect, commands
from report_store import loaded, plan

if TYPE_CHECKING:
    from pathlib import Path


def test_the_commands_of_weight_surgery_are_verbs(runs: Path) -> None:
    data = collect.collect(runs, loaded(), plan(runs))
    member = next(member for member in data.members if member.recipe.name == "krnk-lora3x3")
    texts = {entry["name"]: entry["text"] for entry in commands.commands(runs, member)}
    merge, resize = (texts[f"krnk-lora3x3/{kind}"].split() for kind in ("merge", "resize"))
    assert merge[:4] == ["python", "-m", "orchestrator", "merge"]
    assert merge[-2:] == ["--block-weights", "FACE"]
    assert (runs.parent / resize[4]).is_file()
    assert "/merge-" in resize[4]
    assert resize[6:8] == ["--sv-ratio", "16"]
    assert "--rank-rule 2023" in texts["krnk-lora3x3/resize"]
    assert texts["krnk-lora3x3/train"].startswith("python -m orchestrator.train")
    assert not any(str(runs.parent) in text or ".partial" in text for text in texts.values())
