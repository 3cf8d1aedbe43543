"""The program that runs a script of sd-scripts for all prompts, with small scripts in its place."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator.engines.sdscripts import draw_prompts

if TYPE_CHECKING:
    from pathlib import Path

HEAD = """
import os, sys
from pathlib import Path
folder = Path(sys.argv[sys.argv.index("--out") + 1])
(folder.parent.parent / "loads").open("a").write("load\\n")
(folder.parent.parent / "hub").write_text(os.environ.get("HF_HUB_CACHE", "") and str(
    [path.read_text() for path in sorted(Path(os.environ["HF_HUB_CACHE"]).glob("*/snapshots/*/vocabulary"))]))
"""
DIALOG = """
while True:
    line = input()
    if line == "{end}":
        break
    if line.startswith("broken"):
        continue
    (folder / "20261128_220000.png").write_text(line)  # within a second: one name
"""
READER = """
for number, line in enumerate(open(sys.argv[sys.argv.index("--from_file") + 1], encoding="utf-8")):
    if not line.startswith("broken"):
        (folder / f"20261128-2200-00{number}_7_.png").write_text(line.strip())
"""
MERGE = """
import logging
logging.getLogger("library.lora_utils").warning("Warning: not all LoRA keys are used: lora_unet_x")
"""


def run(tmp_path: Path, script: str, lines: list[str], **request: Any) -> subprocess.CompletedProcess[str]:
    path = tmp_path / "script.py"
    path.write_text(HEAD + script, "utf-8")
    temporary = tmp_path / "drawing"
    (tmp_path / "prompts.txt").write_text("\n".join(lines) + "\n", "utf-8")
    names = [f"p{number}" for number in range(len(lines))]
    whole = {"names": names, "lines": lines, "dialog": "input()" in script, "last_line": "", "temporary": str(temporary)}
    whole |= {"tokenizers": {"folder": str(tmp_path / "tokenizers"), "names": []}, **request}
    (tmp_path / "draw.json").write_text(json.dumps(whole), "utf-8")
    argv = [sys.executable, draw_prompts.__file__, str(tmp_path / "draw.json"), str(path)]
    argv += ["--from_file", str(tmp_path / "prompts.txt"), "--out", str(temporary / "images")]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    return subprocess.run(argv, capture_output=True, text=True, env=environment, timeout=60, check=False)


@pytest.mark.parametrize(("script", "end"), [(DIALOG.format(end=""), ""), (DIALOG.format(end="exit"), "exit"), (READER, "")])
def test_all_prompts_are_drawn_by_one_process_to_their_names(tmp_path: Path, script: str, end: str) -> None:
    done = run(tmp_path, script, ["a cat --d 1", "ねこ --d 1", "a dog --d 1"], last_line=end)
    assert done.returncode == 0, done.stderr
    assert [(tmp_path / f"p{number}.png").read_text("utf-8") for number in range(3)] == [
        "a cat --d 1",
        "ねこ --d 1",
        "a dog --d 1",
    ]
    assert (tmp_path / "loads").read_text("utf-8") == "load\n"
    assert not (tmp_path / "drawing").exists()
    if "input()" in script:
        assert "prompt 2/3: ねこ" in done.stdout


@pytest.mark.parametrize("script", [DIALOG.format(end=""), READER])
def test_a_prompt_without_an_image_fails(tmp_path: Path, script: str) -> None:
    """The scripts report a failed prompt, go on, and exit 0."""
    done = run(tmp_path, script, ["a cat", "broken", "a dog"])
    assert done.returncode == 1
    assert "images were drawn for p" in done.stderr
    assert not (tmp_path / "drawing").exists()


def test_a_lora_that_is_not_merged_whole_fails(tmp_path: Path) -> None:
    done = run(tmp_path, MERGE + READER, ["a cat"])
    assert done.returncode == 1
    assert "not all LoRA keys are used: lora_unet_x" in done.stderr
    assert not (tmp_path / "p0.png").exists()


def test_tokenizers_are_shown_as_a_cache_of_the_hub(tmp_path: Path) -> None:
    """In both layouts of --tokenizer_cache_dir.

    With one missing the script asks the Hub.
    """
    names = ["google_t5-v1_1-xxl", "google_gemma-2-2b", "models--google--byt5-small"]
    folder = tmp_path / "tokenizers"
    kept = [folder / f"models--google--{name}" / "snapshots" / "abc" for name in ("gemma-2-2b", "byt5-small")]
    for where, text in ((folder / names[0], "t5"), (kept[0], "gemma"), (kept[1], "byt5")):
        where.mkdir(parents=True)
        (where / "vocabulary").write_text(text, "utf-8")
    tokenizers = {"folder": str(tmp_path / "tokenizers"), "names": names}
    assert run(tmp_path, READER, ["a cat"], tokenizers=tokenizers).returncode == 0
    assert (tmp_path / "hub").read_text("utf-8") == "['byt5', 'gemma', 't5']"
    tokenizers["names"] = [*names, "openai_clip-vit-large-patch14"]
    assert run(tmp_path, READER, ["a cat"], tokenizers=tokenizers).returncode == 0
    assert not (tmp_path / "hub").read_text("utf-8")
