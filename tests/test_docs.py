"""Run the commands of the documentation in order, and check that its reference covers every verb and key."""

from __future__ import annotations

import json
import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image, ImageDraw

import checkpoints
import headers
import newcomer
import shown_commands
from orchestrator import cli
from orchestrator.cli import reference
from orchestrator.engines.sdscripts import torch_builds
from orchestrator.models.layers import layers
from orchestrator.models.registry import ARCHITECTURES
from orchestrator.recipe import loader
from weights_samples import tensors, write

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md") if "reference" not in path.parts)
VIEWS = ["f00", "f01", "f02", "f03", "f04", "f10", "f11", "f12", "f13", "f20", "f21", "f22"]
NEEDS = ("gpu", "network")


SDXL: headers.Shapes = {"model.diffusion_model.x": [2], "conditioner.x": [2]}
ANIMA: headers.Shapes = {"net.blocks.0.cross_attn.q_proj.weight": [2], "net.llm_adapter.x": [2]}


@dataclass(frozen=True, slots=True)
class PageCommand:
    """One command of a page: its line, its exit code, and its needs beyond this machine."""

    line: str
    code: int
    needs: str


def commands(page: Path) -> Iterator[PageCommand]:
    """Yield the commands in the console blocks of a page, with the marks in the comment above a block."""
    text = page.read_text("utf-8")
    for match in re.finditer(r"((?:<!-- \w+: \w+ -->\n)*)```console\n(.*?)```", text, re.DOTALL):
        marks = dict(re.findall(r"<!-- (\w+): (\w+) -->", match[1]))
        assert set(marks) <= {"needs", "exit"}, page
        assert marks.get("needs", "gpu") in NEEDS, page
        for line in match[2].splitlines():
            if line.startswith("$ "):
                yield PageCommand(line[2:], int(marks.get("exit", 0)), marks.get("needs", ""))


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, project: Path) -> Path:
    """Make the folder of a reader: 12 images, settings and LoRAs of another program, no GPU, sd-scripts or models."""
    folder = tmp_path / "own"
    (folder / "pictures").mkdir(parents=True)
    for index, name in enumerate(VIEWS):
        image = Image.new("RGB", (96, 96), (20 * index, 90, 200 - 9 * index))
        ImageDraw.Draw(image).ellipse((8 + index, 20, 80, 60 + index), fill=(250 - 9 * index, 40, 60))
        image.save(folder / "pictures" / f"{name}.png")
    gui = {
        "LoRA_type": "Standard",
        "network_dim": 8,
        "network_alpha": 4,
        "max_train_steps": 100,
        "learning_rate": 1e-4,
        "seed": 1,
    }
    (folder / "settings.json").write_text(json.dumps(gui), "utf-8")
    newcomer.old_lora(folder / "old.safetensors")
    for step in (1, 2):
        newcomer.old_lora(folder / f"step{step}.safetensors", grown=1 + step / 10, ss_steps=str(5 * step))
    base = checkpoints.weights("anima")
    checkpoints.save(folder / "base.safetensors", base)
    checkpoints.save(folder / "tuned.safetensors", checkpoints.tuned(base))
    rng, block = np.random.default_rng(1), "lora_unet_blocks_0_cross_attn_q_proj"
    parts = tensors("lora", (checkpoints.OUT, checkpoints.IN, None), 2, rng)
    write(folder / "anima.safetensors", {block: parts}, "F16")
    scale = np.ones((checkpoints.OUT, 1), np.float32)
    write(folder / "dora.safetensors", {block: {**parts, "dora_scale": scale}}, "F16")
    headers.write(folder / "models" / "checkpoints" / "Illustrious-XL-v0.1.safetensors", SDXL)
    headers.write(folder / "models" / "diffusion_models" / "anima-base-v1.0.safetensors", ANIMA)
    newcomer.write_smaller_demo(folder, project)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("SD_SCRIPTS_DIR", "SD_SCRIPTS_PYTHON", "SD_SCRIPTS_TOKENIZERS", "KRNK_MODELS"):
        monkeypatch.delenv(name, raising=False)
    return folder


def call(monkeypatch: pytest.MonkeyPatch, argv: list[str]) -> int:
    monkeypatch.setattr(sys, "argv", argv)
    return cli.main()


# What is published is what the tutorial has made: one training serves both.
CASES = [[page] for page in PAGES if page.name not in ("tutorial.md", "publish.md")] + [
    [DOCS / "tutorial.md", DOCS / "howto" / "publish.md"]
]


