"""Run the commands that the front pages and --help show, and those that messages propose to a newcomer.

Commands run in a clone by /bin/sh, as a newcomer types them, without sd-scripts, GPU and network. What needs one of them is
refused before anything runs (exit code 3), and that is run. ``PARSED`` lists what is only parsed, with its reason.
"""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
import tomllib
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

import checkpoints
import newcomer
import shown_commands
from shown_commands import Clone, Result

PROJECT = Path(__file__).resolve().parent.parent
PAGES = [PROJECT / "README.md", PROJECT / "README.ja.md"]
PARSED = {
    r"make demo$": "trains 15 LoRAs for minutes; its plan is made instead",
    r"make setup$": "downloads several GB; tests/engines/sdscripts/test_setup.py runs it with stand-ins",
    r"make (test|check|bench|mutants|fuzz|format)": "is the development of this repository, and takes minutes to hours",
    r"python -m (benchmarks|tools\.)": "measures for minutes to hours",
    r"python -m orchestrator all --executor ray": "needs several machines; `make test-ray` runs it on nodes of one machine",
    r"(\S*/)?pip install ": "downloads",
    r"(\S*/)?ray ": "starts a cluster",
    r"python -m orchestrator fetch-base ": "downloads",
}
NOT_HERE = 3
"""Exit code of a command that needs what this machine lacks."""
NEEDS = (
    *("make krnk-locon", "make all", "make mycat-locon", "make doctor"),
    *("python -m orchestrator all --gpus 0,1", "python -m orchestrator probe krnk-locon"),
    *("python -m orchestrator select krnk-lora3x3", "python -m orchestrator variants krnk-lora3x3 --sv-ratio none,64,16"),
)
"""Commands that need a GPU, sd-scripts, its checkpoint, or a training by them."""


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """Make a clone with the files that the front pages name, 12 pictures at home, and a smaller demo profile."""
    made = shown_commands.clone(tmp_path_factory.mktemp("newcomer"), PROJECT)
    draw(made.home / "pictures" / "mycat")
    draw(made.root / "pictures")
    for name in ("some", "in", "a", "b", "old"):
        newcomer.old_lora(made.root / f"{name}.safetensors")
    base = checkpoints.weights("anima")
    checkpoints.save(made.root / "base.safetensors", base)
    checkpoints.save(made.root / "tuned.safetensors", checkpoints.tuned(base))
    (made.root / "old-settings.json").write_text('{"LoRA_type": "Standard", "max_train_steps": 100, "seed": 1}', "utf-8")
    newcomer.write_smaller_demo(made.root, PROJECT)
    with (made.root / "recipes" / "krnk-lora3x3.toml").open("a", encoding="utf-8") as recipe:
        recipe.write("[training]\nsave_every_n_steps = 200\n")  # as both pages say beside `select`
    return made


def draw(folder: Path) -> None:
    """Draw 12 pictures of a cat with names that state no view."""
    folder.mkdir(parents=True)
    for index in range(12):
        image = Image.new("RGB", (96, 96), (20 * index, 90, 200 - 9 * index))
        ImageDraw.Draw(image).ellipse((8 + index, 20, 80, 60 + index), fill=(250 - 9 * index, 40, 60))
        image.save(folder / f"cat{index}.png")


def reason(line: str) -> str:
    """Return why a command is only parsed, or "" where it is run."""
    return next((why for pattern, why in PARSED.items() if re.match(pattern, line)), "")


def parse(line: str, clone: Clone) -> None:
    """Check the words of a command that is not run."""
    words = shlex.split(line)
    while "=" in words[0]:
        words = words[1:]
    if shown_commands.PROGRAM.match(line):
        assert not (word := shown_commands.unknown(shown_commands.words_of(line))), f"{line}: {word}"
    elif words[0] == "make":
        done = clone.run(shlex.join(["make", "-n", *words[1:]]))
        assert done.code == 0, done
    elif words[:2] == ["python", "-m"]:
        done = clone.run(f"{line} --help")
        assert done.code == 0, done
    elif words[0].endswith("pip"):
        extras = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
        assert all(name in extras for word in words for name in re.findall(r"^\.\[(\w+)\]$", word)), line
    else:
        assert reason(line), line


def test_the_commands_of_the_front_pages_run(clone: Clone) -> None:
    lines = [line for page in PAGES for line in shown_commands.of_page(page)]
    assert len(lines) > 30
    for line in dict.fromkeys(part for each in lines for part in each.split("; ")):
        typed = line.removeprefix(".venv/bin/")
        if typed.startswith("export "):
            continue
        if reason(typed):
            parse(typed, clone)
            continue
        done = clone.run(f"{line} --yes" if " new " in line else line)  # it asks on a terminal
        assert done.code == (NOT_HERE if line in NEEDS else 0), done
        check_hints(done, clone)
    assert clone.run("make plan PROFILE=demo").code == 0
    made = clone.run("python -m orchestrator verify runs/mycat-locon/latest/mycat-locon.safetensors")
    assert "fits     mycat-locon --profile demo" in made.text, made


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_the_text_of_the_front_pages_exist(page: Path, clone: Clone) -> None:
    spans = shown_commands.in_text(page)
    assert len(spans) > 15
    for span in spans:
        if span.startswith(("make ", "python ", "pip ")) or " make " in span:
            parse(span.partition(" > ")[0], clone)
        else:
            assert not (word := shown_commands.unknown(shlex.split(span))), f"{span}: {word}"


