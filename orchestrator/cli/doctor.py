"""The machine by itself: Python, packages against the lock, encoding, GPU, disk, TensorBoard, locks and leases."""

from __future__ import annotations

import importlib.metadata
import locale
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from orchestrator.system import settings
from orchestrator.system.gpu import query
from orchestrator.system.lock import held_by
from orchestrator.weights.checks import Check, CheckStatus

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.run.store import Store

_OLDEST: Final = (3, 11)
_LITTLE_VRAM: Final = 6_000  # MiB that a training of SD1.5 with gradient checkpointing takes at batch 1
_LITTLE_DISK: Final = 2e9


def checks(store: Store, root: Path, *, embedded: bool) -> list[Check]:
    """Return the checks of this machine; ``embedded``: whether only the embedded engine is asked for."""
    return [
        python(),
        packages(),
        encoding(),
        gpu(needed=not embedded),
        disk(store, root),
        tensorboard(),
        *locks(store),
        *leases(),
    ]


def python() -> Check:
    """Say which Python runs this."""
    version = sys.version.split()[0]
    good = sys.version_info >= _OLDEST
    said = f"{version}, {sys.executable}"
    return Check(
        "python", CheckStatus.PASS if good else CheckStatus.FAIL, said, "make PYTHON=python3.11 setup", "3.11 or newer"
    )


def packages() -> Check:
    """Compare the installed packages with the lock."""
    lock = settings.ROOT / "constraints.txt"
    if not lock.is_file():
        return Check("packages", CheckStatus.PASS, "no lock beside the program (installed as a package)")
    differ, missing, count = [], [], 0
    for line in lock.read_text("utf-8").splitlines():
        name, _, wanted = line.partition("==")
        if not wanted or line.startswith("#"):
            continue
        count += 1
        try:
            installed = importlib.metadata.version(name).partition("+")[0]
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
            continue
        if installed != wanted:
            differ.append(f"{name} {installed} (lock: {wanted})")
    if not differ:
        absent = f", {len(missing)} of extras are not installed" if missing else ""
        return Check("packages", CheckStatus.PASS, f"{count - len(missing)} as locked{absent}")
    return Check(
        "packages",
        CheckStatus.WARNING,
        ", ".join(differ),
        f"{sys.executable} -m pip install -c {lock} -e .",
        "as constraints.txt",
    )


def encoding() -> Check:
    """Say whether Japanese captions and paths can be read, written and printed."""
    said = {"files": sys.getfilesystemencoding(), "texts": locale.getpreferredencoding(do_setlocale=False)}
    said["terminal"] = sys.stdout.encoding or "none"
    narrow = [f"{what} {name}" for what, name in said.items() if name.lower().replace("-", "") not in ("utf8", "none")]
    if narrow:
        return Check("encoding", CheckStatus.WARNING, ", ".join(narrow), "export PYTHONUTF8=1 LC_ALL=C.UTF-8", "UTF-8")
    return Check("encoding", CheckStatus.PASS, "UTF-8")


def gpu(*, needed: bool) -> Check:
    """Say which GPUs there are, how much of their memory is free, and the driver."""
    rows, reason = query("name", "memory.free", "memory.total", "driver_version")
    if not rows:
        state = CheckStatus.WARNING if needed else CheckStatus.PASS
        return Check(
            "gpu", state, reason, "the embedded engine trains on the CPU:  run RECIPE --profile demo", "an NVIDIA GPU, 6 GB"
        )
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    said = "; ".join(f"{name}, {free} of {total} MiB free, driver {driver}" for name, free, total, driver in rows)
    said += f" (CUDA_VISIBLE_DEVICES={hidden})" if hidden else ""
    most = max((int(row[1]) for row in rows if row[1].isdigit()), default=_LITTLE_VRAM)
    if needed and most < _LITTLE_VRAM:
        return Check("gpu", CheckStatus.WARNING, said, "nvidia-smi  shows who holds the memory", f"{_LITTLE_VRAM} MiB free")
    return Check("gpu", CheckStatus.PASS, said)


def disk(store: Store, root: Path) -> Check:
    """Say how much the disk of the store has left."""
    folder = store.root if store.root.exists() else root
    free = shutil.disk_usage(folder).free
    said = f"{free / 1e9:.1f} GB free for {store.root}"
    return Check(
        "disk",
        CheckStatus.PASS if free > _LITTLE_DISK else CheckStatus.WARNING,
        said,
        "export KRNK_RUNS=/a/larger/disk",
        "2 GB or more",
    )


def tensorboard() -> Check:
    """Say whether curves can be looked at while a training runs."""
    try:
        return Check("tensorboard", CheckStatus.PASS, importlib.metadata.version("tensorboard"))
    except importlib.metadata.PackageNotFoundError:
        return Check(
            "tensorboard",
            CheckStatus.WARNING,
            "not installed: no curves with  make tensorboard",
            f"{sys.executable} -m pip install tensorboard",
        )


def locks(store: Store) -> Iterator[Check]:
    """Yield a line for every recipe that another process works on now."""
    for lock in sorted(store.root.glob("*/.lock")):
        holder = held_by(lock)
        if holder:
            said = f"{lock.parent.name} is being worked on by {holder}"
            yield Check(
                "lock",
                CheckStatus.WARNING,
                said,
                "python -m orchestrator status  shows it; wait, or end that process",
                "nobody",
            )


def leases() -> Iterator[Check]:
    """Yield a line for every GPU that a training holds now."""
    for lease in sorted(Path(tempfile.gettempdir()).glob("krnk-gpu-*.lease")):
        holder = held_by(lease)
        if holder:
            name = lease.stem.removeprefix("krnk-gpu-")
            yield Check(
                "GPU lease",
                CheckStatus.WARNING,
                f"GPU {name} is held by {holder}",
                "python -m orchestrator status  shows it; a run waits for it",
            )
