"""Upload a bundle to the Hugging Face Hub, after its verification."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
from requests import RequestException  # huggingface_hub raises it

from orchestrator.errors import OrchestratorError, Problem, RecipeError, StepFailed, counted
from orchestrator.recipe.training import SMALL
from orchestrator.release import bundle, verify
from orchestrator.release.bundle_reader import table_of
from orchestrator.run.paths import SUMS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Upload:
    """An upload, done or only planned: repository, and bytes by file."""

    repo: str
    files: dict[str, int]
    done: bool
    url: str = ""

    def lines(self) -> list[str]:
        """Return the upload as lines."""
        lines = [f"{size / 2**20:9.2f} MiB  {name}" for name, size in self.files.items()]
        total = sum(self.files.values()) / 2**20
        if self.done:
            return [*lines, f"{counted(len(lines), 'file')}, {total:.1f} MiB uploaded to {self.url}"]
        return [
            *lines,
            f"{counted(len(lines), 'file')}, {total:.1f} MiB would be uploaded to {self.repo}",
            "Nothing was uploaded; --yes uploads.",
        ]


def push(path: Path, repo: str = "", *, yes: bool = False, private: bool = False, force: bool = False) -> Upload:
    """Upload a release folder as one commit.

    huggingface_hub reads token and address (HF_TOKEN, `hf auth login`, HF_ENDPOINT).

    Args:
        path: the release folder.
        repo: OWNER/NAME, or "" for the recipe's release.repository.
        yes: upload. Otherwise return the plan of it.
        private: make a new repository private.
        force: upload files of the demo's small base model, too.

    Raises:
        RecipeError: not a bundle, no repository, or files that no other program opens.
        StepFailed: the bundle fails its verification, or the Hub refuses it.
    """
    if not path.is_dir():
        raise RecipeError(Problem(str(path), "is not a folder", "push takes the release folder, runs/NAME/latest"))
    manifest = bundle.read_manifest(path)
    members = table_of(manifest, "members")
    first = table_of(members, next(iter(members))) if members else manifest
    name = repo or str(table_of(table_of(first, "recipe"), "release").get("repository", ""))
    if not force and any(_is_small(each) for each in (first, *(table_of(members, member) for member in members))):
        what = "holds files of the demo's small base model, which no other program opens"
        raise RecipeError(
            Problem(str(path), what, "train at full size (run without --profile demo), or upload it with --force")
        )
    if name.count("/") != 1:
        raise RecipeError(
            Problem(f"--repo {name}".strip(), "names no repository", "OWNER/NAME, or set release.repository in the recipe")
        )
    failed = [check for check in verify.verify_bundle(path) if not check.status.ok]
    if failed:
        hint = f"python -m orchestrator verify-bundle {path}"
        raise StepFailed([Problem(check.what, check.detail or "does not hold", hint) for check in failed])
    files = {file: (path / file).stat().st_size for file in sorted([*manifest["files"], bundle.MANIFEST, SUMS])}
    if not yes:
        return Upload(name, files, done=False)
    return Upload(name, files, done=True, url=_upload(path, name, list(files), private=private))


def _is_small(release: bundle.JSON) -> bool:
    return table_of(table_of(release, "recipe"), "base").get("checkpoint") == SMALL


def _upload(path: Path, name: str, files: list[str], *, private: bool) -> str:
    api = HfApi()
    with _hub_errors(name):
        url = api.create_repo(name, private=private, exist_ok=True)
        adds = [CommitOperationAdd(path_in_repo=file, path_or_fileobj=str(path / file)) for file in files]
        api.create_commit(name, operations=adds, commit_message=f"Release {path.resolve().name}")
    return str(url)


@contextmanager
def _hub_errors(name: str) -> Iterator[None]:
    """Turn errors of the Hub and the network into StepFailed."""
    try:
        yield
    except OrchestratorError:
        raise
    except (HfHubHTTPError, OfflineModeIsEnabled, RequestException, OSError, ValueError) as error:
        what = f"the Hub refused it: {str(error).splitlines()[0][:200]}"
        raise StepFailed(Problem(name, what, "hf auth login, or set HF_TOKEN; then run the same command again")) from error
