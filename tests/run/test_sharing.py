"""Steps with the same key.

One training for recipes that differ in what follows it.
"""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING

import pytest

import harness
from orchestrator.run import sharing
from orchestrator.run.context import Status
from orchestrator.run.workspace import Selection

if TYPE_CHECKING:
    from pathlib import Path

OTHER_PROMPT = '[render.prompts.side]\nprompt = "{trigger}, from side"\n'


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> harness.Project:
    """A project with two recipes that differ only in prompts."""
    project = harness.make(tmp_path, monkeypatch)
    project.recipe("cat-again", "lora", OTHER_PROMPT)
    return project


def statuses(outcomes: dict[str, harness.Outcome], name: str) -> dict[str, Status]:
    return {step.partition("/")[2]: outcome.status for step, outcome in outcomes.items() if step.startswith(f"{name}/")}


def test_a_recipe_with_other_prompts_takes_the_training_of_the_first(project: harness.Project) -> None:
    project.run("cat-lora")
    reasons = project.reasons("cat-again")
    assert reasons["cat-again/train"] == "the same as cat-lora/train"
    assert reasons["cat-again/merge"] == "the same as cat-lora/merge"
    assert reasons["cat-again/render"] == "new"
    outcomes = project.run("cat-again")
    assert statuses(outcomes, "cat-again") == {
        "train": Status.LINKED,
        "merge": Status.LINKED,
        "render": Status.DONE,
        "release": Status.DONE,
    }
    assert all("train" not in line for line in project.observer.begun)
    assert set(project.reasons("cat-again").values()) == {"cached"}


def test_linked_files_are_the_same_files_under_the_name_of_the_recipe(project: harness.Project) -> None:
    project.run("cat-lora")
    project.run("cat-again")
    (first,) = (project.root / "runs" / "cat-lora").glob("train-*/cat-lora.safetensors")
    (second,) = (project.root / "runs" / "cat-again").glob("train-*/cat-again.safetensors")
    assert first.stat().st_ino == second.stat().st_ino
    assert not list(second.parent.glob("cat-lora*"))
    shutil.rmtree(project.root / "runs" / "cat-lora")
    assert project.file("cat-again").is_file()
    assert project.reasons("cat-again")["cat-again/train"] == "cached"


def test_one_training_for_two_recipes_of_one_run(project: harness.Project) -> None:
    assert project.reasons("cat-lora", "cat-again")["cat-again/train"] == "the same as cat-lora/train"
    outcomes = project.run("cat-lora", "cat-again")
    assert outcomes["cat-lora/train"].status is Status.DONE
    assert outcomes["cat-again/train"].status is Status.LINKED
    assert sum(line.split(":")[0].endswith("/train") for line in project.observer.begun) == 1


def test_the_second_recipe_trains_alone_where_only_its_steps_are_selected(project: harness.Project) -> None:
    only = ("cat/dataset", "cat-again/train")
    outcomes = project.run("cat-lora", "cat-again", only=only)
    assert outcomes["cat-again/train"].status is Status.DONE


def test_a_forced_training_is_not_linked(project: harness.Project) -> None:
    project.run("cat-lora")
    assert project.run("cat-again", force=("train",))["cat-again/train"].status is Status.DONE


def test_a_damaged_training_is_not_linked(project: harness.Project) -> None:
    project.run("cat-lora")
    (trained,) = (project.root / "runs" / "cat-lora").glob("train-*/cat-lora.safetensors")
    trained.write_bytes(trained.read_bytes() + b"0")
    assert project.reasons("cat-again")["cat-again/train"] == "new"


def test_a_merge_of_another_training_of_the_same_key_is_not_linked(project: harness.Project) -> None:
    project.run("cat-lora")
    project.run("cat-again", force=("train",), only=("cat-again/train", "cat/dataset"))
    (first,) = (project.root / "runs" / "cat-lora").glob("train-*/record.json")
    text = first.read_text("utf-8")
    (second,) = (project.root / "runs" / "cat-again").glob("train-*/cat-again.safetensors")
    record = second.with_name("record.json")
    digest = json.loads(record.read_text("utf-8"))["outputs"]["cat-again.safetensors"]["sha256"]
    record.write_text(record.read_text("utf-8").replace(digest, "0" * 64), "utf-8")
    assert text == first.read_text("utf-8")
    assert project.reasons("cat-again")["cat-again/merge"] == "new"


