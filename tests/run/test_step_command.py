"""Commands of steps: program, request and inputs of each kind."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest

import harness
from orchestrator.run.step_command import command
from orchestrator.run.workspace import Selection

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from orchestrator.plan.plan import Plan
    from orchestrator.run.store import Store
    from orchestrator.system.process import Command

RESIZE = "[resize]\nsv_ratio = 16\nnew_rank = 2\n"


@pytest.fixture
def cats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> harness.Project:
    made = harness.make(tmp_path / "p", monkeypatch)
    made.recipe("cat-lora", "lora", RESIZE)
    made.recipe("cat-loha", "other")
    return made


@pytest.fixture
def store(cats: harness.Project) -> Store:
    return cats.space().store


@pytest.fixture
def plan(cats: harness.Project) -> Plan:
    space = cats.space()
    return space.plan(space.load(Selection(("all",))))


@pytest.fixture
def made(cats: harness.Project, plan: Plan, store: Store) -> Callable[[str], Command]:
    return lambda name: command(plan.by_name[name], plan, store, cats.root)


def request(made: Command) -> dict[str, Any]:
    """Return the request of one of our own programs, which reads it from its work folder."""
    assert made.argv[:2] == (sys.executable, "-m")
    assert made.argv[-1] == str(made.cwd / "request.json")
    return json.loads(made.files["request.json"])


def test_a_dataset_is_built_from_the_project_into_its_work_folder(
    cats: harness.Project, plan: Plan, store: Store, made: Callable[[str], Command]
) -> None:
    build = made("cat/dataset")
    assert build.argv[2:4] == ("orchestrator.dataset", "build")
    table = request(build)
    assert (table["root"], table["output"]) == (str(cats.root), str(store.work(plan.by_name["cat/dataset"])))
    assert table["dataset"]["name"] == "cat"


def test_a_training_reads_the_finished_dataset_and_resumes_from_a_state(
    cats: harness.Project, plan: Plan, store: Store
) -> None:
    step, state = plan.by_name["cat-lora/train"], cats.root / "step0005-state"
    folder = store.folder(plan.by_name["cat/dataset"])
    folder.mkdir(parents=True)
    (folder / "dataset.toml").touch()
    table = json.loads(command(step, plan, store, cats.root, state).argv[-1])
    assert (table["dataset"], table["state"], table["work"]) == (["dataset.toml"], str(state), str(store.work(step)))


@pytest.mark.parametrize(("kind", "before"), [("merge", "train"), ("resize", "merge")])
def test_a_lora_tool_reads_the_file_of_the_step_before(
    plan: Plan, store: Store, made: Callable[[str], Command], kind: str, before: str
) -> None:
    step = plan.by_name[f"cat-lora/{kind}"]
    run = made(step.name)
    assert run.argv[2] == "orchestrator.weights.program"
    table = request(run)
    assert table["kind"] == kind
    assert table["input"] == str(store.folder(plan.by_name[f"cat-lora/{before}"]) / "cat-lora.safetensors")
    assert table["output"] == str(store.work(step) / "cat-lora.safetensors")
    assert table["params"].get("param", 16) == 16


def test_a_lora_tool_of_sd_scripts_is_started_as_its_program(cats: harness.Project) -> None:
    cats.recipe("cat-lora", "lora", f'{RESIZE}tool = "sd-scripts"\n')
    space = cats.space()
    plan = space.plan(space.load(Selection(("cat-lora",))))
    argv = command(plan.by_name["cat-lora/resize"], plan, space.store, cats.root).argv
    assert "orchestrator.weights.program" not in argv
    assert "16" in argv


def test_a_picture_is_drawn_with_the_last_file(plan: Plan, store: Store, made: Callable[[str], Command]) -> None:
    table = json.loads(made("cat-lora/render").argv[-1])
    assert table["lora"] == str(store.folder(plan.by_name["cat-lora/resize"]) / "cat-lora.safetensors")


def test_a_release_names_the_folders_of_the_steps_before_it(plan: Plan, store: Store, made: Callable[[str], Command]) -> None:
    table = request(made("cat-lora/release"))
    assert table["kind"] == "recipe"
    assert set(table["folders"]) == {"dataset", "train", "merge", "resize", "render"}
    assert table["images"] == table["folders"]["render"] == str(store.folder(plan.by_name["cat-lora/render"]))
    assert table["scale"] == 4


def test_recipes_of_a_subject_share_a_grid_and_a_collection(plan: Plan, store: Store, made: Callable[[str], Command]) -> None:
    grid, collection = (next(step for step in plan.shared() if step.kind == kind) for kind in ("render", "release"))
    table = request(made(grid.name))
    assert [row["label"] for row in table["rows"]] == ["other", "lora"]
    assert [row["folder"] for row in table["rows"]] == [str(store.folder(plan.by_name[need])) for need in grid.needs]
    table = request(made(collection.name))
    assert (table["kind"], table["name"]) == ("collection", "cats")
    assert [member["recipe"]["name"] for member in table["members"]] == ["cat-loha", "cat-lora"]
    assert table["grids"] == [str(store.folder(grid))]
