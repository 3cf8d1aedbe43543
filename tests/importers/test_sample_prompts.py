"""Sample prompts of other programs as render prompts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from import_cases import GUI, dispositions, loaded
from orchestrator.importers import reader, sample_prompts, to_recipe
from orchestrator.importers.notes import Disposition, ImportedSettings

if TYPE_CHECKING:
    from pathlib import Path

LINES = """# my witch
witch, pink hair, hat --n lowres, bad hands --w 512 --h 770 --d 7 --s 20 --l 6.5
witch (from behind:1.2) --s 20 --l 6.5 --ss euler_a

witch at night --w 640 --h 512 --s 30 --l 6.5 --am 0.8
"""
TOML = """
[prompt]
width = 512
height = 768
scale = 6.5
sample_steps = 20
[[prompt.subset]]
prompt = "witch, pink hair, hat"
negative_prompt = "lowres"
seed = 7
[[prompt.subset]]
prompt = "witch at night"
width = 640
"""


def test_lines_of_kohya_ss_become_prompts_of_the_recipe(tmp_path: Path) -> None:
    table = {**GUI, "sample_prompts": LINES, "sample_sampler": "euler_a"}
    (tmp_path / "a.json").write_text(json.dumps(table), "utf-8")
    imported = to_recipe.recipe(reader.read(str(tmp_path / "a.json"))[0])
    render = loaded(imported, tmp_path).render
    first, second, third = render.prompts.values()
    assert list(render.prompts) == ["sample-1", "sample-2", "sample-3"]
    assert (first.prompt, first.negative, first.seed) == ("witch, pink hair, hat", "lowres, bad hands", 7)
    assert (second.prompt, second.negative, second.seed) == ("witch (from behind:1.2)", None, None)
    assert (render.width, render.height, render.steps, render.scale, render.sampler) == (512, 768, 20, 6.5, "euler_a")
    assert [(p.width, p.height) for p in (first, second, third)] == [(None, None), (None, 512), (640, 512)]
    assert dispositions(imported)["sample_prompts"] == "kept"
    assert dispositions(imported)["sample_sampler"] == "kept"
    lost = {note.name: note.why for note in imported.of(Disposition.LOST)}
    assert lost["sample_prompts: sample_steps"] == "the prompts differ (20, 30), and a recipe has it once: 20 is used"
    assert "sample_prompts 3: --am 0.8" in lost
    assert "sample_prompts 3: --am 0.8" in imported.text()


@pytest.mark.parametrize("ending", ["txt", "toml", "json"])
def test_a_file_of_prompts_is_read(tmp_path: Path, ending: str) -> None:
    """A path of Windows, relative to a folder above the settings."""
    shared = {"height": 768, "scale": 6.5, "sample_steps": 20}
    texts = {
        "txt": "witch, pink hair, hat --n lowres --d 7 --h 768 --l 6.5 --s 20\n"
        "witch at night --w 640 --h 768 --l 6.5 --s 20\n",
        "toml": TOML,
        "json": json.dumps(
            [
                shared | {"prompt": "witch, pink hair, hat", "negative_prompt": "lowres", "seed": 7},
                shared | {"prompt": "witch at night", "width": 640},
            ]
        ),
    }
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / f"mine.{ending}").write_text(texts[ending], "utf-8")
    (tmp_path / "configs").mkdir()
    path = tmp_path / "configs" / "a.toml"
    path.write_text(f"network_dim = 8\nmax_train_steps = 10\nsample_prompts = 'prompts\\mine.{ending}'\n", "utf-8")
    imported = to_recipe.recipe(reader.read(str(path))[0])
    render = loaded(imported, tmp_path).render
    assert [prompt.prompt for prompt in render.prompts.values()] == ["witch, pink hair, hat", "witch at night"]
    first, second = render.prompts.values()
    assert (first.negative, first.seed, second.width, second.height) == ("lowres", 7, 640, None)
    assert (render.width, render.height, render.steps, render.scale) == (512, 768, 20, 6.5)
    assert dispositions(imported)["sample_prompts"] == "kept"


def test_what_a_line_leaves_out_is_as_the_trainer_draws_it() -> None:
    table = sample_prompts.render(ImportedSettings("a", "b"), {"sample_prompts": "a witch"})
    assert (table["steps"], table["scale"], table["width"]) == (30, 7.5, 512)
    assert table["prompts"] == {"sample-1": {"prompt": "a witch"}}


def test_a_part_that_is_no_number_is_noted() -> None:
    settings = ImportedSettings("a", "b")
    table = sample_prompts.render(settings, {"sample_prompts": "a witch --w wide --d 3"})
    assert table["prompts"] == {"sample-1": {"prompt": "a witch", "seed": 3}}
    assert [note.name for note in settings.notes if note.disposition is Disposition.LOST] == ["sample_prompts 1: --w wide"]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("gone.txt", "gone.txt does not exist"),
        ("# only a comment", "holds no prompt"),
        ("bad.toml", "cannot be read"),
        ("bad.json", "cannot be read"),
        ("--n lowres", "cannot be read"),
    ],
)
def test_prompts_that_cannot_be_read_are_noted(tmp_path: Path, value: str, reason: str) -> None:
    (tmp_path / "bad.toml").write_text("[prompt]\n", "utf-8")
    (tmp_path / "bad.json").write_text("[1]", "utf-8")
    settings = ImportedSettings("a", "b", folder=tmp_path)
    assert sample_prompts.render(settings, {"sample_prompts": value}) == {}
    (note,) = settings.notes
    assert (note.disposition, note.where) == (Disposition.LOST, "render.prompts")
    assert reason in note.why
