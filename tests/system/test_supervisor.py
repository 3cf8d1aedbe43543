"""Supervisors: one per folder, and the end of a child's group."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from children import ELSEWHERE
from orchestrator.system import child_status, supervisor


def supervised(work: Path, child: str, beat: float = 5.0) -> subprocess.Popen[bytes]:
    code = f"import sys\nfrom orchestrator.system import supervisor as supervise\nsupervise.BEAT_SECONDS = {beat}\n"
    code += "sys.exit(supervise.main(sys.argv[1:]))"
    root = str(Path(supervisor.__file__).resolve().parents[2])
    argv = [sys.executable, "-c", code, str(work), "--", sys.executable, "-c", child]
    return subprocess.Popen(argv, cwd=root, start_new_session=True, stderr=subprocess.PIPE)


def test_a_supervisor_that_was_thought_dead_ends_its_child(tmp_path: Path) -> None:
    with supervised(tmp_path, "import time; time.sleep(600)", beat=0.05) as running:
        until = time.monotonic() + 60
        while not child_status.alive(tmp_path) and time.monotonic() < until:
            time.sleep(0.01)
        pid = json.loads((tmp_path / supervisor.CHILD).read_text("utf-8"))["pid"]
        other = {"supervisor": 4711, "supervisor_started": "1", "pid": 1, "pid_started": "1", "at": 0, "place": ELSEWHERE}
        (tmp_path / "new").write_text(json.dumps(other), "utf-8")
        (tmp_path / "new").replace(tmp_path / supervisor.CHILD)
        assert running.wait(60) == -9
    while supervisor.started(pid) and time.monotonic() < until:
        time.sleep(0.01)
    assert supervisor.started(pid) == ""


def test_a_supervisor_that_comes_late_starts_nothing(tmp_path: Path) -> None:
    (tmp_path / supervisor.EXIT).write_text('{"code": 0}', "utf-8")
    with supervised(tmp_path, f"open({str(tmp_path / 'ran')!r}, 'w')") as late:
        assert late.wait(60) == supervisor.TAKEN
        assert late.stderr is not None
        assert b"another program works in " in late.stderr.read()
    assert not (tmp_path / "ran").exists()


def test_processes_of_a_child_are_ended_with_it(tmp_path: Path) -> None:
    child = (
        "import os, sys, time\n"
        "if os.fork() == 0:\n"
        "    open('up.part', 'w').write(str(os.getpid()))\n"
        "    os.rename('up.part', 'up')\n"
        "    time.sleep(600)\n"
        "while not os.path.exists('up'):\n"
        "    time.sleep(0.01)\n"
    )
    child = f"import os\nos.chdir({str(tmp_path)!r})\n{child}"
    with supervised(tmp_path, child) as running:
        assert running.wait(60) == 0
    pid, until = int((tmp_path / "up").read_text("utf-8")), time.monotonic() + 20
    while supervisor.started(pid) and time.monotonic() < until:
        time.sleep(0.01)
    assert supervisor.started(pid) == ""
