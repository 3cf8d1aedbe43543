"""Draw prompts with a script of sd-scripts that names its images itself.

A program for sd-scripts' Python: ``python draw_prompts.py REQUEST SCRIPT ARGUMENTS``. The request has the prompt lines. They
are typed into the script's dialog, or the script reads them from a file. Either way it loads its models once.
"""

from __future__ import annotations

import builtins
import json
import logging
import os
import runpy
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

COMMIT = "0" * 40


class Failed(Exception):
    """The script drew something else than the prompts."""


class Images:
    """Images in the order of the prompts, moved to their names."""

    def __init__(self, folder: Path, target: Path, names: list[str]) -> None:
        """Expect images in ``folder``, for names in ``target``."""
        self._folder, self._target, self._names, self._moved = folder, target, names, 0

    def move(self, count: int) -> None:
        """Move the images of the next ``count`` prompts.

        Raises:
            Failed: there are fewer or more.
        """
        drawn = sorted(self._folder.glob("*.png"))
        if len(drawn) != count:
            prompts = ", ".join(self._names[self._moved : self._moved + count])
            raise Failed(f"{len(drawn)} images were drawn for {prompts}; see the messages above")
        for path in drawn:  # the script names them by time
            path.replace(self._target / f"{self._names[self._moved]}.png")
            self._moved += 1


class Dialog:
    """Replacement of ``input`` that types one prompt line a call."""

    def __init__(self, images: Images, lines: list[str], last: str) -> None:
        """Prepare to type ``lines``, and then ``last``."""
        self._images, self._lines, self._last, self._typed = images, lines, last, 0

    def __call__(self, _: str = "") -> str:
        """Return the next line, after the image of the last one was moved."""
        if self._typed:
            self._images.move(1)
        if self._typed == len(self._lines):
            return self._last
        self._typed += 1
        line = self._lines[self._typed - 1]
        print(f"prompt {self._typed}/{len(self._lines)}: {line}", flush=True)
        return line


class Unused(logging.Handler):
    """Handler that stops the program where a LoRA is not merged whole."""

    def emit(self, record: logging.LogRecord) -> None:
        """Stop at sd-scripts' warning."""
        if "not all LoRA keys are used" in (text := record.getMessage()):
            raise Failed(text)


def offline(tokenizers: Path, names: list[str], cache: Path) -> None:
    """Show tokenizers of sd-scripts as a cache of the Hugging Face Hub.

    The script has no option for them. If one is missing it asks the Hub.

    Args:
        tokenizers: folder of --tokenizer_cache_dir.
        names: their names there, as google_t5-v1_1-xxl or, in the Hub's own layout, models--google--t5-v1_1-xxl.
        cache: folder to make.
    """
    folders_by_name = {}
    for name in names:
        kept = name if name.startswith("models--") else f"models--{name.replace('_', '--', 1)}"
        folders = [tokenizers / name] if kept != name else []
        for folder in (*folders, *sorted((tokenizers / kept / "snapshots").glob("*"))):
            if folder.is_dir():
                folders_by_name[kept] = folder.resolve()
                break
    if not names or len(folders_by_name) < len(names):
        return
    for kept, folder in folders_by_name.items():
        (cache / kept / "refs").mkdir(parents=True)
        (cache / kept / "refs" / "main").write_text(COMMIT, "utf-8")
        (cache / kept / "snapshots").mkdir()
        (cache / kept / "snapshots" / COMMIT).symlink_to(folder, target_is_directory=True)
    os.environ.update({"HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"})


def draw(request: dict[str, Any], script: str, arguments: list[str]) -> None:
    """Run the script with the prompts of a request.

    Raises:
        Failed: an image is missing, or the LoRA had no effect.
    """
    temporary = Path(request["temporary"])
    images = Images(temporary / "images", temporary.parent, request["names"])
    offline(Path(request["tokenizers"]["folder"]), request["tokenizers"]["names"], temporary / "hub")
    if request["dialog"]:
        builtins.input = Dialog(images, request["lines"], request["last_line"])  # type: ignore[assignment]
    logging.getLogger("library.lora_utils").addHandler(Unused())
    sys.argv = [script, *arguments]
    sys.path[0] = str(Path(script).resolve().parent)
    runpy.run_path(script, run_name="__main__")
    if not request["dialog"]:
        images.move(len(request["names"]))


def main(argv: list[str]) -> int:
    """Draw and return the exit code."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    request = json.loads(Path(argv[0]).read_text("utf-8"))
    temporary = Path(request["temporary"])
    shutil.rmtree(temporary, ignore_errors=True)  # of an attempt that was killed
    (temporary / "images").mkdir(parents=True)
    try:
        draw(request, argv[1], argv[2:])
    except Failed as error:
        print(f"{Path(argv[1]).name}: {error}", file=sys.stderr, flush=True)
        return 1
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
