"""`make setup`: its messages about missing parts, and the lock file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from orchestrator.engines.sdscripts import setup, torch_builds, torch_test
from orchestrator.engines.sdscripts.torch_test import TorchResult
from orchestrator.errors import NotReady
from orchestrator.system import settings
from orchestrator.system.gpu import Card

ROOT = Path(__file__).resolve().parents[3]


def lines(name: str) -> list[str]:
    return [line for line in (ROOT / name).read_text("utf-8").splitlines() if line and not line.startswith("#")]


def test_every_package_is_locked() -> None:
    locked = {re.split("==", line)[0].lower().replace("_", "-"): line for line in lines("requirements-sd-scripts.txt")}
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][A-Za-z0-9.+]*", line) for line in locked.values())
    assert locked["lycoris-lora"].endswith("==3.4.0")
    assert {"accelerate", "open-clip-torch", "toml", "voluptuous"} <= locked.keys()
    assert not {"torch", "torchvision", "bitsandbytes"} & locked.keys()  # these depend on driver and card


def test_the_lock_holds_sd_scripts_requirements() -> None:
    file = settings.sd_scripts() / "requirements.txt"
    if not file.is_file():
        pytest.skip(f"no sd-scripts checkout in {settings.sd_scripts()}")
    locked = {
        line.split("==")[0].lower().replace("_", "-"): line.split("==")[1] for line in lines("requirements-sd-scripts.txt")
    }
    for line in file.read_text("utf-8").splitlines():
        if line and not line.startswith(("#", "-e")):
            name, _, version = line.partition("==")
            name = name.partition("[")[0].strip().lower().replace("_", "-")
            if name != "bitsandbytes":
                assert locked[name] == version.strip() or not version, line


def test_a_configured_folder_without_sd_scripts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SD_SCRIPTS_DIR", str(tmp_path))
    assert setup.main() == 3
    assert "is set as the sd-scripts checkout but does not hold it" in capsys.readouterr().err


def test_without_a_git_clone_the_message_names_the_alternatives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("SD_SCRIPTS_DIR", raising=False)
    monkeypatch.setattr(settings, "ROOT", tmp_path)
    assert setup.main() == 3
    error = capsys.readouterr().err
    assert "make demo" in error
    assert "SD_SCRIPTS_DIR" in error


def test_a_configured_python_that_does_not_exist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("train_network.py", "library/train_util.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.setenv("SD_SCRIPTS_DIR", str(tmp_path))
    monkeypatch.setenv("SD_SCRIPTS_PYTHON", str(tmp_path / "none"))
    assert setup.main() == 3
    assert "is set as sd-scripts' Python but does not exist" in capsys.readouterr().err


class Installer:
    """Records the commands of a setup, and creates the Python that venv would."""

    def __init__(self, root: Path) -> None:
        self.python = root / ".venv-sd-scripts" / "bin" / "python"
        self.commands: list[tuple[str, ...]] = []

    def __call__(self, argv: tuple[str, ...]) -> bool:
        self.commands.append(argv)
        self.python.parent.mkdir(parents=True, exist_ok=True)
        self.python.touch()
        return True

    def pip(self) -> tuple[str, ...]:
        """Return the arguments of the last pip install."""
        assert self.commands[-1][:4] == (str(self.python), "-m", "pip", "install")
        return self.commands[-1][4:]


@pytest.fixture
def installer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installer:
    """Return the recorded commands of a setup in an empty folder, on a machine without a GPU."""
    (tmp_path / setup.LOCK).write_text("toml==0.10.2\n", "utf-8")
    recorded = Installer(tmp_path)
    for name in ("SD_SCRIPTS_PYTHON", "KRNK_TORCH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(settings, "ROOT", tmp_path)
    monkeypatch.setattr(setup, "_run", recorded)
    monkeypatch.setattr(torch_builds, "PYTHON", (3, 11))
    monkeypatch.setattr(torch_builds, "MACHINE", "x86_64")
    _cards(monkeypatch)
    return recorded


def _cards(monkeypatch: pytest.MonkeyPatch, *found: Card) -> None:
    for module in (setup, torch_builds, torch_test):
        monkeypatch.setattr(module, "cards", lambda: (list(found), ""))


def test_without_a_gpu_the_cpu_build_is_installed_once(installer: Installer, capsys: pytest.CaptureFixture[str]) -> None:
    assert setup.build() == installer.python
    assert installer.commands[0][1:3] == ("-m", "venv")
    assert installer.pip()[1:] == (f"--requirement={setup.LOCK}", "torch==2.14.1", "torchvision==0.29.1")
    assert capsys.readouterr().out.splitlines()[:2] == [
        "no NVIDIA GPU",
        "chosen: cpu: torch 2.14.1 (torch==2.14.1, torchvision==0.29.1)",
    ]
    setup.build()
    assert len(installer.commands) == 2


def test_another_driver_installs_the_build_for_it(
    installer: Installer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _cards(monkeypatch, Card("NVIDIA GeForce RTX 2060", "550.54", (7, 5)))
    setup.build()
    assert installer.pip()[2:] == ("torch==2.10.0", "torchvision==0.25.0", "bitsandbytes==0.50.2")
    output = capsys.readouterr().out
    assert "GPU: NVIDIA GeForce RTX 2060 (compute capability 7.5, driver 550.54)" in output
    assert "not cu130: torch 2.14.1 with CUDA 13.0, which needs driver 580 or newer" in output
    _cards(monkeypatch, Card("NVIDIA GeForce RTX 2060", "580.95", (7, 5)))
    setup.build()
    assert installer.pip()[2:] == ("torch==2.14.1", "torchvision==0.29.1", "bitsandbytes==0.50.2")
    monkeypatch.setenv("KRNK_TORCH", "cu118")
    setup.build()
    assert installer.pip()[1] == "--extra-index-url=https://download.pytorch.org/whl/cu118"
    assert installer.pip()[3:] == ("torch==2.7.1+cu118", "torchvision==0.22.1+cu118", "bitsandbytes==0.47.0")


def test_a_failed_installation_is_not_taken_for_complete(installer: Installer, monkeypatch: pytest.MonkeyPatch) -> None:
    setup.build()
    monkeypatch.setenv("KRNK_TORCH", "cu126")
    monkeypatch.setattr(setup, "_run", lambda _: False)
    with pytest.raises(NotReady, match=r"torch==2\.7\.1, torchvision==0\.22\.1, bitsandbytes==0\.47\.0 cannot be installed"):
        setup.build()
    monkeypatch.setattr(setup, "_run", installer)
    monkeypatch.delenv("KRNK_TORCH")
    before = len(installer.commands)
    setup.build()
    assert len(installer.commands) == before + 1


def test_setup_ends_only_after_a_test_that_passes(
    installer: Installer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results = {True: TorchResult("2.10.0", (), "matrix product", "no kernel image"), False: TorchResult("2.14.1", (), "", "")}
    monkeypatch.setattr(torch_test, "run", lambda _, *, cuda: results[cuda])
    monkeypatch.setattr(setup, "fetch", lambda: tmp_path)
    assert setup.main() == 0
    assert "torch 2.14.1 on the CPU passed: matrix product\nnext: " in capsys.readouterr().out
    _cards(monkeypatch, Card("NVIDIA GeForce RTX 2060", "550.54", (7, 5)))
    assert setup.main() == 3
    output = capsys.readouterr()
    assert "next:" not in output.out
    assert "torch 2.10.0, matrix product: no kernel image" in output.err
    assert "KRNK_TORCH=cu126 make setup" in output.err
    monkeypatch.setenv("KRNK_TORCH", "cpu")
    assert setup.main() == 0


def test_a_server_without_shallow_fetches_is_fetched_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some mirrors and proxies reject --depth."""
    (tmp_path / ".git").mkdir()
    folder = tmp_path / setup.SUBMODULE
    commands: list[tuple[str, ...]] = []

    def git(argv: tuple[str, ...]) -> bool:
        commands.append(argv)
        return "--depth" not in argv

    monkeypatch.setattr(settings, "ROOT", tmp_path)
    monkeypatch.setattr(settings, "sd_scripts", lambda: folder)
    monkeypatch.setattr(setup.shutil, "which", lambda _: "/usr/bin/git")
    monkeypatch.setattr(setup, "_run", git)
    monkeypatch.setattr(setup.checkout, "present", lambda _: len(commands) == 2)
    assert setup.fetch() == folder
    whole = ("git", "submodule", "update", "--init", setup.SUBMODULE)
    assert commands == [(*whole[:4], "--depth", "1", setup.SUBMODULE), whole]
