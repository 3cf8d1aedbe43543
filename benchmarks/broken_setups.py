# ruff: noqa: S101 - a script
"""Broken set-ups: does doctor, or the run, name the cause?

Every set-up takes a working project (the first row proves it), breaks one part of it, and runs the command of a new user. It
passes if the output holds all words of ``expected`` and the exit code is not 0. The trainer is a small program in place of
sd-scripts, so that it can fail without a GPU. Everything else is real.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import json
import os
import pickle
import shutil
import struct
import sys
import tempfile
import time
import zipfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw

from benchmarks import Row
from orchestrator import cli
from orchestrator.engines.sdscripts import checkout
from orchestrator.system import lock as owner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PINNED = "ae72efb92babe89ff8e70f057e42db68440e8d61"
PACKAGES = {
    "torch": "2.8.0",
    "accelerate": "1.6.0",
    "transformers": "4.54.1",
    "diffusers": "0.32.1",
    "lycoris": "3.4.0",
    "bitsandbytes": "0.48.0",
}
RECIPE = """
summary = "a face for trying"
subject = "mimi"
algorithm = "locon"
engine = "sd-scripts"
[base]
checkpoint = "base.safetensors"
sha256 = "{sha256}"
vae = "vae.safetensors"
[dataset]
name = "mimi"
sizes = [64]
originals = false
resolution_classes = [64]
min_bucket_reso = 64
[dataset.vocabulary.height]
0 = ""
1 = "from above"
[dataset.vocabulary.direction]
other = "from front"
[dataset.vocabulary.framing]
f = "upper body"
[dataset.sources.mimi]
images = "pictures"
trigger = "mimi"
class_tokens = "mimi character"
[network]
family = "locon"
dim = 2
alpha = 1
conv_dim = 2
conv_alpha = 1
[training]
steps = 4
learning_rate = 1e-4
optimizer = "AdamW"
mixed_precision = "bf16"
seed = 1
"""


@dataclass(slots=True)
class Project:
    """A working project with a stand-in for sd-scripts."""

    root: Path
    held: list[io.TextIOWrapper] = field(default_factory=list)

    @property
    def recipe(self) -> Path:
        return self.root / "recipes" / "mimi-locon.toml"

    @property
    def scripts(self) -> Path:
        return self.root / "sd-scripts"

    @property
    def packages(self) -> Path:
        return self.root / "venv" / "lib" / "python3.11" / "site-packages"

    def change(self, old: str, new: str) -> None:
        text = self.recipe.read_text("utf-8")
        assert old in text, old
        self.recipe.write_text(text.replace(old, new), "utf-8")

    def trainer(self, code: str) -> None:
        """Replace train_network.py by a program."""
        (self.scripts / "train_network.py").write_text(f"import os, signal, sys\n{code}\n", "utf-8")


@dataclass(frozen=True, slots=True)
class Setup:
    """One broken set-up: name, expected words, function, and command.

    The function breaks the project.
    """

    name: str
    expected: tuple[str, ...]
    breaks: Callable[[Project], None]
    argv: tuple[str, ...] = ("doctor", "mimi-locon")


@dataclass(frozen=True, slots=True)
class SetupResult:
    """Result of one set-up."""

    name: str
    named: bool
    code: int
    line: str
    seconds: float


def safetensors(names: dict[str, list[int]], seed: int = 0) -> bytes:
    """Return a small fp16 safetensors file with these names and shapes."""
    header: dict[str, object] = {}
    body = b""
    for name, shape in names.items():
        count = 1
        for side in shape:
            count *= side
        data = bytes((seed + index) % 60 for index in range(2 * count))
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + body


CLIP = {"text_model.encoder.layers.0.self_attn.q_proj.weight": [768, 768]}
FLUX = {
    "double_blocks.0.img_attn.qkv.weight": [4, 4],
    "double_blocks.0.img_mod.lin.weight": [4, 4],
    "single_blocks.0.linear1.weight": [4, 4],
    "guidance_in.in_layer.bias": [4],
}
SD1 = {"model.diffusion_model.input_blocks.0.0.weight": [4, 4], "cond_stage_model.transformer.text_model.weight": [4, 4]}


def make(root: Path) -> Project:
    """Make the working project."""
    project = Project(root)
    pictures = root / "pictures"
    pictures.mkdir(parents=True)
    for index in range(12):
        image = Image.new("RGB", (80, 80), (30 * index % 255, 90, 200 - 10 * index))
        ImageDraw.Draw(image).ellipse((10 + index, 12, 60, 60 + index), fill=(250 - 12 * index, 40 + 9 * index, 60))
        image.save(pictures / f"f{index // 8}{index % 8}.png")
    (root / "models").mkdir()
    (root / "models" / "base.safetensors").write_bytes(safetensors(SD1))
    (root / "models" / "vae.safetensors").write_bytes(safetensors({"decoder.conv_in.weight": [8, 4, 3, 3]}))
    (root / "recipes").mkdir()
    digest = hashlib.sha256((root / "models" / "base.safetensors").read_bytes()).hexdigest()
    project.recipe.write_text(RECIPE.replace("{sha256}", digest), "utf-8")
    (project.scripts / "library").mkdir(parents=True)
    (project.scripts / "library" / "train_util.py").write_text("", "utf-8")
    project.trainer("sys.exit('this set-up has no trainer')")
    (project.scripts / ".git").mkdir()
    git = root / "bin" / "git"  # replaces git: reports a clean checkout of the pinned commit
    git.parent.mkdir()
    git.write_text(f'#!/bin/sh\ncase "$*" in *rev-parse*) echo {PINNED};; esac\n', "utf-8")
    git.chmod(0o755)
    project.packages.mkdir(parents=True)
    (root / "venv" / "pyvenv.cfg").write_text("home = /usr\n", "utf-8")
    (root / "venv" / "bin").mkdir()
    (root / "venv" / "bin" / "python").symlink_to(sys.executable)
    for name, version in PACKAGES.items():
        package(project, name, version)
    tokenizer = root / "tokenizers" / "openai_clip-vit-large-patch14"
    tokenizer.mkdir(parents=True)
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json"):
        (tokenizer / name).write_text("{}", "utf-8")
    return project


def package(project: Project, name: str, version: str) -> None:
    distribution = {"lycoris": "lycoris_lora"}.get(name, name)
    for old in project.packages.glob(f"{distribution}-*"):
        old.rmdir()
    (project.packages / name).mkdir(exist_ok=True)
    (project.packages / f"{distribution}-{version}.dist-info").mkdir()


def unpackage(project: Project, name: str) -> None:
    shutil.rmtree(project.packages / name)
    for old in project.packages.glob(f"{name}-*"):
        old.rmdir()


class _Harm:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("true",)


def harmful(project: Project) -> None:
    """Replace the base model by a pickle that would run a command.

    The pickle is never loaded.
    """
    (project.root / "models" / "base.safetensors").unlink()
    with zipfile.ZipFile(project.root / "models" / "base.ckpt", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"state_dict": _Harm()}))
    text = project.recipe.read_text("utf-8").replace('checkpoint = "base.safetensors"', 'checkpoint = "base.ckpt"')
    project.recipe.write_text(
        "\n".join('sha256 = ""' if line.startswith("sha256") else line for line in text.split("\n")), "utf-8"
    )


def unnamed(project: Project, names: dict[str, list[int]]) -> None:
    """Replace the base model, and remove its digest from the recipe."""
    (project.root / "models" / "base.safetensors").write_bytes(safetensors(names))
    lines = project.recipe.read_text("utf-8").split("\n")
    project.recipe.write_text("\n".join('sha256 = ""' if line.startswith("sha256") else line for line in lines), "utf-8")


def cut(project: Project) -> None:
    path = project.root / "models" / "base.safetensors"
    unnamed(project, SD1)
    path.write_bytes(path.read_bytes()[:-40])


def lock(project: Project) -> None:
    """Hold the lock of the recipe like another run."""
    folder = project.root / "runs" / "mimi-locon"
    folder.mkdir(parents=True)
    file = (folder / ".lock").open("w+", encoding="utf-8")
    owner.write(file.fileno(), replace(owner.current_process(), host="otherhost", pid=4242))
    fcntl.flock(file, fcntl.LOCK_EX)
    project.held.append(file)


def fails(text: str, code: int = 1) -> Callable[[Project], None]:
    return lambda project: project.trainer(f"print({text!r}, file=sys.stderr)\nsys.exit({code})")


RUN = ("run", "mimi-locon", "--only", "train", "--only", "dataset")
SETUPS = (
    Setup(
        "no sd-scripts (submodule not fetched)",
        ("sd-scripts", "is not there", "setup fetches it"),
        lambda p: shutil.rmtree(p.scripts),
    ),
    Setup(
        "no environment for sd-scripts",
        ("Python of sd-scripts", "SD_SCRIPTS_PYTHON"),
        lambda p: shutil.rmtree(p.root / "venv"),
    ),
    Setup("LyCORIS 4.1.3", ("lycoris-lora 4.1.3", "duplicated lora name", "3.4.0"), lambda p: package(p, "lycoris", "4.1.3")),
    Setup(
        "LyCORIS not installed",
        ("lycoris", "not there", "network.family = locon"),
        lambda p: shutil.rmtree(p.packages / "lycoris"),
    ),
    Setup("torch not installed", ("package torch is not there",), lambda p: unpackage(p, "torch")),
    Setup(
        "AdamW8bit without bitsandbytes",
        ("package bitsandbytes is not there", "AdamW8bit"),
        lambda p: (unpackage(p, "bitsandbytes"), p.change('optimizer = "AdamW"', 'optimizer = "AdamW8bit"'))[0],
    ),
    Setup(
        "tokenizer's folder incomplete",
        ("tokenizer", "lacks merges.txt"),
        lambda p: (p.root / "tokenizers" / "openai_clip-vit-large-patch14" / "merges.txt").unlink(),
    ),
    Setup(
        "base model missing",
        ("base.checkpoint", "not found", "models"),
        lambda p: (p.root / "models" / "base.safetensors").unlink(),
    ),
    Setup(
        "base model misspelt in the recipe",
        ("not found; did you mean base.safetensors?",),
        lambda p: p.change('"base.safetensors"', '"bas.safetensors"'),
    ),
    Setup("base model cut short by a download", ("base.safetensors", "header accounts for"), cut),
    Setup(
        "another base model of the same name",
        ("is another file: SHA-256", "the recipe expects"),
        lambda p: (p.root / "models" / "base.safetensors").write_bytes(safetensors(SD1, 7)) and None,
    ),
    Setup(
        "an SDXL model for an SD1 recipe",
        ("is SDXL, but base.architecture is SD1", 'base.architecture = "sdxl"'),
        lambda p: unnamed(p, {**SD1, "conditioner.embedders.0.weight": [4, 4]}),
    ),
    Setup(
        "a LoRA as base model",
        ("is a LoRA", "whole SD1"),
        lambda p: unnamed(p, {"lora_unet_mid_block.lora_up.weight": [4, 4]}),
    ),
    Setup("a pickle that would run a command", ("pickle that would call", "system"), harmful),
    Setup(
        "VAE missing", ("base.vae = vae.safetensors", "not found"), lambda p: (p.root / "models" / "vae.safetensors").unlink()
    ),
    Setup("no pictures", ("no folder pictures",), lambda p: shutil.rmtree(p.root / "pictures")),
    Setup(
        "an empty caption file",
        ("f00.txt", "has an empty first line", "write the tags there"),
        lambda p: (p.root / "pictures" / "f00.txt").write_text("\n") and None,
    ),
    Setup(
        "a caption file in another encoding",
        ("f00.txt", "is not UTF-8"),
        lambda p: (p.root / "pictures" / "f00.txt").write_bytes("鏡".encode("shift_jis")) and None,
    ),
    Setup(
        "two pictures of one name",
        ("has the same name as", "rename one"),
        lambda p: shutil.copy(p.root / "pictures" / "f00.png", p.root / "pictures" / "F00.PNG") and None,
    ),
    Setup("a file where results go", ("runs", "is a file, and results need a folder"), lambda p: (p.root / "runs").touch()),
    Setup(
        "a text encoder in the VAE's slot",
        ("base.vae", "text encoder"),
        lambda p: (p.root / "models" / "vae.safetensors").write_bytes(safetensors(CLIP)) and None,
    ),
    Setup("a FLUX model for an SD1 recipe", ("FLUX", "base.architecture"), lambda p: unnamed(p, FLUX)),
    Setup("broken TOML", ("mimi-locon.toml", "line"), lambda p: p.change("[network]", "[network")),
    Setup("an optimizer that does not exist", ("Prodgy", "did you mean Prodigy?"), lambda p: p.change('"AdamW"', '"Prodgy"')),
    Setup(
        "Prodigy with a rate of its own for the text encoder",
        ("Prodigy", "text_encoder_lr"),
        lambda p: p.change(
            'learning_rate = 1e-4\noptimizer = "AdamW"', 'learning_rate = 1.0\noptimizer = "Prodigy"\ntext_encoder_lr = 44e-6'
        ),
    ),
    Setup(
        "kohya's word for a key",
        ("network.dim", "network_dim"),
        lambda p: p.change("dim = 2\nalpha", "network_dim = 2\nalpha"),
    ),
    Setup("steps and epochs", ("training.epochs", "steps"), lambda p: p.change("steps = 4", "steps = 4\nepochs = 2")),
    Setup(
        "a promise that the recipe breaks",
        ("expect.modules", "promises 9 modules", "mimi-locon.toml"),
        lambda p: p.change("[network]", "[expect]\nmodules = 9\n[network]"),
    ),
    Setup(
        "block weights of no known name",
        ("block_weights", "did you mean FACE?"),
        lambda p: p.change('engine = "sd-scripts"', 'engine = "sd-scripts"\nblock_weights = "FACES"'),
    ),
    Setup(
        "block weights for a network that cannot be scaled",
        ("boft", "block_weights"),
        lambda p: (
            p.change('engine = "sd-scripts"', 'engine = "sd-scripts"\nblock_weights = "FACE"'),
            p.change('family = "locon"\ndim = 2\nalpha = 1\nconv_dim = 2\nconv_alpha = 1', 'family = "boft"\ndim = 2'),
        )[0],
    ),
    Setup(
        "a picture that is none",
        ("f03.png", "is not an image"),
        lambda p: (p.root / "pictures" / "f03.png").write_text("hello") and None,
    ),
    Setup(
        "disk too small for what will be written",
        ("GB free; these recipes write up to",),
        lambda p: p.change("steps = 4", "steps = 10_000_000\nsave_every_n_steps = 1"),
    ),
    Setup(
        "a misspelt setting",
        ("training.learning_rat", "did you mean learning_rate?"),
        lambda p: p.change("learning_rate =", "learning_rat ="),
    ),
    Setup(
        "settings that exclude each other",
        ("training.cache_latents", "color_aug"),
        lambda p: (
            p.change("[network]", "[network]\n"),
            p.change("sizes = [64]", "sizes = [64]\ncolor_aug = true"),
            p.change("seed = 1", 'seed = 1\ncache_latents = "memory"'),
        )[0],
    ),
    Setup("another run holds the recipe", ("is being worked on by process 4242",), lock, RUN),
    Setup(
        "GPU memory full",
        ("the GPU's memory is full", "batch_size"),
        fails("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB"),
        RUN,
    ),
    Setup(
        "killed by the kernel",
        ("was killed (signal 9)", "memory"),
        lambda p: p.trainer("os.kill(os.getpid(), signal.SIGKILL)"),
        RUN,
    ),
    Setup(
        "disk full while training",
        ("the disk is full", "KRNK_RUNS"),
        fails("OSError: [Errno 28] No space left on device"),
        RUN,
    ),
    Setup("NaN in the loss", ("nan",), fails("\rsteps:  50%|#####     | 2/4 [00:01<00:01, 1.00it/s, avr_loss=nan]", 0), RUN),
    Setup(
        "the trainer finds no picture and exits 0",
        ("the trainer found no pictures", "dataset check"),
        fails("ERROR    No data found. Please verify arguments", 0),
        RUN,
    ),
    Setup("no driver for the GPU", ("torch sees no GPU",), fails("RuntimeError: Found no NVIDIA driver on your system."), RUN),
    Setup(
        "tokenizer cannot be fetched",
        ("tokenizer's files are not on this machine",),
        fails("OSError: Can't load tokenizer for 'openai/clip-vit-large-patch14'. If you were trying to load it from the Hub"),
        RUN,
    ),
)


@contextlib.contextmanager
def surroundings(project: Project) -> Iterator[None]:
    """Point the program at the project inside the ``with`` block."""
    variables = {
        "KRNK_PROJECT": project.root,
        "KRNK_RUNS": project.root / "runs",
        "SD_SCRIPTS_DIR": project.scripts,
        "SD_SCRIPTS_PYTHON": project.root / "venv" / "bin" / "python",
        "SD_SCRIPTS_TOKENIZERS": project.root / "tokenizers",
        "XDG_CONFIG_HOME": project.root / "config",
        "PATH": f"{project.root / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "KRNK_NOTIFY": "",
    }
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update({name: str(value) for name, value in variables.items()})
    argv, here = sys.argv, Path.cwd()
    os.chdir(project.root)
    try:
        yield
    finally:
        os.chdir(here)
        sys.argv = argv
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def run(project: Project, argv: tuple[str, ...]) -> tuple[int, str]:
    """Run a command, and return its exit code and output."""
    out = io.StringIO()
    with surroundings(project), contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        sys.argv = ["orchestrator", *argv]
        code = cli.main()
    return code, out.getvalue()


def healthy(folder: Path) -> tuple[int, str]:
    """Run doctor on the working project. It must report no error."""
    return run(make(folder), ("doctor", "mimi-locon"))


def build(folder: Path) -> Path:
    """Build the dataset of a working project and return its folder.

    It is for set-ups that fail later.
    """
    project = make(folder)
    run(project, ("run", "mimi-locon", "--only", "dataset"))
    return folder / "runs" / "mimi"


def attempt(setup: Setup, folder: Path, built: Path) -> SetupResult:
    """Make a project, break it, and run the command of the set-up."""
    start = time.monotonic()
    project = make(folder)
    if setup.argv == RUN:
        shutil.copytree(built, folder / "runs" / "mimi")
    setup.breaks(project)
    code, text = run(project, setup.argv)
    for file in project.held:
        file.close()
    flat = " ".join(text.split())
    named = code != 0 and all(words in flat for words in setup.expected)
    line = next(
        (line.strip() for line in text.splitlines() if setup.expected[0] in line),
        text.strip().splitlines()[-1] if text.strip() else "",
    )
    return SetupResult(setup.name, named, code, line.replace(str(folder), "…"), time.monotonic() - start)


def rows() -> list[Row]:
    """Run all set-ups. Print the failed ones on stderr."""
    assert checkout.PINNED == PINNED
    with tempfile.TemporaryDirectory() as name:
        code, text = healthy(Path(name) / "healthy")
        built = build(Path(name) / "built")
        results = [attempt(setup, Path(name) / str(number), built) for number, setup in enumerate(SETUPS)]
    for result in results:
        if not result.named:
            print(f"MISSED {result.name:42} exit {result.code}  {result.line}", file=sys.stderr)
    assert code == 0, text
    missed = sum(not result.named for result in results)
    slowest = max(results, key=lambda result: result.seconds)
    return [
        Row(f"{len(results)} broken set-ups: causes not named", missed, 0, unit=""),
        Row("the slowest result", slowest.seconds, beside=slowest.name),
    ]
