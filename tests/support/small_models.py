"""Small random models of all architectures, and the Python that runs sd-scripts with their sizes."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

from orchestrator.system import settings

HERE = Path(__file__).parent.parent / "sd_scripts"


def kept(folder: Path) -> Path:
    """Return the folder of all models: $KRNK_TEST_SMALL if set."""
    return Path(os.environ.get("KRNK_TEST_SMALL") or folder)


def python(folder: Path) -> Path:
    """Return a Python for $SD_SCRIPTS_PYTHON that runs each script of sd-scripts by ``launch_small.py``.

    It stands in a virtual environment of its own, with the packages of the real one.
    """
    real = settings.sd_scripts_python()
    path = folder / "venv" / "bin" / "python"
    if not path.is_file():
        path.parent.mkdir(parents=True)
        for name in ("pyvenv.cfg", "lib"):
            (folder / "venv" / name).symlink_to(real.parent.parent / name)
        path.write_text(f'#!/bin/sh\nexec {shlex.join([str(real), str(HERE / "launch_small.py")])} "$@"\n', "utf-8")
        path.chmod(0o755)
    return path


def model(folder: Path, architecture: str) -> Path:
    """Return the folder of an architecture's files, written if it is missing.

    The checkpoint is ``dit.safetensors``, for SD1 and SD2 the folder ``dit``. Other files have the names of their options.
    "tokenizers" is a folder for --tokenizer_cache_dir and HF_HOME.
    """
    target = folder / architecture
    if not target.is_dir():
        tokenizers = target if architecture == "tokenizers" else model(folder, "tokenizers")
        folder.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(dir=folder, prefix=f".{architecture}-")) / architecture
        argv = [str(settings.sd_scripts_python()), str(HERE / "launch_small.py"), str(HERE / "make_small.py"), architecture]
        environment = {**os.environ, "PYTHONPATH": str(settings.sd_scripts()), "HF_HUB_OFFLINE": "1"}
        environment |= {"HF_HOME": str(tokenizers)}
        made = subprocess.run([*argv, str(draft)], env=environment, capture_output=True, text=True, timeout=600, check=False)
        assert made.returncode == 0, made.stderr[-3000:]
        draft.rename(target)
        shutil.rmtree(draft.parent)
    return target
