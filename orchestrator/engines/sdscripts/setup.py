"""Set up sd-scripts: its submodule and environment (``make setup``).

It can run again at any time. It chooses a build of torch for driver and card, and tests it before it ends. Without network or
git it names what is missing, what works without it, and the next command; exit code 3.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.engines.sdscripts import checkout, torch_builds, torch_test, write_tokenizer
from orchestrator.errors import NotReady, OrchestratorError, Problem
from orchestrator.system import settings
from orchestrator.system.child import ChildCallbacks
from orchestrator.system.files import write_text
from orchestrator.system.gpu import cards
from orchestrator.system.process import Command, run

if TYPE_CHECKING:
    from orchestrator.system.child import Progress

LOCK = "requirements-sd-scripts.txt"
SUBMODULE = "third_party/sd-scripts"
_WORKS = "the embedded engine works without it: make demo, or --profile demo"


def main() -> int:
    """Fetch, build and test the missing parts, and return the exit code."""
    try:
        folder = fetch()
        python = build()
        tokenizer(python, folder)
        tested = test(python)
    except OrchestratorError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(f"sd-scripts {checkout.version(folder)} in {folder}", f"its Python: {python}", tested, sep="\n")
    print("next: python -m orchestrator doctor")
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

    Builds `.venv-sd-scripts` if it is missing, or differs from the lock and the chosen build of torch.

    Raises:
        NotReady: no build of torch runs here, or the packages cannot be installed.
    """
    python, environment = settings.sd_scripts_python(), settings.sd_scripts_environment()
    if not python.is_relative_to(environment):
        if python.is_file():
            return python
        raise NotReady(
            Problem(str(python), "is set as sd-scripts' Python but does not exist", "correct SD_SCRIPTS_PYTHON or the setting")
        )
    choice = torch_builds.choose()
    print(*choice.reasons, f"chosen: {choice.build} ({', '.join(choice.build.requirements())})", sep="\n", flush=True)
    mark, packages = environment / ".complete", choice.build.requirements()
    installed = "\n".join([(settings.ROOT / LOCK).read_text("utf-8"), *packages])
    if python.is_file() and mark.is_file() and mark.read_text("utf-8") == installed:
        return python
    print(f"installing the environment of sd-scripts into {environment} (several GB)", flush=True)
    options = (*choice.build.pip_options(), f"--requirement={LOCK}")
    pip = (str(python), "-m", "pip", "install", "--disable-pip-version-check", *options, *packages)
    mark.unlink(missing_ok=True)
    if not ((python.is_file() or _run((sys.executable, "-m", "venv", str(environment)))) and _run(pip)):
        what = f"the packages of {LOCK} and {', '.join(packages)} cannot be installed (see above); {_WORKS}"
        raise NotReady(Problem(str(environment), what, "with network and 12 GB of disk: make setup; or set SD_SCRIPTS_PYTHON"))
    write_text(mark, installed)
    return python


def test(python: Path) -> str:
    """Test torch where it will train, and return the result.

    Raises:
        NotReady: a test fails.
    """
    gpus, _ = cards()
    cuda = bool(gpus) and os.environ.get(torch_builds.VARIABLE) != torch_builds.CPU.name
    print(f"testing torch on {'the GPU' if cuda else 'the CPU'}", flush=True)
    result = torch_test.run(python, cuda=cuda)
    if result.failed:
        hint = torch_test.hint(python, gpus, result.torch)
        raise NotReady(Problem(str(python), f"sd-scripts cannot train with it: {result}", hint))
    return str(result)


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
