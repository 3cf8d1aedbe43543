"""`merge` and `resize` with `--with sd-scripts`, by stand-ins of its programs that record their arguments.

The real programs on real files: tests/sd_scripts.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest

from command_line import call
from orchestrator import cli
from orchestrator.engines.sdscripts import lora_tools
from weights_samples import lora

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = """
import argparse, json, os, shutil, sys
def setup_parser():
    parser = argparse.ArgumentParser()
    parser.add_argument("--{model}", type=str, {many})
    parser.add_argument("--save_to", type=str)
    parser.add_argument("--save_precision", type=str, choices=["float", "fp16", "bf16"])
    parser.add_argument("--new_rank", type=int, default=4)
    parser.add_argument("--new_conv_rank", type=int)
    parser.add_argument("--device", type=str)
    {more}
    return parser
if __name__ == "__main__":
    args = vars(setup_parser().parse_args())
    with open(os.environ["ARGUMENTS"], "w") as file:
        json.dump(args, file)
    print("\\r 50%|#####     | 1/2 [00:00<00:00]", end="", file=sys.stderr)
    if args["device"] == "broken":
        sys.exit("RuntimeError: no such device")
    source = args["{model}"] if isinstance(args["{model}"], str) else args["{model}"][0]
    shutil.copy(source, args["save_to"])
    if args["device"] == "short":
        with open(args["save_to"], "r+b") as file:
            file.truncate(100)
