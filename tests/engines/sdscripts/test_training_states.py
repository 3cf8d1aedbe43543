"""Which saved states are complete, which checkout lies in a folder, and what a machine's owner has set."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import zipfile
from pathlib import Path

import pytest

from orchestrator.engines.embedded import engine as embedded
from orchestrator.engines.sdscripts import checkout, engine, training_states
from orchestrator.errors import RecipeError
from orchestrator.recipe import loader
from orchestrator.system import settings


def state(work: Path, name: str, step: int) -> Path:
    """Write a state as accelerate leaves it (order and names: tests/data/recordings/state)."""
    folder = work / name
    folder.mkdir(parents=True)
    (folder / "train_state.json").write_text(json.dumps({"current_epoch": 1, "current_step": step}), "utf-8")
    header = json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    for other in ("optimizer.bin", "scheduler.bin", "random_states_0.pkl"):
        with zipfile.ZipFile(folder / other, "w") as file:  # as torch.save writes
            file.writestr("archive/data.pkl", b"x")
    return folder


def test_states_here_hold_the_files_of_a_recorded_one(tmp_path: Path) -> None:
    recorded = Path(__file__).resolve().parents[2] / "data" / "recordings" / "state"
    names = {line.split()[1] for line in (recorded / "files.txt").read_text("utf-8").splitlines()}
    written = state(tmp_path, "krnk-step00000002-state", 2)
    assert names == {path.name for path in written.iterdir()}
    assert json.loads((recorded / "train_state.json").read_text("utf-8")).keys() == {"current_epoch", "current_step"}


def test_the_newest_complete_state_is_chosen(tmp_path: Path) -> None:
    state(tmp_path, "krnk-step00000200-state", 200)
    last = state(tmp_path, "krnk-step00001000-state", 1000)
    state(tmp_path, "krnk-step00000400-state", 400)
    assert engine.checkpoint(tmp_path) == (last, 1000)


@pytest.mark.parametrize("name", ["random_states_0.pkl", "optimizer.bin", "model.safetensors", "train_state.json"])
def test_a_state_without_one_of_its_files_does_not_count(tmp_path: Path, name: str) -> None:
    good = state(tmp_path, "krnk-step00000200-state", 200)
    bad = state(tmp_path, "krnk-step00000400-state", 400)
    (bad / name).unlink()
    assert training_states.newest(tmp_path) == (good, 200)
    (bad / name).write_bytes(b"")
    assert training_states.newest(tmp_path) == (good, 200)


@pytest.mark.parametrize("cut", [0, 7, 8, 30, -1])
def test_a_state_with_cut_weights_does_not_count(tmp_path: Path, cut: int) -> None:
    only = state(tmp_path, "krnk-step00000200-state", 200)
    file = only / "model.safetensors"
    file.write_bytes(file.read_bytes()[:cut])
    assert training_states.newest(tmp_path) is None


@pytest.mark.parametrize("name", ["random_states_0.pkl", "optimizer.bin", "scheduler.bin"])
def test_a_state_with_a_cut_file_does_not_count(tmp_path: Path, name: str) -> None:
    good = state(tmp_path, "krnk-step00000200-state", 200)
    file = state(tmp_path, "krnk-step00000400-state", 400) / name
    file.write_bytes(file.read_bytes()[:-1])
    assert training_states.newest(tmp_path) == (good, 200)


def test_a_state_of_the_last_step_is_none_to_go_on_from(tmp_path: Path) -> None:
    """Killed, or out of disk, between its last state and its file: sd-scripts refuses to start after the last step."""
    before = state(tmp_path, "krnk-step00000800-state", 800)
    state(tmp_path, "krnk-step00001000-state", 1000)
    (tmp_path / "expected.json").write_text('{"steps": 1000}', "utf-8")
    assert engine.checkpoint(tmp_path) == (before, 800)
    own = tmp_path / "own"
    for step in (800, 1000):
        folder = own / f"krnk-step{step:08}-state"
        folder.mkdir(parents=True)
        for name in ("network.safetensors", "optimizer.pt", "schedule.json"):
            (folder / name).write_bytes(b"x")
        (folder / "train_state.json").write_text(json.dumps({"current_step": step}), "utf-8")
    (own / "expected.json").write_text('{"steps": 1000}', "utf-8")
    assert embedded.checkpoint(own) == (own / "krnk-step00000800-state", 800)


@pytest.mark.parametrize(("steps", "every", "keep", "left"), [(1000, 200, 1, [800, 1000]), (1000, 300, 1, [900])])
def test_the_state_before_the_last_step_stays(steps: int, every: int, keep: int, left: list[int]) -> None:
    """What sd-scripts leaves: at each save it removes one state (train_util.get_remove_step_no)."""
    kept, there = training_states.kept(keep, steps, every) * every - 1, set[int]()
    for step in range(every, steps + 1, every):
        there.add(step)
        removed = step - kept - 1
        there.discard(removed - removed % every)
    assert sorted(there) == left


@pytest.mark.parametrize("text", ["{", "[]", '{"current_step": "3"}', '{"current_step": true}', '{"current_step": 0}'])
def test_a_state_that_does_not_say_its_step_does_not_count(tmp_path: Path, text: str) -> None:
    (state(tmp_path, "krnk-step00000200-state", 200) / "train_state.json").write_text(text, "utf-8")
    assert training_states.newest(tmp_path) is None


def test_states_of_a_resumed_training_are_counted_right(tmp_path: Path) -> None:
    """Resumed at 400, 205 batches an epoch, sd-scripts calls the next step 196: the state it names 300 is that of 505."""
    old = state(tmp_path, "krnk-step00000400-state", 400)
    for file in old.iterdir():
        os.utime(file, (1000, 1000))
    new = state(tmp_path, "krnk-step00000300-state", 300)
    for file in new.iterdir():
        os.utime(file, (3000, 3000))
    attempts = [{"at": 500.0, "resumed_from": None}, {"at": 2000.0, "resumed_from": 400}]
    (tmp_path / "attempts.jsonl").write_text("\n".join(map(json.dumps, attempts)), "utf-8")
    assert training_states.newest(tmp_path) == (old, 400)  # no log says how long an epoch is
    (tmp_path / "log.txt").write_text("  num batches per epoch / 1epochのバッチ数: 205\n", "utf-8")
    assert training_states.newest(tmp_path) == (new, 505)
    recipe = loader.recipe(Path(__file__).resolve().parents[3] / "recipes", "krnk-locon").recipe
    inputs = {"dataset": tmp_path / "none", "checkpoint": Path("/m")}
    argv = engine.train(recipe, inputs, tmp_path, new).argv
    assert argv[argv.index("--initial_step") + 1] == "505"
    assert training_states.lost(505, 205) == 410


def test_no_state_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "krnk-step00000002-state").write_text("a file", "utf-8")
    assert engine.checkpoint(tmp_path) is None
    assert embedded.checkpoint(tmp_path) is None


def test_states_of_the_embedded_engine(tmp_path: Path) -> None:
    folder = tmp_path / "krnk-step00000020-state"
    folder.mkdir()
    for name in ("network.safetensors", "optimizer.pt", "schedule.json"):
        (folder / name).write_bytes(b"x")
    assert embedded.checkpoint(tmp_path) is None
    (folder / "train_state.json").write_text('{"current_step": 20}', "utf-8")
    assert embedded.checkpoint(tmp_path) == (folder, 20)


def git(folder: Path, *words: str) -> str:
    who = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")
    return subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Return a git repository that looks like sd-scripts."""
    if shutil.which("git") is None:
        pytest.skip("git is not here")
    folder = tmp_path / "sd-scripts"
    (folder / "library").mkdir(parents=True)
    for name in ("train_network.py", "library/train_util.py"):
        (folder / name).write_text("def setup_parser():\n    pass\n", "utf-8")
    (folder / "README.md").write_text("x", "utf-8")
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "x")
    return folder


