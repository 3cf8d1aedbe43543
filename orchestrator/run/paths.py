"""File names below ``runs/``, each once.

runs/
    .gitignore  digests.json  probes.json  report/
    OWNER/                    a recipe, a dataset or a collection
        .lock  .shared-lock
        .partial/STEP-KEY/    work folder: log.txt, attempts.jsonl, progress.jsonl, child.json, ...
        STEP-KEY/             finished step: the same folder with record.json
        release-KEY/published/  the files of SHA256SUMS, and nothing else
        latest                link to those of the last release
        variants/
        measured-steps.json  chosen-step.json
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from orchestrator.system import child, supervisor

if TYPE_CHECKING:
    from pathlib import Path

# in a step's folder
LOG: Final = child.LOG
ATTEMPTS: Final = child.ATTEMPTS
REQUEST: Final = child.REQUEST
CHILD: Final = supervisor.CHILD
EXIT: Final = supervisor.EXIT
CHILD_LOCK: Final = supervisor.LOCK
RECORD: Final = "record.json"
PROGRESS: Final = "progress.jsonl"
SAMPLES: Final = "sample"
BOOKKEEPING: Final = frozenset({LOG, ATTEMPTS, REQUEST, CHILD, EXIT, CHILD_LOCK, RECORD, PROGRESS})
"""Files about the work that are not outputs of it."""

# in an owner's folder
PARTIAL: Final = ".partial"
LOCK: Final = ".lock"
SHARED_LOCK: Final = ".shared-lock"
LATEST: Final = "latest"
PUBLISHED: Final = "published"
SUMS: Final = "SHA256SUMS"
VARIANTS: Final = "variants"
CHOICE: Final = "chosen-step.json"
STEPS: Final = "measured-steps.json"
REPLACED: Final = ".old-"

# in runs/ itself
GITIGNORE: Final = ".gitignore"
DIGESTS: Final = "digests.json"
BENCHMARKS: Final = "probes.json"
REPORT: Final = "report"
MEASURED: Final = "measured"


def replaced(folder: Path, number: int) -> Path:
    """Return the interim name of a result that is replaced."""
    return folder.with_name(f"{folder.name}{REPLACED}{number}")


def is_replaced(folder: Path) -> bool:
    """Return whether a folder is an earlier result, renamed for removal."""
    return REPLACED in folder.name


def failed_attempt(work: Path, number: int) -> Path:
    """Return the folder for the states of a failed attempt."""
    return work / f"attempt-{number}"