def test_the_examples_of_help_run(clone: Clone) -> None:
    """Every command that a page of --help shows, in the order of the verbs."""
    shown = [(words, line) for words, command in shown_commands.all_verbs() for line in help_lines(command.help)]
    assert len(shown) > 8
    for words, line in shown:
        command = line.replace("orchestrator ", "python -m orchestrator ", 1)
        assert words in line
        if reason(command):
            parse(command, clone)
            recipe = shown_commands.words_of(command)[-1]
            assert '"url": "hf:' in clone.run(f"python -m orchestrator show {recipe} --json").text, f"{line}: no source"
            continue
        done = clone.run(f"{command} --yes" if " new " in line else command)
        assert done.code == (NOT_HERE if command in HELP_NEEDS else 0), done
        check_hints(done, clone)
    assert shown_commands.in_message(clone.run("python -m orchestrator --help").text.partition("Options")[0]) == ["make demo"]


HELP_NEEDS = ("python -m orchestrator doctor krnk-locon", "python -m orchestrator select krnk-lora3x3 --step 600")


def help_lines(text: str) -> list[str]:
    return [line.strip().removeprefix("Example: ").partition(",")[0] for line in text.splitlines() if "Example: " in line]


def check_hints(done: Result, clone: Clone) -> None:
    """Check the commands that a message proposes: each has a known verb, known options, or a target of make."""
    for line in shown_commands.in_message(done.text):
        parse(line, clone)


def test_the_commands_that_messages_propose_to_a_newcomer_run(clone: Clone) -> None:
    """Follow the hints from the first command to the last: each runs from the folder in which it was printed."""
    shutil.copytree(clone.root / "pictures", clone.root / "snaps")
    due = ["python -m orchestrator new snowy --images snaps --yes", "python -m orchestrator list"]
    due += ["python -m orchestrator doctor snowy-locon", "python -m orchestrator plan snowy-locon"]
    due += [f"python -m orchestrator {verb} snowy-locon" for verb in ("select", "variants", "probe", "dataset build")]
    due += ["python -m orchestrator run snwy-locon", "python -m orchestrator rnu", "python -m orchestrator trust"]
    due += ["python -m orchestrator inspect none.safetensors", "python -m orchestrator new snowy --images nothing --yes"]
    due += ["python -m orchestrator import none.json", "python -m orchestrator status", "python -m orchestrator report"]
    typed, done = tuple(due), dict[str, Result]()
    while due:
        line = due.pop(0)
        done[line] = clone.run(line)
        assert "Traceback" not in done[line].text
        for hint in shown_commands.in_message(done[line].text):
            if reason(hint) or re.search(r" [A-Z]{2,}\b", hint):  # SUBJECT stands for a name
                parse(hint, clone)
            elif hint not in done and hint not in due:
                due.append(hint)
                assert len(done) + len(due) < 80, due
    proposed = [line for line in done if line not in typed]
    assert len(proposed) > 3
    assert not [result for line in proposed if (result := done[line]).code not in (0, NOT_HERE)]


def test_the_commands_in_messages_have_known_verbs_and_options() -> None:
    """Every string of the program that names a command of the program, with X for its values."""
    lines = [(path, line) for path in (PROJECT / "orchestrator").rglob("*.py") for line in shown_commands.in_source(path)]
    assert len(lines) > 60
    for path, line in lines:
        words = shlex.split(line) if line.startswith("make") else shown_commands.words_of(line)
        if line.startswith("make") or not words or words[0] == "X":
            continue  # tests/test_main.py checks targets
        assert not (word := shown_commands.unknown(words)), f"{path}: {line}: {word}"


def test_a_hint_names_the_program_as_the_user_has_typed_it() -> None:
    """A message that begins with the bare name would not be replaced by the command that works here (``use_commands``)."""
    verbs = "|".join(words.partition(" ")[0] for words, _ in shown_commands.all_verbs())
    for path in (PROJECT / "orchestrator").rglob("*.py"):
        assert not re.findall(rf"[\"']orchestrator (?:{verbs})\b", path.read_text("utf-8")), path


def test_modules_that_the_front_pages_start_exist() -> None:
    for page in PAGES:
        for name in re.findall(r"python -m ([a-z_.]+)", page.read_text("utf-8")):
            assert importlib.util.find_spec(name), name
