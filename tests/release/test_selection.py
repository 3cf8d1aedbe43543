"""The verb select.

Numbers of saved steps, the kept table, the released step.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

import fakes
import harness
from command_line import call
from onnx_models import encoder
from orchestrator import report
from orchestrator.errors import RecipeError, StepFailed
from orchestrator.release import free_prompts, measures, selection, step_measures
from orchestrator.release.proposal import StepRow, propose
from orchestrator.run.context import Silent
from orchestrator.run.partial_run import PartialRun
from orchestrator.run.workspace import Selection
from orchestrator.weights.io.safetensors_io import read_header

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.recipe import Recipe


@pytest.fixture
def cats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> harness.Project:
    project = harness.make(tmp_path / "project", monkeypatch)
    monkeypatch.setenv("KRNK_PROJECT", str(project.root))
    monkeypatch.delenv("KRNK_ENCODER", raising=False)
    project.recipe("cat-saved", "lora", "[training]\nsave_every_n_steps = 8\n")
    return project


def loaded(cats: harness.Project) -> Recipe:
    return cats.space().load(Selection(("cat-saved",)))[0].recipe


def test_saved_steps_are_compared_with_the_base_in_one_process(cats: harness.Project) -> None:
    space, observer = cats.space(), harness.RecordingObserver()
    with PartialRun(space, lambda _: observer) as run:
        selected = selection.compare(run, loaded(cats), (0.5, 1.0))
    assert [(row.step, row.multiplier) for row in selected.rows] == [(8, 0.5), (8, 1), (16, 0.5), (16, 1), (20, 0.5), (20, 1)]
    assert [text.partition(":")[0] for text in observer.begun].count("cat-saved/render") == 1
    assert all(row.freedom < 0 for row in selected.rows)  # the fake renderer draws another shade with every LoRA
    assert selected.measured_by == "colour layout and edges"
    assert selected.grids[0].name == "step-multiplier-front_grid.png"
    kept = selection.read(space.store, "cat-saved")
    assert kept["rows"][0].keys() >= {"step", "multiplier", "validation_loss", "likeness", "freedom", "ranks", "front"}
    observer.begun.clear()
    with PartialRun(space, lambda _: observer) as run:
        assert selection.compare(run, loaded(cats), (0.5, 1.0)).rows == selected.rows
    assert observer.begun == []


def test_an_engine_that_draws_one_by_one_releases_nothing(cats: harness.Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fakes, "together", lambda items: [[number] for number in range(len(items))])
    observer = harness.RecordingObserver()
    with PartialRun(cats.space(), lambda _: observer) as run:
        selected = selection.compare(run, loaded(cats))
    assert len(selected.rows) == 3
    begun = [text.partition(":")[0] for text in observer.begun]
    assert begun.count("cat-saved/render") == 8  # three steps with and without the trigger, twice the base
    assert "cat-saved/release" not in begun


def test_a_taken_step_is_released_with_its_reason(
    cats: harness.Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "select", "cat-saved", "--quiet") == 0
    out = capsys.readouterr().out
    proposed = selection.read(cats.space().store, "cat-saved")["proposed"]
    assert f"step {proposed['step']}: no other is better" in out
    assert f"select cat-saved --step {proposed['step']}  releases it" in out
    assert not (cats.root / "runs" / "cat-saved" / "latest").exists()

    assert call(monkeypatch, "select", "cat-saved", "--step", str(proposed["step"]), "--quiet") == 0
    latest = cats.root / "runs" / "cat-saved" / "latest"
    manifest = json.loads((latest / "manifest.json").read_text("utf-8"))
    assert manifest["facts"]["step"]["reason"] == proposed["reason"]
    assert read_header(latest / "cat-saved.safetensors").metadata["ss_steps"] == str(proposed["step"])

    other = next(step for step in (8, 16) if step != proposed["step"])
    assert call(monkeypatch, "select", "cat-saved", "--step", str(other), "--quiet") == 0
    facts = json.loads((latest / "manifest.json").read_text("utf-8"))["facts"]
    assert facts["step"]["reason"] == f"chosen by hand; step {proposed['step']} was proposed"
    capsys.readouterr()
    assert call(monkeypatch, "run", "cat-saved") == 0  # the choice stays
    assert "cached" in capsys.readouterr().err
    space = cats.space()
    members = space.load(Selection(("cat-saved",)))
    page = report.write(space.store.root, members, cats.root / "page.html", measure=False).read_text("utf-8")
    assert "Saved steps" in page
    assert f"Proposed: step {proposed['step']}" in page
    assert f"{other}: chosen by hand" in page

    assert call(monkeypatch, "select", "cat-saved", "--step", "last", "--quiet") == 0
    assert "step" not in json.loads((latest / "manifest.json").read_text("utf-8"))["facts"]


def test_steps_without_a_validation_are_named() -> None:
    table = [StepRow(100, 1.0, 0.2, 0.3, -0.1), StepRow(150, 1.0, None, 0.2, -0.2)]
    selected = selection.Selected(table, "x", propose(table), [])
    assert selected.uncounted().startswith("the validation loss does not count: step 150 has none")
    heads, rows = selected.table()
    assert heads[2] == "validation loss"
    assert rows[1][2] == "\N{EN DASH}"
    assert selection.Selected(table[:1], "x", propose(table[:1]), []).uncounted() == ""


def test_a_training_that_saves_one_step_is_named(cats: harness.Project) -> None:
    recipe = cats.space().load(Selection(("cat-lora",)))[0].recipe
    with (
        PartialRun(cats.space(), lambda _: Silent()) as run,
        pytest.raises(RecipeError, match=r"cat-lora: training\.save_every_n_steps  is not set.*\n.*set it to 4"),
    ):
        selection.compare(run, recipe)
    assert not (cats.root / "runs" / "cat-lora").exists()


def test_a_step_that_cannot_be_taken_is_named(cats: harness.Project) -> None:
    with PartialRun(cats.space(), lambda _: Silent()) as run:
        with pytest.raises(RecipeError, match="--step 9  was not saved; the training of cat-saved left 8, 16, 20"):
            selection.take(run, loaded(cats), "9")
        with pytest.raises(RecipeError, match="neither the number of a saved step nor last"):
            selection.take(run, loaded(cats), "best")
        cats.recipe("cat-saved", "lora", "[training]\nsave_every_n_steps = 8\n[select]\nstep = 8\n")
        with pytest.raises(RecipeError, match="the recipe names the step itself"):
            selection.take(run, loaded(cats), "16")


def test_free_prompts_have_the_class_word_instead_of_the_trigger(cats: harness.Project) -> None:
    free = free_prompts.free(loaded(cats)).render.prompts
    assert {name: prompt.prompt for name, prompt in free.items()} == {"free-front": "character, from front"}
    assert free_prompts.text(loaded(cats), "cat, catalogue, black cat") == "character, catalogue, black"


@pytest.mark.parametrize(
    ("prompts", "batch", "asked", "expected"), [(7, 8, None, 1), (6, 4, None, 2), (4, 4, None, 1), (2, 8, 5, 2)]
)
def test_free_prompts_fill_the_last_batch(
    cats: harness.Project, prompts: int, batch: int, asked: int | None, expected: int
) -> None:
    recipe = loaded(cats)
    first = recipe.render.prompts["front"]
    render = recipe.render.model_copy(update={"prompts": {str(n): first for n in range(prompts)}, "batch_size": batch})
    select = recipe.select.model_copy(update={"free_prompts": asked})
    assert free_prompts.count(recipe.model_copy(update={"render": render, "select": select})) == expected


def solid(folder: Path, **colours: tuple[int, int, int]) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    for name, colour in colours.items():
        Image.new("RGB", (32, 32), colour).save(folder / f"{name}.png")
    return [folder / f"{name}.png" for name in colours]


class RedTagger:
    """Finds "red" in red images."""

    def vocabulary(self) -> set[str]:
        return {"red", "blue"}

    def tags(self, image: Image.Image, _threshold: float) -> list[str]:
        pixel: Any = image.getpixel((0, 0))
        return ["red"] if pixel[0] > 128 else []


def test_numbers_are_differences_to_the_base(tmp_path: Path) -> None:
    trained = solid(tmp_path / "trained", a=(250, 0, 0), b=(0, 0, 250))
    bare = solid(tmp_path / "bare", one=(120, 120, 120), two=(120, 120, 120))
    free = solid(tmp_path / "free", one=(120, 120, 120))
    recall = measures.TagRecall(RedTagger(), 0.5, ["krnk, red", "krnk, blue, unknown"])  # type: ignore[arg-type]
    comparison = measures.BaseComparison(measures.LayoutAndEdges(), trained, bare, free, recall)
    same = comparison.of(bare, free)
    assert (same.likeness, same.tag_recall) == (0, 0)
    assert same.freedom == pytest.approx(0, abs=1e-6)
    learned = comparison.of(solid(tmp_path / "x", one=(250, 0, 0), two=(0, 0, 250)), free)
    assert learned.likeness > 0.1
    assert learned.tag_recall == 0.5
    leaked = comparison.of(bare, solid(tmp_path / "y", one=(250, 0, 0)))
    assert leaked.freedom < -0.1
    with pytest.raises(StepFailed, match=r"gone\.png"):
        comparison.of([tmp_path / "gone.png"], free)


def test_an_encoder_of_the_user_measures_by_the_cosines_of_its_embeddings(
    cats: harness.Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = encoder(tmp_path / "clip-tiny")
    trained = solid(tmp_path / "trained", a=(250, 0, 0))
    bare = solid(tmp_path / "bare", one=(0, 250, 0))
    comparison = measures.BaseComparison(measures.describer(folder), trained, bare, bare)
    assert comparison.of(trained, bare).likeness == pytest.approx(1 - comparison.base_likeness, abs=1e-4)
    assert comparison.of(trained, trained).freedom < -0.5
    monkeypatch.setenv("KRNK_ENCODER", str(folder))
    assert call(monkeypatch, "select", "cat-saved", "--quiet") == 0
    assert "measured by clip-tiny" in capsys.readouterr().out
    assert call(monkeypatch, "select", "cat-saved", "--quiet", "--encoder", str(tmp_path / "none")) == 3
    assert "holds no ONNX file" in capsys.readouterr().err


def test_layout_and_edges_know_position_colour_and_direction() -> None:
    by = measures.LayoutAndEdges()

    def stripes(*, upright: bool) -> Image.Image:
        pixels = np.zeros((64, 64, 3), np.uint8)
        pixels[:, ::8] = 255
        return Image.fromarray(pixels if upright else pixels.transpose(1, 0, 2))

    images = [stripes(upright=True), stripes(upright=False), Image.new("RGB", (64, 64), "white")]
    table = by.similarity(by.describe(images), by.describe(images))
    assert np.allclose(np.diag(table), 1)
    assert table[0, 1] < 0.9
    assert table[0, 2] < table[0, 1]
    assert ((table >= 0) & (table <= 1 + 1e-6)).all()


def test_validation_losses_are_read_from_the_training(tmp_path: Path) -> None:
    lines = [{"done": 1, "total": 2}, {"done": 2, "total": 2, "validation_loss": 0.25}]
    (tmp_path / "progress.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert step_measures.validation_losses(tmp_path) == {2: 0.25}
