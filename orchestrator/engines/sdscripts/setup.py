"""Set up sd-scripts: its submodule and environment (``make setup``).

It can run again at any time. Without network or git it names what is missing, what works without it, and the next command;
exit code 3.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.engines.sdscripts import checkout, write_tokenizer
from orchestrator.errors import NotReady, OrchestratorError, Problem
from orchestrator.system import settings
from orchestrator.system.child import ChildCallbacks
from orchestrator.system.process import Command, run

if TYPE_CHECKING:
    from orchestrator.system.child import Progress

LOCK, CUDA = "requirements-sd-scripts.txt", "requirements-sd-scripts-cuda.txt"
SUBMODULE = "third_party/sd-scripts"
_WORKS = "the embedded engine works without it: make demo, or --profile demo"
_NVIDIA = ("/dev/nvidia0", "/dev/dxg")


def main() -> int:
    """Fetch and build the missing parts, and return the exit code."""
    try:
        folder = fetch()
        python = build()
        tokenizer(python, folder)
    except OrchestratorError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(f"sd-scripts {checkout.version(folder)} in {folder}\nits Python: {python}\nnext: python -m orchestrator doctor")
    return 0


def fetch() -> Path:
    """Return the checkout, after fetching the submodule if it is missing.

    Raises:
        NotReady: no git, no network, or a configured folder without sd-scripts.
    """
    folder = settings.sd_scripts()
    if checkout.present(folder):
        return folder
    if folder != settings.ROOT / SUBMODULE:
        raise NotReady(
            Problem(
                str(folder), "is set as the sd-scripts checkout but does not hold it", "correct SD_SCRIPTS_DIR or the setting"
            )
        )
    hint = f"with network: make setup; or clone kohya-ss/sd-scripts anywhere, check out {checkout.PINNED}, set SD_SCRIPTS_DIR"
    if shutil.which("git") is None or not (settings.ROOT / ".git").exists():
        raise NotReady(Problem(str(folder), f"is empty, and without git and a git clone it cannot be fetched; {_WORKS}", hint))
    print(f"fetching {SUBMODULE}", flush=True)
    argv = ("git", "submodule", "update", "--init", "--depth", "1", SUBMODULE)
    if not _run(argv) and not _run(tuple(word for word in argv if word not in ("--depth", "1"))):
        raise NotReady(Problem(str(folder), f"cannot be fetched; {_WORKS}", hint))
    if not checkout.present(folder):
        raise NotReady(Problem(str(folder), f"was fetched but does not hold sd-scripts; {_WORKS}", hint))
    return folder


def build() -> Path:
    """Return the Python of sd-scripts.

    Builds `.venv-sd-scripts` if it is missing.

    Raises:
        NotReady: the packages cannot be installed.
    """
    python = settings.sd_scripts_python()
    mark = settings.ROOT / ".venv-sd-scripts" / ".complete"
    lock = (settings.ROOT / LOCK).read_text("utf-8")
    if python.is_file() and (not python.is_relative_to(mark.parent) or (mark.is_file() and mark.read_text("utf-8") == lock)):
        return python
    if not python.is_relative_to(mark.parent):
        raise NotReady(
            Problem(str(python), "is set as sd-scripts' Python but does not exist", "correct SD_SCRIPTS_PYTHON or the setting")
        )
    print(f"installing the environment of sd-scripts into {mark.parent} (several GB)", flush=True)
    files = [LOCK, *([CUDA] if any(Path(device).exists() for device in _NVIDIA) else [])]
    install = (
        str(python),
        "-m",
        "pip",
        "install",
        "--disable-pip-version-check",
        *(f"--requirement={name}" for name in files),
    )
    if not ((python.is_file() or _run((sys.executable, "-m", "venv", str(mark.parent)))) and _run(install)):
        what = f"the packages of {', '.join(files)} cannot be installed (see above); {_WORKS}"
        raise NotReady(Problem(str(mark.parent), what, "with network and 12 GB of disk: make setup; or set SD_SCRIPTS_PYTHON"))
    mark.write_text(lock, "utf-8")
    return python


def tokenizer(python: Path, checkout_folder: Path) -> None:
    """Write missing tokenizers (or the first training downloads them)."""
    folder = settings.tokenizers()
    complete = all((folder / name).is_dir() for name in write_tokenizer.NAMES)
    if not complete and not _run((str(python), write_tokenizer.__file__, str(folder), str(checkout_folder))):
        print(f"{folder}: not all tokenizers; the first training downloads others from Hugging Face", file=sys.stderr)


def _run(argv: tuple[str, ...]) -> bool:
    """Run a program, show its output, and return whether it succeeded.

    It ends when this program does (^C).
    """
    with tempfile.TemporaryDirectory() as work:
        return run(Command(argv, settings.ROOT), Path(work), ChildCallbacks(_show), leash=True).ok


def _show(piece: str) -> Progress | None:
    print(piece, flush=True)
    return None


if __name__ == "__main__":
    sys.exit(main())