def test_a_disk_without_hard_links_gets_copies(project: harness.Project, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise OSError(95, "not supported")

    project.run("cat-lora")
    monkeypatch.setattr(os, "link", no_links)
    outcomes = project.run("cat-again")
    assert outcomes["cat-again/train"].status is Status.LINKED
    assert project.file("cat-again").is_file()


def test_a_run_reads_the_names_of_folders_once_and_still_finds_its_own_steps(
    project: harness.Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []
    original = sharing._owners_by_folder
    monkeypatch.setattr(sharing, "_owners_by_folder", lambda root: read.append(root) or original(root))
    monkeypatch.setattr(sharing, "_SHARE", 1e-9)
    assert project.run("cat-lora", "cat-again")["cat-again/train"].status is Status.LINKED
    assert len(read) == 1


def test_folders_of_another_run_are_found_after_a_while(project: harness.Project) -> None:
    space = project.space()
    plan = space.plan(space.load(Selection(("cat-lora", "cat-again"))))
    step = plan.by_name["cat-again/train"]
    assert not space.store.shared.owners(step)
    project.run("cat-lora")
    assert space.store.shared.owners(step) == ["cat-lora"]


def test_a_training_that_draws_its_own_prompts_is_not_linked(project: harness.Project) -> None:
    project.recipe("cat-drawn", "lora", "[training]\nsample_every_n_steps = 5\n" + OTHER_PROMPT)
    project.run("cat-lora")
    assert project.reasons("cat-drawn")["cat-drawn/train"] == "new"
    assert project.reasons("cat-again", "cat-drawn")["cat-again/train"] == "the same as cat-lora/train"
    assert project.run("cat-again", "cat-drawn")["cat-drawn/train"].status is Status.DONE


def test_images_that_a_finished_training_did_not_draw_are_named(project: harness.Project) -> None:
    project.run("cat-lora")
    project.recipe("cat-lora", "lora", "[training]\nsample_every_n_steps = 5\n" + OTHER_PROMPT)
    space = project.space()
    plan = space.plan(space.load(Selection(("cat-lora",))))
    folder = space.store.folder(plan.by_name["cat-lora/train"])
    assert space.reasons(plan)["cat-lora/train"] is None
    (note,) = space.notes
    assert note.startswith("cat-lora/train is finished and drew no images: training.sample_every_n_steps is of no effect;")
    assert note.endswith("  python -m orchestrator run cat-lora --force train  draws them")
    (folder / "sample").mkdir()
    (folder / "sample" / "cat-lora_000005_00_1.png").touch()
    again = project.space()
    again.plan(again.load(Selection(("cat-lora",))))
    assert again.notes == []


def test_a_step_is_found_though_a_reading_began_before_it_was_finished(
    project: harness.Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = project.space()
    plan = space.plan(space.load(Selection(("cat-lora", "cat-again"))))
    first, step = plan.by_name["cat-lora/train"], plan.by_name["cat-again/train"]

    def read_meanwhile(_root: Path) -> dict[str, list[str]]:
        space.store.shared.add(first)
        return {}

    monkeypatch.setattr(sharing, "_owners_by_folder", read_meanwhile)
    assert space.store.shared.owners(step) == ["cat-lora"]


def test_a_training_too_short_for_an_image_is_linked_and_not_repeated_for_it(project: harness.Project) -> None:
    project.recipe("cat-drawn", "lora", "[training]\nsample_every_n_steps = 5000\n" + OTHER_PROMPT)
    project.run("cat-lora")
    space = project.space()
    plan = space.plan(space.load(Selection(("cat-drawn",))))
    assert str(space.reasons(plan)["cat-drawn/train"]) == "the same as cat-lora/train"
    project.run("cat-drawn")
    space.plan(space.load(Selection(("cat-drawn",))))
    assert space.notes == []
