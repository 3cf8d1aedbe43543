"""``make setup``: the sd-scripts submodule and its own environment, from our lock. Can be run again at any time.

Without network or git it says what is missing, what works all the same, and the next command; exit code 3.
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
from orchestrator.system.process import ChildCallbacks, Command, run

if TYPE_CHECKING:
    from orchestrator.system.process import Progress

LOCK, CUDA = "requirements-sd-scripts.txt", "requirements-sd-scripts-cuda.txt"
SUBMODULE = "third_party/sd-scripts"
_WORKS = "the embedded engine works without it: make demo, or --profile demo"
_NVIDIA = ("/dev/nvidia0", "/dev/dxg")


def main() -> int:
    """Fetch and build what is not there; return the exit code."""
    try:
        folder = fetch()
        python = build()
        tokenizer(python)
    except OrchestratorError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(f"sd-scripts {checkout.version(folder)} in {folder}\nits Python: {python}\nnext: python -m orchestrator doctor")
    return 0


def fetch() -> Path:
    """Return the checkout; the submodule is initialised if it is not there.

    Raises:
        NotReady: no git, no network, or a configured folder that holds no sd-scripts.
    """
    folder = settings.sd_scripts()
    if checkout.present(folder):
        return folder
    if folder != settings.ROOT / SUBMODULE:
        raise NotReady(
            Problem(str(folder), "is set as the sd-scripts checkout and holds none", "mend SD_SCRIPTS_DIR or the setting")
        )
    hint = f"with network: make setup; or clone kohya-ss/sd-scripts anywhere, check out {checkout.PINNED}, set SD_SCRIPTS_DIR"
    if shutil.which("git") is None or not (settings.ROOT / ".git").exists():
        raise NotReady(Problem(str(folder), f"is empty, and this is no git clone with git at hand; {_WORKS}", hint))
    print(f"fetching {SUBMODULE}", flush=True)
    argv = ("git", "submodule", "update", "--init", "--depth", "1", SUBMODULE)
    if not _done(argv) and not _done(tuple(word for word in argv if word not in ("--depth", "1"))):
        raise NotReady(Problem(str(folder), f"cannot be fetched; {_WORKS}", hint))
    if not checkout.present(folder):
        raise NotReady(Problem(str(folder), f"was fetched and holds no sd-scripts; {_WORKS}", hint))
    return folder


def build() -> Path:
    """Return the Python of sd-scripts; `.venv-sd-scripts` is built if there is none.

    Raises:
        NotReady: packages cannot be installed.
    """
    python = settings.sd_scripts_python()
    mark = settings.ROOT / ".venv-sd-scripts" / ".complete"
    lock = (settings.ROOT / LOCK).read_text("utf-8")
    if python.is_file() and (not python.is_relative_to(mark.parent) or (mark.is_file() and mark.read_text("utf-8") == lock)):
        return python
    if not python.is_relative_to(mark.parent):
        raise NotReady(
            Problem(str(python), "is set as sd-scripts' Python and is not there", "mend SD_SCRIPTS_PYTHON or the setting")
        )
    print(f"installing the environment of sd-scripts into {mark.parent} (several GB)", flush=True)
    files = [LOCK, *([CUDA] if any(Path(one).exists() for one in _NVIDIA) else [])]
    install = (
        str(python),
        "-m",
        "pip",
        "install",
        "--disable-pip-version-check",
        *(f"--requirement={name}" for name in files),
    )
    if not ((python.is_file() or _done((sys.executable, "-m", "venv", str(mark.parent)))) and _done(install)):
        what = f"the packages of {', '.join(files)} cannot be installed (see above); {_WORKS}"
        raise NotReady(Problem(str(mark.parent), what, "with network and 12 GB of disk: make setup; or set SD_SCRIPTS_PYTHON"))
    mark.write_text(lock, "utf-8")
    return python


def tokenizer(python: Path) -> None:
    """Write the tokenizers where one is missing; the first training would fetch it otherwise."""
    folder = settings.tokenizers()
    there = all((folder / name).is_dir() for name in write_tokenizer.NAMES)
    if not there and not _done((str(python), write_tokenizer.__file__, str(folder))):
        print(f"{folder}: no tokenizer yet; the first training fetches it from Hugging Face", file=sys.stderr)


def _done(argv: tuple[str, ...]) -> bool:
    """Run a program with its output shown; return whether it ended well. It ends when this program does (^C)."""
    with tempfile.TemporaryDirectory() as work:
        return run(Command(argv, settings.ROOT), Path(work), ChildCallbacks(_show), leash=True).ok


def _show(piece: str) -> Progress | None:
    print(piece, flush=True)
    return None


if __name__ == "__main__":
    sys.exit(main())