def version(folder: Path) -> str:
    """Return the version that a new process sees."""
    checkout._version.cache_clear()
    return checkout.version(folder)


def test_the_version_is_the_commit(clone: Path) -> None:
    commit = git(clone, "rev-parse", "HEAD")
    assert version(clone) == commit
    git(clone, "pack-refs", "--all")
    assert version(clone) == commit
    git(clone, "checkout", "-q", "--detach")
    assert version(clone) == commit


def test_one_process_asks_git_for_a_version_once(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = version(clone)
    monkeypatch.setattr(checkout, "capture", lambda *_: pytest.fail("git is asked again"))
    assert checkout.version(clone) == commit


def test_git_of_another_repository_is_not_asked(clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy inside another repository has no commit; a git hook's GIT_DIR names another repository."""
    commit = git(clone, "rev-parse", "HEAD")
    git(tmp_path, "init", "-q", "-b", "main")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / ".git"))
    assert version(clone) == commit
    monkeypatch.delenv("GIT_DIR")
    shutil.rmtree(clone / ".git")
    assert version(clone).startswith("files ")


def test_reading_the_version_writes_nothing(clone: Path) -> None:
    os.utime(clone / "train_network.py", (1000, 1000))  # status would refresh the index
    before = (clone / ".git" / "index").read_bytes()
    assert " " not in version(clone)
    assert (clone / ".git" / "index").read_bytes() == before


