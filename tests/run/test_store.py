"""The store: a runs folder of an earlier version stays valid."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import harness
from orchestrator import engines
from orchestrator.run.attempt_log import Attempt
from orchestrator.run.context import Status
from orchestrator.run.workspace import Selection, Workspace
from orchestrator.system.child import Exit

BEFORE = Path(__file__).parents[1] / "data" / "runs-before"
# The keys of commit f63c771 for the engine version "stand-in".
KEYS = {
    "krnk/dataset": "4e9b05980ef36b231668ae38619190d7f53295408099a44eff8799ff4f923f87",
    "krnk-locon/train": "6c4a1d83193358e498716abe2dad7620f03f5d11b0ea4cd98fbb1d4d41eeb739",
    "krnk-locon/merge": "ca1db06cfaff3c66198ea1819850bd5c5d22425be23a4cf2896549e5707d6b73",
    "krnk-locon/render": "21ddb8cbf7851ef8282658b52d9e28ca0f6ab577acded77119b1e4b1a8cc267f",
    "krnk-locon/release": "3e9c0abfcbb3a0a5a47c7c579474b01de451849c89a7cbff0c4fa105dcfe6ba4",
}


@pytest.fixture
def before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> harness.Project:
    """A copy, with new times and in another folder, of a project that an earlier version has run."""
    root = tmp_path / "project"
    shutil.copytree(BEFORE, root, symlinks=True, copy_function=shutil.copyfile)
    harness.use_fake_trainer(root, monkeypatch)
    return harness.Project(root)


def test_steps_of_an_earlier_version_are_cached(before: harness.Project) -> None:
    assert set(before.reasons("cat-lora").values()) == {"cached"}
    outcomes = before.run("cat-lora", verify=True)
    assert len(outcomes) == 5
    assert {outcome.status for outcome in outcomes.values()} == {Status.CACHED}
    assert before.observer.begun == []


def test_a_step_after_one_of_an_earlier_version_runs(before: harness.Project) -> None:
    shutil.rmtree(next((before.root / "runs" / "cat-lora").glob("release-*")))
    outcomes = before.run("cat-lora")
    assert [name for name, outcome in outcomes.items() if outcome.status is Status.DONE] == ["cat-lora/release"]
    assert before.file("cat-lora").is_file()


def test_a_new_record_has_the_fields_of_an_earlier_one_in_the_same_order(before: harness.Project) -> None:
    (path,) = (before.root / "runs" / "cat-lora").glob("train-*/record.json")
    earlier = json.loads(path.read_text("utf-8"))
    assert before.run("cat-lora", force=("train",))["cat-lora/train"].status is Status.DONE
    now = json.loads(path.read_text("utf-8"))
    assert list(now) == list(earlier)
    same = ("schema", "key", "kind", "name", "params", "sources", "inputs", "engine", "lane")
    assert {name: now[name] for name in same} == {name: earlier[name] for name in same}
    assert {name: list(output) for name, output in now["outputs"].items()} == {"cat-lora.safetensors": ["sha256", "bytes"]}


def test_a_record_of_one_attempt_has_changed_nothing_and_waited_for_nothing(before: harness.Project) -> None:
    space = before.space()
    plan = space.plan(space.load(Selection(("cat-lora",))))
    step = plan.by_name["cat-lora/merge"]
    (space.store.begin(step) / "cat-lora.safetensors").write_bytes(b"x")
    record = space.store.commit(step, plan, Attempt(("a", "b"), 7, 1000.0, Exit(0)))
    assert (record.attempts, record.changes, record.slot, record.waited) == (1, {}, "", 0.0)
    assert (record.argv, record.resumed_from, record.started, record.lane) == (["a", "b"], 7, 1000.0, "cpu")
    assert record.engine == "embedded 1"
    assert record.inputs.keys() == {"cat-lora/train"}
    assert record.outputs["cat-lora.safetensors"]["bytes"] == 1
    assert space.store.record(step) == record
    assert not space.store.work(step).exists()


def test_damage_is_the_first_output_that_is_gone_or_another(before: harness.Project) -> None:
    space = before.space()
    step = space.plan(space.load(Selection(("cat-lora",)))).by_name["cat-lora/merge"]
    record, file = space.store.record(step), space.store.folder(step) / "cat-lora.safetensors"
    assert record is not None
    assert space.store.damage(step, record, verify=True) == ""
    data = file.read_bytes()
    file.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    assert [space.store.damage(step, record, verify=verify) for verify in (False, True)] == ["", "cat-lora.safetensors"]
    assert before.reasons("cat-lora")["cat-lora/merge"] == "cached"
    file.write_bytes(data + b"x")
    assert space.store.damage(step, record) == "cat-lora.safetensors"
    assert before.reasons("cat-lora")["cat-lora/merge"] == "output damaged: cat-lora.safetensors"
    assert before.reasons("cat-lora")["cat-lora/release"].startswith("input changed: ")
    file.unlink()
    assert space.store.damage(step, record) == "cat-lora.safetensors"


def test_a_commit_that_a_crash_interrupted_is_finished(before: harness.Project) -> None:
    space = before.space()
    step = space.plan(space.load(Selection(("cat-lora",)))).by_name["cat-lora/release"]
    assert space.store.recover(step) is False
    folder, work = space.store.folder(step), space.store.work(step)
    work.parent.mkdir(exist_ok=True)
    folder.rename(work)
    assert space.store.record(step) is None
    assert space.store.recover(step) is True
    assert space.store.record(step) is not None
    assert (before.root / "runs" / "cat-lora" / "latest").resolve().parent == folder
    for key, value in (("key", "0" * 64), ("schema", 0)):
        record = json.loads((folder / "record.json").read_text("utf-8")) | {key: value}
        (folder / "record.json").write_text(json.dumps(record), "utf-8")
        assert space.store.record(step) is None, "the record of another step or version"


def test_the_keys_of_sd_scripts_steps_stay(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines.get("sd-scripts"), "version", lambda: "stand-in")
    space = Workspace(project)
    plan = space.plan(space.load(Selection(("krnk-locon",))))
    assert {step.name: step.key for step in plan.steps} == KEYS


def test_latest_holds_the_published_files_and_nothing_else(before: harness.Project) -> None:
    before.recipe("cat-other", "other")
    before.run("all")
    for name in ("cat-lora", "cat-other", "cats"):
        latest = before.root / "runs" / name / "latest"
        files = {path.relative_to(latest).as_posix() for path in latest.rglob("*") if path.is_file()}
        listed = {line.partition("  ")[2] for line in (latest / "SHA256SUMS").read_text("utf-8").splitlines()}
        assert files == listed | {"SHA256SUMS"} | ({"cats.zip"} if name == "cats" else set())
        assert (latest.resolve().parent / "record.json").is_file()


def test_latest_leads_to_the_release_of_today_s_recipe(before: harness.Project) -> None:
    text = (before.root / "recipes" / "cat-lora.toml").read_text("utf-8")
    latest = before.root / "runs" / "cat-lora" / "latest"
    before.run("cat-lora")
    first = latest.resolve()
    before.write("cat-lora", text.replace('summary = "a cat"', 'summary = "another cat"'))
    before.run("cat-lora")
    assert latest.resolve() != first
    before.write("cat-lora", text)
    assert {outcome.status for outcome in before.run("cat-lora").values()} == {Status.CACHED}
    assert latest.resolve() == first