"""
MERGE = """parser.add_argument("--ratios", type=float, nargs="*")
    parser.add_argument("--lbws", type=str, nargs="*")
    parser.add_argument("--precision", type=str, default="float")
    parser.add_argument("--no_metadata", action="store_true")"""
RESIZE = """parser.add_argument("--verbose", action="store_true")
    parser.add_argument("--dynamic_method", type=str)
    parser.add_argument("--dynamic_param", type=float)
    rank = "index_sv_ratio(S, dynamic_param) + 1" """


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put stand-ins of the two programs into a checkout.

    Return the file that records their arguments.
    """
    folder = tmp_path / "sd-scripts"
    (folder / "networks").mkdir(parents=True)
    (folder / "library").mkdir()
    for name in ("train_network.py", "library/train_util.py"):
        (folder / name).touch()
    texts = {lora_tools.MERGE: ("models", 'nargs="*"', MERGE), lora_tools.RESIZE: ("model", "default=None", RESIZE)}
    for name, (model, many, more) in texts.items():
        text = PROGRAM.replace("{model}", model).replace("{many}", many).replace("{more}", more)
        (folder / name).write_text(text, "utf-8")
    monkeypatch.setenv("SD_SCRIPTS_DIR", str(folder))
    monkeypatch.setenv("SD_SCRIPTS_PYTHON", sys.executable)
    monkeypatch.setenv("ARGUMENTS", str(tmp_path / "arguments.json"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "arguments.json"


def call_tool(monkeypatch: pytest.MonkeyPatch, *argv: str) -> int:
    return call(monkeypatch, *argv, "--with", "sd-scripts")


def arguments(recorded: Path) -> dict[str, Any]:
    table: dict[str, Any] = json.loads(recorded.read_text("utf-8"))
    return table


def test_block_weights_of_one_file(
    recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = lora(tmp_path / "in.safetensors", rank=8)
    assert call_tool(monkeypatch, "merge", "in.safetensors", "out.safetensors", "--block-weights", "FACE", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["program"] == "networks/svd_merge_lora.py"
    assert report["ranks"] == {"8": report["modules"]}
    assert (tmp_path / "out.safetensors").read_bytes() == source.read_bytes()
    values = arguments(recorded)
    assert (values["models"], values["ratios"]) == ([str(source)], [1.0])
    assert [len(json.loads(weights)) for weights in values["lbws"]] == [26]
    assert (values["new_rank"], values["new_conv_rank"], values["precision"]) == (8, 8, "float")  # its own default is 4
    assert (values["save_precision"], values["no_metadata"], values["device"]) == ("fp16", False, None)
    assert sorted(path.name for path in tmp_path.glob(".*")) == []


def test_a_sum_with_every_option(recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lora(tmp_path / "a.safetensors", rank=4)
    lora(tmp_path / "b.safetensors", rank=8, seed=1)
    words = ("--option", "new_rank=16", "--option", "--no-metadata", "--option", "device=cuda", "--option", "precision=bf16")
    files = ("a.safetensors:0.5:FACE", "b.safetensors:-1", "out.safetensors")
    assert call_tool(monkeypatch, "merge", *files, "--save-precision", "fp32", *words) == 0
    values = arguments(recorded)
    assert values["ratios"] == [0.5, -1.0]
    assert json.loads(values["lbws"][0])[:2] == [0.0, 1.0]
    assert json.loads(values["lbws"][1]) == [1.0] * 26
    assert (values["new_rank"], values["new_conv_rank"], values["save_precision"]) == (16, 8, "float")
    assert (values["no_metadata"], values["device"], values["precision"]) == (True, "cuda", "bf16")


def test_a_resize_keeps_the_ranks_of_its_method(recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lora(tmp_path / "in.safetensors", rank=8)
    assert (
        call_tool(monkeypatch, "resize", "in.safetensors", "out.safetensors", "--sv-fro", "0.9", "--option", "device=cuda")
        == 0
    )
    values = arguments(recorded)
    assert (values["dynamic_method"], values["dynamic_param"], values["verbose"]) == ("sv_fro", 0.9, True)
    assert (values["new_rank"], values["new_conv_rank"], values["device"]) == (8, 8, "cuda")
    assert (
        call_tool(monkeypatch, "resize", "in.safetensors", "out.safetensors", "--new-rank", "2", "--new-conv-rank", "1") == 0
    )
    assert (arguments(recorded)["dynamic_method"], arguments(recorded)["new_rank"], arguments(recorded)["new_conv_rank"]) == (
        None,
        2,
        1,
    )


@pytest.mark.parametrize(
    ("verb", "words", "expected"),
    [
        ("resize", "--sv-ratio 8 --option devise=cuda", "did you mean device?"),
        ("resize", "--sv-ratio 8 --option dynamic_param=3", "set --sv-ratio, --sv-fro or --sv-cumulative instead"),
        ("resize", "--new-rank 4 --option new_rank=3", "set --new-rank instead"),
        ("resize", "--size-mb 4", "is not an option of sd-scripts' resize_lora.py"),
        ("resize", "--sv-ratio 8 --prune", "is not an option of sd-scripts' resize_lora.py"),
        ("resize", "--sv-ratio 8 --rank-rule 2023", "this resize_lora.py has 'sd-scripts-0.10'"),
        ("resize", "--sv-ratio 8 --save-precision fp17", "did you mean fp16?"),
        ("merge", "--block-weights FACE --option new_rank=many", "takes a whole number"),
        ("merge", "--block-weights FACE --option lbws=1", "set --block-weights instead"),
        ("merge", "--block-weights FACE --compat supermerger-2023", "is not an option of sd-scripts' svd_merge_lora.py"),
        ("merge", "--block-weights 1,2,3", "3 values; SD1.5 takes 26 or 17"),
        ("merge", "", "--block-weights"),
    ],
)
@pytest.mark.usefixtures("recorded")
def test_options_that_the_programs_lack_are_rejected(  # noqa: PLR0917 - fixtures
    verb: str,
    words: str,
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    lora(tmp_path / "in.safetensors")
    assert call_tool(monkeypatch, verb, "in.safetensors", "out.safetensors", *words.split()) == 2
    assert expected in capsys.readouterr().err
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize("family", ["locon-tucker", "loha", "lokr", "full"])
@pytest.mark.parametrize("verb", ["merge", "resize"])
def test_files_that_they_would_corrupt_are_rejected(  # noqa: PLR0917 - fixtures
    verb: str,
    family: str,
    recorded: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    lora(tmp_path / "in.safetensors", family)
    method = {"merge": ("--block-weights", "FACE"), "resize": ("--sv-ratio", "8")}[verb]
    assert call_tool(monkeypatch, verb, "in.safetensors", "out.safetensors", *method) == 2
    error = capsys.readouterr().err
    part = {"locon-tucker": "lora_mid", "loha": "hada_w1_a", "lokr": "lokr_w", "full": "diff"}[family]
    assert part in error
    assert "leave out --with sd-scripts" in error
    assert not recorded.exists()


@pytest.mark.parametrize(
    ("device", "expected"), [("broken", "RuntimeError: no such device"), ("short", "wrote no whole file")]
)
@pytest.mark.usefixtures("recorded")
def test_a_program_that_fails_keeps_the_old_output(
    device: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lora(tmp_path / "in.safetensors")
    (tmp_path / "out.safetensors").write_text("before", "utf-8")
    words = ("in.safetensors", "out.safetensors", "--sv-ratio", "8", "--option", f"device={device}")
    assert call_tool(monkeypatch, "resize", *words) == 1
    assert expected in capsys.readouterr().err
    assert (tmp_path / "out.safetensors").read_text("utf-8") == "before"
    assert sorted(path.name for path in tmp_path.glob(".*")) == []


def test_without_a_checkout_the_message_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SD_SCRIPTS_DIR", str(tmp_path / "none"))
    source = str(lora(tmp_path / "in.safetensors"))
    assert call_tool(monkeypatch, "resize", source, str(tmp_path / "out.safetensors"), "--sv-ratio", "8") == 3
    error = capsys.readouterr().err
    assert "make setup" in error
    assert "leave out --with sd-scripts" in error


@pytest.mark.usefixtures("recorded")
def test_unknown_tools_and_options_without_one_are_rejected(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, expected in (("--with sd-script", "neither orchestrator nor"), ("--option device=cuda", "--with sd-scripts")):
        monkeypatch.setattr(
            sys, "argv", ["orchestrator", "resize", "a.safetensors", "b.safetensors", "--new-rank", "1", *words.split()]
        )
        assert cli.main() == 2
        assert expected in capsys.readouterr().err
