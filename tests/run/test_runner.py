"""Runner: steps that run, are cached, resume, retry, and fail with a reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import harness
from orchestrator.errors import NotReady
from orchestrator.release import verify
from orchestrator.run.context import Status
from orchestrator.system import files, supervisor
from orchestrator.weights.checks import CheckStatus

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

STEPS = ["cat/dataset", "cat-lora/train", "cat-lora/merge", "cat-lora/render", "cat-lora/release"]


def test_another_card_template_makes_the_card_anew(cats: harness.Project) -> None:
    folder = cats.root / "cards"
    folder.mkdir()
    (folder / "recipe.en.md.j2").write_text("one", "utf-8")
    cats.recipe("cat-lora", "lora", '[release]\ntemplates = "cards"\n')
    cats.run("cat-lora")
    assert cats.file("cat-lora").with_name("README.md").read_text("utf-8").startswith("one")
    (folder / "recipe.en.md.j2").write_text("two", "utf-8")
    outcomes = cats.run("cat-lora")
    assert [name for name, outcome in outcomes.items() if outcome.status is Status.DONE] == ["cat-lora/release"]
    assert cats.file("cat-lora").with_name("README.md").read_text("utf-8").startswith("two")


def test_every_output_is_read_once_when_it_is_committed(cats: harness.Project, monkeypatch: pytest.MonkeyPatch) -> None:
    digested: list[Path] = []
    real = files.sha256

    def sha256(path: Path) -> str:
        if path.parent.name.startswith("release-"):
            digested.append(path)
        return real(path)

    monkeypatch.setattr(files, "sha256", sha256)
    cats.run("cat-lora")
    assert digested
    assert len(digested) == len(set(digested))


def test_a_recipe_runs_to_its_release_and_then_does_nothing(cats: harness.Project) -> None:
    outcomes = cats.run("cat-lora")
    assert {name: outcome.status for name, outcome in outcomes.items()} == dict.fromkeys(STEPS, Status.DONE), outcomes
    assert cats.file("cat-lora").is_file()
    assert cats.observer.begun[0] == "cat/dataset: new"
    again = cats.run("cat-lora")
    assert {outcome.status for outcome in again.values()} == {Status.CACHED}
    assert cats.observer.begun == []
    assert list((cats.root / "runs").glob("*/.partial/*")) == []


def test_one_block_weight_reruns_the_merge_and_later_steps_only(cats: harness.Project) -> None:
    cats.recipe("cat-loha", "other")
    cats.run("all")
    cats.write("cat-lora", harness.RECIPE % ("lora", "lora"))
    cats.recipe("cat-lora", "lora".replace("lora", "lora"))
    changed = harness.WEIGHTS.replace("[1", "[0.5", 1)
    cats.write("cat-lora", (harness.RECIPE % ("lora", "lora")).replace(harness.WEIGHTS, changed))
    reasons = cats.reasons("all")
    due = {name for name, reason in reasons.items() if reason != "cached"}
    assert due == {"cat-lora/merge", "cat-lora/render", "cat-lora/release", "cat/grid", "cats/release"}
    outcomes = cats.run("all")
    assert {name for name, outcome in outcomes.items() if outcome.status is Status.DONE} == due


def test_latents_on_disk_are_the_trainings_own_and_the_dataset_stays_as_it_is(cats: harness.Project) -> None:
    cats.recipe("cat-lora", "lora", '[training]\ncache_latents = "disk"\n[training.options]\nbehave = "die"\n')
    failed = cats.run("cat-lora")["cat-lora/train"]
    assert failed.status is Status.FAILED
    built = next((cats.root / "runs" / "cat").glob("dataset-*"))
    files = {path.relative_to(built) for path in built.rglob("*")}
    pictures = {path for path in files if path.suffix == ".png"}
    assert pictures
    assert not any(path.suffix == ".npz" for path in files)
    work = next((cats.root / "runs" / "cat-lora" / ".partial").glob("train-*"))
    assert {path.relative_to(work / "latents").with_suffix(".png") for path in work.rglob("*.npz")} == pictures
    assert cats.run("cat-lora")["cat-lora/train"].status is Status.DONE
    train = next((cats.root / "runs" / "cat-lora").glob("train-*"))
    assert f"{len(pictures)} latents" in (train / "log.txt").read_text("utf-8")
    assert not (train / "latents").exists()
    assert {path.relative_to(built) for path in built.rglob("*")} == files


def test_the_algorithms_of_a_subject_share_one_dataset_step(cats: harness.Project) -> None:
    cats.recipe("cat-loha", "other")
    outcomes = cats.run("all")
    assert [name for name in outcomes if name.endswith("/dataset")] == ["cat/dataset"]
    assert len(list((cats.root / "runs" / "cat").glob("dataset-*"))) == 1
    assert all(outcome.status is Status.DONE for outcome in outcomes.values())


def test_a_forced_training_changes_its_bytes_and_reruns_later_steps(cats: harness.Project) -> None:
    cats.run("cat-lora")
    before = cats.file("cat-lora").read_bytes()
    outcomes = cats.run("cat-lora", force=("train",))
    assert outcomes["cat/dataset"].status is Status.CACHED
    assert outcomes["cat-lora/release"].status is Status.DONE
    assert str(outcomes["cat-lora/merge"].reason) == "input changed: cat-lora/train"
    assert cats.file("cat-lora").read_bytes() != before


@pytest.mark.parametrize("damage", [lambda content: content[:-1], lambda content: content + b"\0"], ids=["short", "long"])
def test_a_damaged_output_is_made_again(cats: harness.Project, damage: Callable[[bytes], bytes]) -> None:
    cats.run("cat-lora")
    merged = next((cats.root / "runs" / "cat-lora").glob("merge-*/*.safetensors"))
    content = merged.read_bytes()
    merged.write_bytes(damage(content))
    assert cats.reasons("cat-lora")["cat-lora/merge"] == "output damaged: cat-lora.safetensors"
    outcomes = cats.run("cat-lora")
    assert outcomes["cat-lora/merge"].status is Status.DONE
    assert merged.read_bytes() == content
    # the merge is exact, so what stands behind it sees the same bytes and is not made again
    assert outcomes["cat-lora/render"].status is Status.CACHED


def test_a_flipped_byte_is_found_by_verify(cats: harness.Project) -> None:
    cats.run("cat-lora")
    merged = next((cats.root / "runs" / "cat-lora").glob("merge-*/*.safetensors"))
    content = bytearray(merged.read_bytes())
    content[-1] ^= 1
    merged.write_bytes(content)
    assert cats.reasons("cat-lora")["cat-lora/merge"] == "cached"
    assert cats.run("cat-lora", verify=True)["cat-lora/merge"].status is Status.DONE


def test_other_recipes_continue_when_one_fails(cats: harness.Project) -> None:
    cats.recipe("cat-bad", "bad", '[training.options]\nbehave = "fail"\n')
    outcomes = cats.run("all")
    assert outcomes["cat-bad/train"].status is Status.FAILED
    assert outcomes["cat-lora/release"].status is Status.DONE
    assert outcomes["cats/release"].status is Status.BLOCKED


def test_only_runs_one_kind_and_names_missing_steps_before_it(cats: harness.Project) -> None:
    outcomes = cats.run("cat-lora", only=("merge",))
    assert outcomes["cat/dataset"].status is Status.BLOCKED
    assert outcomes["cat/dataset"].problem is not None
    assert outcomes["cat/dataset"].problem.what == "has to run first (new)"
    assert not (cats.root / "runs" / "cat-lora").exists() or not list((cats.root / "runs" / "cat-lora").glob("merge-*"))


def test_inline_runs_the_same_steps(cats: harness.Project) -> None:
    assert all(outcome.status is Status.DONE for outcome in cats.run("cat-lora", inline=True).values())


def test_a_recipe_that_another_orchestrator_works_on_is_refused(cats: harness.Project) -> None:
    with cats.space().store.lock({"cat-lora": None}), pytest.raises(NotReady, match="is being worked on by process"):
        cats.run("cat-lora")


def test_a_commit_cut_off_before_its_rename_is_finished_without_running_again(cats: harness.Project) -> None:
    cats.run("cat-lora")
    space = cats.space()
    step = space.plan(space.load(harness.Selection(("cat-lora",)))).by_name["cat-lora/train"]
    space.store.work(step).parent.mkdir(exist_ok=True)
    space.store.folder(step).rename(space.store.work(step))
    assert all(outcome.status is Status.CACHED for outcome in cats.run("cat-lora").values())


def test_drafts_of_a_killed_commit_do_not_enter_the_bundle(cats: harness.Project) -> None:
    cats.run("cat-lora")
    space = cats.space()
    step = space.plan(space.load(harness.Selection(("cat-lora",)))).by_name["cat-lora/release"]
    work = space.store.work(step)
    work.parent.mkdir(exist_ok=True)
    space.store.folder(step).rename(work)
    (work / "record.json").rename(work / ".record.json.4711")
    (work / "exit.json.4711").write_text("{", "utf-8")
    (work / supervisor.EXIT).write_text('{"code": 0}', "utf-8")
    assert cats.reasons("cat-lora")[step.name] == "finished while no orchestrator was running"
    (work / ".cat-lora.png.part").write_bytes(b"half")
    assert cats.run("cat-lora")[step.name].status is Status.DONE
    checks = verify.verify_bundle(space.store.folder(step))
    assert [check for check in checks if check.status is CheckStatus.FAIL] == []
    assert not list(space.store.folder(step).glob("*4711"))
