"""X/Y grids of one training: steps, labels, the slider of the report."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from PIL import Image

import harness
from orchestrator import report
from orchestrator.errors import RecipeError
from orchestrator.release import saved_steps, variants
from orchestrator.release.variant import Axis
from orchestrator.run.context import Silent
from orchestrator.run.workspace import Selection

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def cats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> harness.Project:
    return harness.make(tmp_path / "project", monkeypatch)


def test_a_training_is_rendered_at_several_ratios_and_trained_once(cats: harness.Project) -> None:
    space = cats.space()
    loaded = space.load(Selection(("cat-lora",)))
    recipe = loaded[0].recipe
    lines: list[str] = []
    ratios = [Axis("sv_ratio", ("none", "4"))]
    (png,) = variants.draw(space, recipe, ratios, lambda _: Silent(), announce=lines.append)
    assert lines == ["1 of 2: sv_ratio none", "2 of 2: sv_ratio 4", "images of 2 variants"]
    owner = cats.root / "runs" / "cat-lora"
    assert len(list(owner.glob("train-*"))) == 1
    assert len(list(owner.glob("resize-*"))) == 1
    assert len(list(owner.glob("render-*"))) == 2
    assert not list(owner.glob("release-*"))
    with Image.open(png) as picture:
        made = json.loads(picture.info["Pictures"])
        rows = json.loads(picture.info["Grid"])["rows"]
    assert [row.partition(" (")[0] for row in rows] == ["sv_ratio none", "sv_ratio 4"]
    assert all("cat, from front" in text and "Steps: " in text for text in made.values())
    assert len(made) == 2
    assert cats.reasons("cat-lora")["cat-lora/render"] == "cached"  # the recipe itself is one of the variants

    out = report.write(space.store.root, loaded, cats.root / "page.html", measure=False)
    text = out.read_text("utf-8")
    assert "At several values of sv_ratio" in text
    assert "sv_ratio 4 (" in text
    assert text.count("data-compare=") == 1


def test_two_axes_give_a_grid_for_every_prompt(cats: harness.Project) -> None:
    space = cats.space()
    recipe = space.load(Selection(("cat-lora",)))[0].recipe
    axes = [Axis("block_weights", ("none", harness.WEIGHTS.strip("[]"))), Axis("multiplier", ("0.5", "1"))]
    (png,) = variants.draw(space, recipe, axes, lambda _: Silent())
    assert png.name == "block_weights-multiplier-front_grid.png"
    with Image.open(png) as picture:
        labels = json.loads(picture.info["Grid"])
        made = json.loads(picture.info["Pictures"])
    assert [column["label"] for column in labels["columns"]] == ["multiplier 0.5", "multiplier 1"]
    assert "<lora:cat-lora:0.5>" in made["block weights none / multiplier 0.5"]


def test_saved_steps_are_drawn_in_one_process_and_only_once(cats: harness.Project) -> None:
    cats.recipe("cat-saved", "lora", "[training]\nsave_every_n_steps = 8\n")
    space = cats.space()
    loaded = space.load(Selection(("cat-saved",)))
    recipe = loaded[0].recipe
    observer = harness.RecordingObserver()
    (png,) = variants.draw(space, recipe, [Axis("step", ("all",))], lambda _: observer)
    with Image.open(png) as picture:
        rows = json.loads(picture.info["Grid"])["rows"]
    assert [row.partition(" (")[0] for row in rows] == ["step 8", "step 16", "step 20"]
    assert [text.partition(":")[0] for text in observer.begun].count("cat-saved/render") == 1
    owner = cats.root / "runs" / "cat-saved"
    merged = {json.loads((folder / "record.json").read_text())["params"].get("step") for folder in owner.glob("merge-*")}
    assert merged == {8, 16, None}
    assert cats.reasons("cat-saved")["cat-saved/render"] == "cached"  # the last step, as `run` draws it
    train = next(owner.glob("train-*"))
    assert set(json.loads((train / "record.json").read_text())["outputs"]) == {
        "cat-saved.safetensors",
        "cat-saved-step00000008.safetensors",
        "cat-saved-step00000016.safetensors",
    }

    observer.begun.clear()
    variants.draw(space, recipe, [Axis("step", ("all",))], lambda _: observer)
    assert observer.begun == []
    images = {path: path.read_bytes() for path in owner.glob("render-*/*.png")}
    assert len(set(images.values())) == 3
    for path in next(owner.glob("render-*")).glob("*.png"):
        path.unlink()
    variants.draw(space, recipe, [Axis("step", ("all",))], lambda _: observer)
    assert observer.begun == ["cat-saved/render: output damaged: front.png"]
    assert {path: path.read_bytes() for path in owner.glob("render-*/*.png")} == images

    out = report.write(space.store.root, loaded, cats.root / "page.html", measure=False).read_text("utf-8")
    assert "At several values of step" in out


def test_a_step_that_was_not_saved_is_named(cats: harness.Project) -> None:
    cats.recipe("cat-saved", "lora", "[training]\nsave_every_n_steps = 8\n")
    space = cats.space()
    recipe = space.load(Selection(("cat-saved",)))[0].recipe
    with pytest.raises(RecipeError, match="--step 12  was not saved; the training of cat-saved left 8, 16, 20"):
        variants.draw(space, recipe, [Axis("step", ("8", "12"))], lambda _: Silent())
    with pytest.raises(RecipeError, match="takes numbers of steps, or all alone"):
        variants.draw(space, recipe, [Axis("step", ("all", "8"))], lambda _: Silent())
    for every, hint in ((8, "--force train  saves those"), (None, "set training.save_every_n_steps, then run the recipe")):
        training = recipe.training.model_copy(update={"save_every_n_steps": every})
        with pytest.raises(RecipeError, match=hint):
            saved_steps.check(recipe.model_copy(update={"training": training}), [12], [20])


def test_invalid_values_are_errors_before_anything_runs(cats: harness.Project) -> None:
    recipe = cats.space().load(Selection(("cat-lora",)))[0].recipe
    for axes in ([], [Axis("sv_ratio", ("x", "0.5"))], [Axis("multiplier", ("1e",))]):
        with pytest.raises(RecipeError):
            variants.vary(recipe, axes)
    with pytest.raises(RecipeError) as error:
        variants.vary(recipe, [Axis("sv_ratio", ("x", "0.5"))])
    assert len(error.value.problems) == 2
    assert "--sv-ratio x: is not a number" in str(error.value)
    assert not (cats.root / "runs").exists()