def test_without_git_the_files_decide(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkout, "capture", lambda *_: (127, "no such program: git"))
    digest = version(clone)
    assert digest.startswith("files ")
    monkeypatch.setattr(checkout, "PINNED_FILES", digest.removeprefix("files "))
    assert version(clone) == checkout.PINNED


def test_a_changed_tree_says_modified(clone: Path) -> None:
    commit = git(clone, "rev-parse", "HEAD")
    (clone / "README.md").write_text("other", "utf-8")
    assert version(clone) == commit
    file = clone / "library" / "train_util.py"
    text = file.read_text("utf-8")
    file.write_text(text + "x = 1\n", "utf-8")
    assert version(clone) == f"{commit} modified"
    file.write_text(text, "utf-8")  # another time, the same content
    assert version(clone) == commit
    file.unlink()
    (clone / "library" / "train_util.py").write_text("", "utf-8")
    assert version(clone) == f"{commit} modified"


def test_a_submodule_and_a_copy_without_git(clone: Path, tmp_path: Path) -> None:
    commit = git(clone, "rev-parse", "HEAD")
    (clone / ".git").rename(tmp_path / "elsewhere")
    (clone / ".git").write_text("gitdir: ../elsewhere\n", "utf-8")
    assert version(clone) == commit
    (clone / ".git").unlink()
    copied = version(clone)
    assert copied.startswith("files ")
    (clone / "train_network.py").write_text("y", "utf-8")
    assert version(clone) != copied


def test_without_a_checkout_the_version_is_the_pinned_one(tmp_path: Path) -> None:
    assert version(tmp_path) == checkout.PINNED


def test_settings_come_from_variables_then_from_the_users_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    for name in ("SD_SCRIPTS_DIR", "SD_SCRIPTS_PYTHON", "SD_SCRIPTS_TOKENIZERS", "KRNK_MODELS"):
        monkeypatch.delenv(name, raising=False)
    assert settings.sd_scripts() == settings.ROOT / "third_party" / "sd-scripts"
    assert settings.model_folders() == ()
    file = settings.config_file()
    file.parent.mkdir()
    file.write_text('models = ["/m"]\n[sd-scripts]\ndir = "/opt/sd"\npython = "/opt/py"\n', "utf-8")
    assert settings.sd_scripts() == Path("/opt/sd")
    assert settings.sd_scripts_python() == Path("/opt/py")
    assert settings.model_folders() == (Path("/m"),)
    monkeypatch.setenv("SD_SCRIPTS_DIR", "/elsewhere")
    assert settings.sd_scripts() == Path("/elsewhere")


def test_a_mistake_in_the_users_file_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    file = settings.config_file()
    file.parent.mkdir()
    file.write_text('model = []\n[sd-scripts]\npyton = "/x"\ndir = 3\n', "utf-8")
    with pytest.raises(RecipeError) as caught:
        settings.read()
    said = str(caught.value)
    assert "did you mean models?" in said
    assert "did you mean python?" in said
    assert "takes a path" in said
    file.write_text("x =", "utf-8")
    with pytest.raises(RecipeError, match="cannot be read"):
        settings.read()
