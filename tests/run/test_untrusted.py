"""Untrusted input: tokens stay in, names break nothing, no links."""

from __future__ import annotations

import io
import re
import shutil
import stat
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import harness
from command_line import call
from orchestrator.errors import OrchestratorError
from orchestrator.release import bundle_reader, verify
from orchestrator.run.context import Status
from orchestrator.weights.checks import CheckStatus

if TYPE_CHECKING:
    from collections.abc import Iterator

TOKENS = {
    "HF_TOKEN": "hf_qkXvTzNotARealTokenOne",
    "HUGGING_FACE_HUB_TOKEN": "hf_qkXvTzNotARealTokenTwo",
    "WANDB_API_KEY": "0123456789abcdef0123456789abcdefNotReal",
    "CIVITAI_TOKEN": "civ_qkXvTzNotARealToken",
}
NAMES = {
    "quotes, newline, japanese": 'it\'s "my" $HOME `id` ; rm -rf & | *?[x]\ntwo\tlines/猫耳の キャラ 😺 é/--resume',
    "250 bytes": "n" * 250,
}


def contents(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield every file below a folder, and every file in its zips."""
    for path in sorted(folder.rglob("*")):
        yield f"{path}: its name", str(path.relative_to(folder)).encode()
        if path.is_symlink() or not path.is_file():
            continue
        data = path.read_bytes()
        yield str(path), data
        if path.suffix == ".zip":
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                yield from ((f"{path}: {name}", archive.read(name)) for name in archive.namelist())


def test_no_token_of_the_environment_is_in_any_file_or_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, token in TOKENS.items():
        monkeypatch.setenv(name, token)
    project = harness.make(tmp_path / "p", monkeypatch)
    project.write("_base/base", harness.BASE.replace("seed = 1", "seed = 1\nwandb = true"))
    project.recipe("cat-bad", "bad", '[training.options]\nbehave = "die"\n')
    monkeypatch.setenv("KRNK_PROJECT", str(project.root))
    for argv, code in ((["all"], 1), (["run", "cat-lora", "--json"], 0), (["plan", "all", "--argv"], 0), (["report"], 0)):
        assert call(monkeypatch, *argv) == code, argv
    output = capfd.readouterr()
    written = [("stdout", output.out.encode()), ("stderr", output.err.encode()), *contents(tmp_path)]
    kinds = {Path(name.partition(":")[0]).name for name, _ in written}
    assert {"record.json", "attempts.jsonl", "log.txt", "README.md", "manifest.json", "index.html", "digests.json"} <= kinds
    leaks = [f"{variable} in {name}" for name, data in written for variable, token in TOKENS.items() if token.encode() in data]
    assert leaks == []


@pytest.mark.parametrize("kind", NAMES)
def test_a_run_in_a_folder_of_any_name(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = harness.make(tmp_path / NAMES[kind] / "p", monkeypatch)
    project.write("_base/base", harness.BASE.replace("[release]", "[release]\ncivitai = true"))
    source = project.root / "data" / "cat"
    picture = next(source.iterdir())
    shutil.copyfile(picture, source / f"f05 {NAMES[kind].replace('/', ' ')[:200]}.png")
    outcomes = project.run("cat-lora")
    assert {outcome.status for outcome in outcomes.values()} == {Status.DONE}, outcomes
    release = project.root / "runs" / "cat-lora" / "latest"
    bad = [check for check in verify.verify_bundle(release) if check.status is CheckStatus.FAIL]
    assert bad == []
    assert {outcome.status for outcome in project.run("cat-lora").values()} == {Status.CACHED}
    listed = [release / name for name in bundle_reader.read_sums(release)]
    assert [path.name for path in listed if str(tmp_path).encode() in path.read_bytes()] == []


def link(archive: zipfile.ZipFile, name: str, target: str) -> None:
    entry = zipfile.ZipInfo(name)
    entry.create_system = 3
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    archive.writestr(entry, target)


def test_a_link_in_a_zip_is_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "SHA256SUMS").write_text("0" * 64 + "  key\n", "utf-8")
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        link(archive, "bundle", str(secret))
        archive.writestr("bundle/out.txt", "written through the link")
    with pytest.raises(OrchestratorError):
        verify.verify_bundle(tmp_path / "x.zip")
    assert [path.name for path in secret.iterdir()] == ["SHA256SUMS"]
    with zipfile.ZipFile(tmp_path / "y.zip", "w") as archive:
        link(archive, "bundle/SHA256SUMS", str(secret / "SHA256SUMS"))
    with pytest.raises(OrchestratorError, match=re.escape("SHA256SUMS")):
        verify.verify_bundle(tmp_path / "y.zip")


def test_a_link_out_of_a_bundle_folder_is_not_part_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = harness.make(tmp_path / "p", monkeypatch)
    project.write("_base/base", harness.BASE.partition("[render]")[0])
    project.run("cat-lora")
    made = (project.root / "runs" / "cat-lora" / "latest").resolve()
    (tmp_path / "card").write_bytes((made / "README.md").read_bytes())
    (made / "README.md").unlink()
    (made / "README.md").symlink_to(tmp_path / "card")
    bad = [check.what for check in verify.verify_bundle(made) if check.status is CheckStatus.FAIL]
    assert bad == ["README.md"]
