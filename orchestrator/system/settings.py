"""Settings of this machine: sd-scripts, Python, models, tokenizers.

Environment variables first, then ``config.toml`` in ``$XDG_CONFIG_HOME/krnk`` (``~/.config/krnk``)::

    models = ["/data/stable-diffusion-webui"]
    notify = "ntfy://my-topic"
    encoder = "/data/clip-vit-base-patch32"
    [sd-scripts]
    dir = "/opt/sd-scripts"
    python = "/opt/sd-scripts/venv/bin/python"
    tokenizers = "/data/tokenizers"
"""

from __future__ import annotations

import functools
import os
import sys
import tomllib
from pathlib import Path
from typing import Any

from orchestrator.errors import Problem, RecipeError, near_miss

ROOT = Path(__file__).resolve().parent.parent.parent
_KNOWN: dict[str, tuple[str, ...]] = {
    "": ("models", "notify", "encoder", "sd-scripts"),
    "sd-scripts": ("dir", "python", "tokenizers"),
}


@functools.cache
def program_folder() -> Path:
    """Return the folder of the program's own recipes and images.

    It is the checkout, or ``share/krnk`` of an installed package.
    """
    return ROOT if (ROOT / "recipes").is_dir() else Path(sys.prefix) / "share" / "krnk"


def config_file() -> Path:
    """Return the path of the user's settings."""
    home = os.environ.get("XDG_CONFIG_HOME")
    return (Path(home) if home else Path.home() / ".config") / "krnk" / "config.toml"


def cache_folder() -> Path:
    """Return the folder for caches: parsed options, tokenizers."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "krnk"


def read() -> dict[str, Any]:
    """Return the user's settings, or {} without a file.

    Raises:
        RecipeError: the file is not TOML, or has unknown keys.
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
    sd_scripts_table = table.get("sd-scripts", {})
    if not isinstance(sd_scripts_table, dict):
        raise RecipeError(Problem(f"{path}: sd-scripts", "is a table with dir, python, tokenizers"))
    for name, value in sd_scripts_table.items():
        if name not in _KNOWN["sd-scripts"]:
            problems.append(Problem(f"{path}: sd-scripts.{name}", f"unknown setting{near_miss(name, _KNOWN['sd-scripts'])}"))
        elif not isinstance(value, str):
            problems.append(Problem(f"{path}: sd-scripts.{name}", "takes a path in quotes"))
    models = table.get("models", [])
    if not isinstance(models, list) or not all(isinstance(folder, str) for folder in models):
        problems.append(Problem(f"{path}: models", "takes an array of folders in quotes"))
    if not isinstance(table.get("encoder", ""), str):
        problems.append(Problem(f"{path}: encoder", "takes the folder of an ONNX image encoder in quotes"))
    notify = table.get("notify", [])
    if not isinstance(notify, str) and not (isinstance(notify, list) and all(isinstance(address, str) for address in notify)):
        problems.append(Problem(f"{path}: notify", "takes an address of apprise in quotes, or several in an array"))
    if problems:
        raise RecipeError(problems)
    return table


def _sd_scripts(variable: str, key: str) -> Path | None:
    path = os.environ.get(variable) or read().get("sd-scripts", {}).get(key)
    return Path(path).expanduser().absolute() if path else None


def sd_scripts() -> Path:
    """Return the checkout of sd-scripts.

    It is $SD_SCRIPTS_DIR, the user's setting, or the submodule.
    """
    return _sd_scripts("SD_SCRIPTS_DIR", "dir") or ROOT / "third_party" / "sd-scripts"


def sd_scripts_python() -> Path:
    """Return the Python with the requirements of sd-scripts.

    It is $SD_SCRIPTS_PYTHON, the user's setting, or that of ``sd_scripts_environment``.
    """
    return _sd_scripts("SD_SCRIPTS_PYTHON", "python") or sd_scripts_environment() / "bin" / "python"


def sd_scripts_environment() -> Path:
    """Return the virtual environment that ``make setup`` builds."""
    return ROOT / ".venv-sd-scripts"


def tokenizers() -> Path:
    """Return the folder for --tokenizer_cache_dir.

    It is $SD_SCRIPTS_TOKENIZERS, the user's setting, or a folder in the user's cache.
    """
    return _sd_scripts("SD_SCRIPTS_TOKENIZERS", "tokenizers") or cache_folder() / "tokenizers"


def model_folders() -> tuple[Path, ...]:
    """Return the folders of models besides the project's own.

    These are $KRNK_MODELS, then the user's setting.
    """
    named = [folder for folder in os.environ.get("KRNK_MODELS", "").split(os.pathsep) if folder]
    return tuple(Path(folder).expanduser().absolute() for folder in [*named, *read().get("models", [])])


def encoder() -> Path | None:
    """Return the folder of the image encoder, or None.

    It is $KRNK_ENCODER, or the user's setting.
    """
    folder = os.environ.get("KRNK_ENCODER") or read().get("encoder", "")
    return Path(folder).expanduser().absolute() if folder else None


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
