"""Fetch a base model from its public source.

The file gets its name only after its digest was checked.
"""

from __future__ import annotations

import os
import shutil
import sys
from typing import TYPE_CHECKING, Final

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from requests import RequestException

from orchestrator.errors import NotReady, Problem, RecipeError
from orchestrator.system import files

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.plan.inputs import ProjectInputs
    from orchestrator.recipe import Recipe

_PARTS: Final = 3  # owner/name/file, where file may stand in folders
_PICKLES: Final = (".ckpt", ".pt", ".pth", ".bin")


def fetch(recipe: Recipe, inputs: ProjectInputs, folder: Path) -> Path:
    """Return the base model's file, fetched if necessary.

    Raises:
        RecipeError: the recipe has no source, or an invalid one.
        NotReady: the file cannot be fetched, or has another digest than the recipe.
    """
    base = recipe.base
    present = inputs.find(base.checkpoint)
    if present is not None and (not base.sha256 or inputs.digests.of(present) == base.sha256):
        return present
    owner, name, file = _source(recipe)
    target = folder / base.checkpoint.rpartition("/")[2]
    draft = folder / f".fetch-{target.name}"
    draft.mkdir(parents=True, exist_ok=True)
    if target.suffix.lower() in _PICKLES:
        print(f"{target.name} is a pickle, which can hold code; it is scanned before anything loads it", file=sys.stderr)
    fetched = _download(f"{owner}/{name}", file, draft)
    digest = files.sha256(fetched)
    if base.sha256 and digest != base.sha256:
        shutil.rmtree(draft)
        raise NotReady(
            Problem(
                f"base.checkpoint = {base.checkpoint}",
                f"{base.url} is another file: SHA-256 {digest}",
                f"the recipe expects {base.sha256}; ask where that file is published, or change base.sha256",
            )
        )
    if target.exists():
        raise NotReady(Problem(str(target), "exists already and is another file", "move it away, then fetch again"))
    fetched.replace(target)
    shutil.rmtree(draft)
    if not base.sha256:
        print(f'to pin this file, set in [base]:\n    sha256 = "{digest}"', file=sys.stderr)
    return target


def _source(recipe: Recipe) -> tuple[str, str, str]:
    url = recipe.base.url
    if not url:
        hint = 'set  url = "hf:OWNER/NAME/FILE"  in [base], or put the file into models/ yourself'
        raise RecipeError(Problem(f"{recipe.name}: base.url", "is not set: this base has no public source here", hint))
    parts = url.removeprefix("hf:").split("/", _PARTS - 1)
    if not url.startswith("hf:") or len(parts) != _PARTS or not all(parts) or ".." in parts[-1].split("/"):
        raise RecipeError(Problem(f"{recipe.name}: base.url", f"is {url!r}; takes hf:OWNER/NAME/FILE", "as on huggingface.co"))
    return parts[0], parts[1], parts[2]


def _download(repository: str, file: str, folder: Path) -> Path:
    """Fetch or resume one file through huggingface_hub."""
    where = f"hf:{repository}/{file}"
    try:
        return folder / os.path.relpath(hf_hub_download(repository, file, local_dir=folder), folder)
    except GatedRepoError as error:
        hint = f"accept its terms at https://huggingface.co/{repository}, then  hf auth login"
        raise NotReady(Problem(where, "is available only to people who accepted its terms", hint)) from error
    except RepositoryNotFoundError as error:
        raise NotReady(
            Problem(where, "no such repository, or a private one", "check base.url;  hf auth login  for a private one")
        ) from error
    except LocalEntryNotFoundError as error:  # stands before EntryNotFoundError, whose child it is
        raise NotReady(
            Problem(where, "cannot be reached", "check the network and HF_HUB_OFFLINE; the same command resumes")
        ) from error
    except EntryNotFoundError as error:
        raise NotReady(Problem(where, "no such file in the repository", "check base.url")) from error
    except OfflineModeIsEnabled as error:
        raise NotReady(Problem(where, "cannot be fetched: HF_HUB_OFFLINE is set", "unset HF_HUB_OFFLINE")) from error
    except (HfHubHTTPError, RequestException) as error:
        what = f"could not be fetched: {str(error).splitlines()[0][:200]}"
        raise NotReady(Problem(where, what, "the same command resumes")) from error
    except OSError as error:
        raise NotReady(
            Problem(str(error.filename or folder), f"{error.strerror or error}", "free the disk or mend the folder")
        ) from error