@pytest.mark.parametrize("pages", CASES, ids=lambda pages: pages[0].relative_to(DOCS).as_posix())
def test_the_commands_of_a_page_run(
    pages: list[Path], own: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    page = pages[0]
    shown = [command for each in pages for command in commands(each)]
    if page.name != "tutorial.md":
        assert call(monkeypatch, ["orchestrator", "new", "mimika", "--images", "pictures", "--yes"]) == 0
    for command in shown:
        if command.needs:
            continue
        argv = shlex.split(command.line)
        if argv[0] == "ls":
            assert list(Path(argv[1]).iterdir()), command
            continue
        assert argv[0] == "orchestrator", f"{page.name}: {command.line}: mark its needs"
        code = call(monkeypatch, argv)
        out, err = capfd.readouterr()
        assert code == command.code, f"{command.line}\n{out}\n{err}"
        proposed = shown_commands.in_message(out + err)
        assert not [
            line for line in proposed if not line.startswith("make") and shown_commands.unknown(shown_commands.words_of(line))
        ]
    assert own.is_dir()


def test_pages_show_commands_and_most_of_them_run() -> None:
    shown = [command for page in PAGES for command in commands(page)]
    assert len(shown) > 30
    assert sum(not command.needs for command in shown) > len(shown) * 0.7


def test_commands_for_a_gpu_have_known_options(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A command that is not run has known verbs and options."""
    options = {
        words: {option for param in command.params for option in param.opts} for words, command in reference.all_verbs(cli.app)
    }
    for page in PAGES:
        for command in commands(page):
            words = shlex.split(command.line) if command.needs else []
            if words and words[0] == "orchestrator":
                assert words[1] in options, command
                assert {word for word in words if word.startswith("--")} <= options[words[1]], command
    assert call(monkeypatch, ["orchestrator", "--help"]) == 0
    assert "new" in capsys.readouterr().out


def test_the_reference_names_every_verb_and_key(tmp_path: Path) -> None:
    reference.write(cli.app, tmp_path)
    verbs = (tmp_path / "cli.md").read_text("utf-8")
    for words, command in reference.all_verbs(cli.app):
        assert f"\n## {words}\n" in verbs
        for param in command.params:
            if param.name != "help" and param.param_type_name == "option":
                assert param.opts[0] in verbs, (words, param.opts)
    recipe = (tmp_path / "recipe.md").read_text("utf-8")
    for key in ("learning_rate", "block_weights", "sv_ratio", "checkpoint", "resolution_classes", "max_loss"):
        assert f"| `{key}` |" in recipe


@pytest.mark.parametrize("name", ["cli.md", "recipe.md"])
def test_the_reference_pages_are_current(tmp_path: Path, name: str) -> None:
    reference.write(cli.app, tmp_path)
    current = (DOCS / "reference" / name).read_text("utf-8") == (tmp_path / name).read_text("utf-8")
    assert current, f"docs/reference/{name} is older than the program; run: .venv/bin/{reference.COMMAND}"


def test_the_reference_names_every_variable_that_the_program_reads(project: Path) -> None:
    sources = "\n".join(path.read_text("utf-8") for path in (project / "orchestrator").rglob("*.py"))
    read = set(re.findall(r"\b(?:KRNK|SD_SCRIPTS|XDG)_[A-Z_]*[A-Z]\b", sources))
    assert len(read) > 10
    page = reference.commands(cli.app)
    assert not [name for name in sorted(read) if f"| `{name}` |" not in page]


def test_keys_on_the_pages_exist() -> None:
    """Every key of a page exists."""
    from orchestrator.recipe import schema  # noqa: PLC0415

    fields = {
        name
        for model in ({"": schema.document()} | schema.document()["$defs"]).values()
        for name in model.get("properties", {})
    }
    for page in PAGES:
        for block in re.findall(r"```toml\n(.*?)```", page.read_text("utf-8"), re.DOTALL):
            for line in block.splitlines():
                name = re.match(r"([A-Za-z_]+)\s*=", line)
                if name and name[1] != "default":
                    assert name[1] in fields, f"{page.name}: {line}"


def test_links_between_pages_have_targets() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+\.md)[^)]*\)", page.read_text("utf-8")):
            assert (page.parent / target).is_file(), f"{page.name}: {target}"


@pytest.mark.parametrize("name", ["README.md", "README.ja.md", "CONTRIBUTING.md"])
def test_links_of_the_front_pages_have_targets(project: Path, name: str) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", (project / name).read_text("utf-8"))
    assert not [target for target in targets if not (project / target).exists()]
    assert name == "CONTRIBUTING.md" or {"docs/index.md", "docs/reference/cli.md", "docs/reference/recipe.md"} <= set(targets)


def test_every_page_is_in_the_navigation() -> None:
    navigation = (DOCS.parent / "mkdocs.yml").read_text("utf-8")
    for page in PAGES:
        assert page.relative_to(DOCS).as_posix() in navigation


def test_the_parts_that_pages_name_exist() -> None:
    for page in PAGES:
        for part in re.findall(r"_(?:algorithms|base)/[\w-]+", page.read_text("utf-8")):
            assert (loader.library() / f"{part}.toml").is_file(), f"{page.name}: {part}"


def test_the_readme_names_tests_that_exist(project: Path) -> None:
    section = (project / "README.md").read_text("utf-8").partition("## What survives what")[2].partition("\n## ")[0]
    sources = "\n".join(path.read_text("utf-8") for path in (project / "tests").rglob("test_*.py"))
    rows = [line for line in section.splitlines() if line.startswith("| ")][2:]
    assert len(rows) > 10
    for row in rows:
        names = re.findall(r"`(?:(tests/[\w/]+\.py)|(test_\w+))`", row.rpartition(" |")[0].rpartition(" | ")[2])
        assert names, f"no test shows: {row}"
        for file, name in names:
            assert (project / file).is_file() if file else f"def {name}(" in sources, f"{file or name} does not exist"


def test_the_walks_of_the_architecture_name_functions_that_exist(project: Path) -> None:
    page = (DOCS / "architecture.md").read_text("utf-8")
    hops = re.findall(r"`([\w/]+\.py): ([\w.]+)`", page)
    assert len(hops) > 40
    for file, name in hops:
        source = (project / "orchestrator" / file).read_text("utf-8")
        assert re.search(rf"^ *(?:def|class) {name.rpartition('.')[2]}\b", source, re.MULTILINE), f"{file}: {name}"
    package = {path.relative_to(project / "orchestrator").as_posix() for path in (project / "orchestrator").rglob("*.py")}
    for file in re.findall(r"`([\w/]+\.py)\b", page):
        assert any(f"/{path}".endswith(f"/{file}") for path in package) or (project / file).is_file(), f"{file} does not exist"
    walk = page.partition("## The corridor")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| \d+ \| `([\w/]+\.py): ", walk, re.MULTILINE)
    assert len(rows) <= 20
    assert len(set(rows)) <= 16


def test_the_page_on_block_weights_has_the_blocks_of_every_architecture() -> None:
    page = (DOCS / "explanation" / "block-weights.md").read_text("utf-8")
    rows = [line.split("|")[1:-1] for line in page.splitlines() if "|" in line]
    cells = [[cell.strip() for cell in row] for row in rows]
    for entry in ARCHITECTURES.values():
        (row,) = [row for row in cells if entry.title in row[0].split(", ") and len(row) == 5]
        assert row[2] == str(len(entry.blocks))
        assert row[3] == ("" if entry.short_blocks == entry.blocks else str(len(entry.short_blocks)))
        assert row[4] == ", ".join(entry.parts)
        letters = dict.fromkeys(name.rstrip("0123456789") for name in entry.blocks)
        groups = [[name for name in entry.blocks if name.rstrip("0123456789") == letter] for letter in letters]
        assert row[1] == ", ".join(names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}" for names in groups)
        for order in entry.orders:
            assert any(f"`{order}`" in row[0] and entry.title.partition("-")[0] in row[2] for row in cells if len(row) == 3)


def test_the_page_on_gpus_has_the_builds_of_torch() -> None:
    page = (DOCS / "howto" / "gpus.md").read_text("utf-8")
    shown = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("| `c")]
    expected = [
        [
            f"`{build.name}`",
            build.torch,
            build.torchvision,
            build.bitsandbytes,
            build.cuda,
            f"{build.driver} or newer" if build.driver else "",
        ]
        for build in (*torch_builds.BUILDS, torch_builds.CPU)
    ]
    assert [row[:6] for row in shown] == expected


def test_the_table_of_vram_has_every_base_model_and_the_size_of_its_weights() -> None:
    page = (DOCS / "howto" / "low-vram.md").read_text("utf-8").partition("## How much VRAM")[2]
    rows = {row[0]: row for line in page.splitlines() if len(row := [cell.strip() for cell in line.split("|")[1:-1]]) == 5}
    for entry in ARCHITECTURES.values():
        denoiser = [layer for layer in layers(entry.model) if not layer.text]
        numbers = sum(layer.out * layer.in_ * layer.kernel**2 + (layer.out if layer.bias else 0) for layer in denoiser)
        shown = float(rows[entry.title][1].removesuffix(" GB"))
        # Norms, embeddings and layers outside of blocks are not in the list of layers.
        assert shown == pytest.approx(2 * numbers / 1e9, rel=0.04), entry.title
        reported = [bool(cell) for cell in rows[entry.title][2:]]
        assert reported[2] == (reported[0] or reported[1]), f"{entry.title}: a report has a source"
