"""Checks of the verb doctor: GPU, packages, locks, JSON."""

from __future__ import annotations

import fcntl
import json
from typing import TYPE_CHECKING

from command_line import call
from orchestrator.cli import doctor
from orchestrator.run.store import Store
from orchestrator.system import process, settings
from orchestrator.weights.checks import CheckStatus

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_gpus_and_their_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "capture", lambda *_: (0, "NVIDIA GeForce RTX 3060, 11000, 12288, 550.54\n"))
    check = doctor.gpu(needed=True)
    assert (check.status, check.detail) == (
        CheckStatus.PASS,
        "NVIDIA GeForce RTX 3060, 11000 of 12288 MiB free, driver 550.54",
    )
    monkeypatch.setattr(process, "capture", lambda *_: (0, "NVIDIA GeForce RTX 3060, 900, 12288, 550.54\n"))
    assert doctor.gpu(needed=True).status is CheckStatus.WARNING
    monkeypatch.setattr(
        process, "capture", lambda *_: (9, "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver")
    )
    assert "couldn't communicate" in doctor.gpu(needed=True).detail
    monkeypatch.setattr(process, "capture", lambda *_: (127, "no such file"))
    assert doctor.gpu(needed=False).status is CheckStatus.PASS


def test_packages_that_differ_from_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "ROOT", tmp_path)
    (tmp_path / "constraints.txt").write_text("# exact\npydantic==1.0.0\nno-such-package==1\n", "utf-8")
    check = doctor.packages()
    assert check.status is CheckStatus.WARNING
    assert "(lock: 1.0.0)" in check.detail
    assert "pip install -c" in check.fix


def test_locks_of_living_and_of_dead_processes(tmp_path: Path) -> None:
    (tmp_path / "krnk-locon").mkdir()
    lock = tmp_path / "krnk-locon" / ".lock"
    lock.write_text("process 1 on here since then\n", "utf-8")
    assert list(doctor.locks(Store(tmp_path))) == []
    with lock.open("r+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        (check,) = doctor.locks(Store(tmp_path))
    assert "process 1 on here since then" in check.detail


def test_the_verb_in_json(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project)
    monkeypatch.setenv("KRNK_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("SD_SCRIPTS_DIR", str(tmp_path / "nothing"))
    assert call(monkeypatch, "doctor", "krnk-locon", "--json") == 3
    rows = json.loads(capsys.readouterr().out)
    assert {"what", "state", "found", "wanted", "fix"} == set(rows[0])
    bad = [row for row in rows if row["state"] == "missing"]
    assert any("sd-scripts is not there" in row["found"] for row in bad)
    assert all(row["fix"] for row in bad)
