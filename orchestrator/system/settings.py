"""What one machine's owner has set: where sd-scripts, its Python, models and tokenizers lie.

Environment variables first, then ``config.toml`` in ``$XDG_CONFIG_HOME/krnk`` (``~/.config/krnk``)::

    models = ["/data/stable-diffusion-webui"]
    notify = "ntfy://my-topic"
    [sd-scripts]
    dir = "/opt/sd-scripts"
    python = "/opt/sd-scripts/venv/bin/python"
    tokenizers = "/data/tokenizers"
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

from orchestrator.errors import Problem, RecipeError, near_miss

ROOT = Path(__file__).resolve().parent.parent.parent
_KNOWN: dict[str, tuple[str, ...]] = {"": ("models", "notify", "sd-scripts"), "sd-scripts": ("dir", "python", "tokenizers")}


def config_file() -> Path:
    """Return where the user's settings are looked for."""
    home = os.environ.get("XDG_CONFIG_HOME")
    return (Path(home) if home else Path.home() / ".config") / "krnk" / "config.toml"


def cache_folder() -> Path:
    """Return the folder for what can be made again: harvested options, tokenizers."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "krnk"


def read() -> dict[str, Any]:
    """Return the user's settings; empty without a file.

    Raises:
        RecipeError: the file is no TOML, or holds keys that mean nothing here.
    """
    path = config_file()
    try:
        table = tomllib.loads(path.read_text("utf-8-sig"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RecipeError(Problem(str(path), f"cannot be read: {error}")) from error
    problems = [
        Problem(f"{path}: {name}", f"unknown setting{near_miss(name, _KNOWN[''])}") for name in table if name not in _KNOWN[""]
    ]
    ours = table.get("sd-scripts", {})
    if not isinstance(ours, dict):
        raise RecipeError(Problem(f"{path}: sd-scripts", "is a table with dir, python, tokenizers"))
    for name, value in ours.items():
        if name not in _KNOWN["sd-scripts"]:
            problems.append(Problem(f"{path}: sd-scripts.{name}", f"unknown setting{near_miss(name, _KNOWN['sd-scripts'])}"))
        elif not isinstance(value, str):
            problems.append(Problem(f"{path}: sd-scripts.{name}", "takes a path in quotes"))
    models = table.get("models", [])
    if not isinstance(models, list) or not all(isinstance(one, str) for one in models):
        problems.append(Problem(f"{path}: models", "takes an array of folders in quotes"))
    notify = table.get("notify", [])
    if not isinstance(notify, str) and not (isinstance(notify, list) and all(isinstance(one, str) for one in notify)):
        problems.append(Problem(f"{path}: notify", "takes an address of apprise in quotes, or several in an array"))
    if problems:
        raise RecipeError(problems)
    return table


def _sd_scripts(variable: str, key: str) -> Path | None:
    said = os.environ.get(variable) or read().get("sd-scripts", {}).get(key)
    return Path(said).expanduser().absolute() if said else None


def sd_scripts() -> Path:
    """Return the sd-scripts checkout: $SD_SCRIPTS_DIR, the user's setting, or the submodule."""
    return _sd_scripts("SD_SCRIPTS_DIR", "dir") or ROOT / "third_party" / "sd-scripts"


def sd_scripts_python() -> Path:
    """Return the Python that has sd-scripts' requirements: $SD_SCRIPTS_PYTHON, the user's setting, or `.venv-sd-scripts`."""
    return _sd_scripts("SD_SCRIPTS_PYTHON", "python") or ROOT / ".venv-sd-scripts" / "bin" / "python"


def tokenizers() -> Path:
    """Return the folder for --tokenizer_cache_dir: $SD_SCRIPTS_TOKENIZERS, the user's setting, or one in the user's cache."""
    return _sd_scripts("SD_SCRIPTS_TOKENIZERS", "tokenizers") or cache_folder() / "tokenizers"


def model_folders() -> tuple[Path, ...]:
    """Return the folders, beside the project's own, in which models are looked for ($KRNK_MODELS, then the user's setting)."""
    said = [one for one in os.environ.get("KRNK_MODELS", "").split(os.pathsep) if one]
    return tuple(Path(one).expanduser().absolute() for one in [*said, *read().get("models", [])])


def find_root(start: Path | None = None) -> Path:
    """Return the project folder: $KRNK_PROJECT, or one with recipes/.

    It is the nearest at or above ``start``.

    Raises:
        RecipeError: there is none.
    """
    named = os.environ.get("KRNK_PROJECT")
    if named:
        return Path(named).resolve()
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        if (folder / "recipes").is_dir():
            return folder
    hint = "go to the folder that holds recipes/, or set KRNK_PROJECT to it"
    raise RecipeError(Problem(str(here), "no recipes/ folder here or above", hint))
