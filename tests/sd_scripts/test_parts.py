"""This project's copies of sd-scripts' facts, against the checkout.

Options, names, tokenizer, resize.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from orchestrator.engines.sdscripts import launch, parser_options, parser_source, write_tokenizer
from orchestrator.models import base_slices, layers
from orchestrator.models.bases import sdxl
from orchestrator.system import settings
from orchestrator.weights.compare import compare

pytestmark = pytest.mark.sd_scripts
ROOT = Path(__file__).resolve().parent.parent.parent

_SHAPES = [(64, 96, 0), (96, 64, 0), (80, 40, 1), (48, 32, 3), (64, 64, 3)]  # out, in, kernel (0: linear)
_REAL = """
import argparse, json, runpy, sys
class Parsed(Exception): pass
def stop(parser, *_): raise Parsed(parser)
argparse.ArgumentParser.parse_args = stop
root, *scripts = sys.argv[1:]
sys.path[:0] = [root, root + "/networks"]
options = {}
for script in scripts:
    try:
        runpy.run_path(f"{root}/{script}", run_name="__main__")
    except Parsed as parsed:
        (parser,) = parsed.args
    for action in parser._actions:
        for name in action.option_strings:
            if name.startswith("--") and name != "--help":
                kind = "switch" if isinstance(action, argparse._StoreTrueAction) else getattr(action.type, "__name__", "str")
                many = action.nargs not in (None, 0, "?")
                default = action.default if isinstance(action.default, (str, int, float, bool)) else None
                options.setdefault(script, {})[name[2:]] = [kind, many, list(action.choices or ()), default]
print("OPTIONS" + json.dumps(options))
"""
_COMPUTED = {(script, side) for script in parser_options.RENDERERS for side in ("width", "height")}
"""Options whose default is a variable of the script, which is not read."""


def printed(argv: list[str], word: str) -> dict[str, Any]:
    """Run a program with sd-scripts' Python and return the JSON that it prints after ``word``."""
    # Isolated: with the project's folder in its path, our package tools would hide sd-scripts' folder of that name.
    argv = [str(settings.sd_scripts_python()), "-I", *argv]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=600, check=False, cwd=ROOT)
    lines = [line for line in done.stdout.splitlines() if line.startswith(word)]
    assert lines, done.stderr[-2000:]
    table: dict[str, Any] = json.loads(lines[-1].removeprefix(word))
    return table


def test_the_parsed_options_are_the_parsers_own(sd_scripts: Path) -> None:
    real = printed(["-c", _REAL, str(sd_scripts), *parser_options.SCRIPTS], "OPTIONS")
    for script in parser_options.SCRIPTS:
        options = parser_source.parse_options(sd_scripts, script)
        ours = {name: [each.type, each.many, list(each.choices), each.default] for name, each in options.items()}
        theirs = real[script]
        for name in ("dataset_config",):  # a Path there, text here
            if name in theirs:
                theirs[name][0] = "str"
        for name, option in theirs.items():
            if (script, name) in _COMPUTED:
                option[3] = None
        assert ours == theirs, script


def test_names_and_sizes_of_sd1_and_sdxl_are_those_of_sd_scripts(sd_scripts: Path, random_sd15: Path) -> None:
    config = random_sd15 / "base_sd15" / "unet" / "config.json"
    program = ROOT / "tests" / "sd_scripts" / "names.py"
    real = printed([str(program), str(sd_scripts), str(config)], "NAMES")
    where = base_slices.base_slices([f"model.diffusion_model.{name}" for name in real["sd1"]])
    for original, diffusers in real["sd1"].items():
        stem, _, part = diffusers.rpartition(".")
        assert where[f"lora_unet_{stem.replace('.', '_')}.{part}"].tensor == f"model.diffusion_model.{original}"
    unet = [layer for layer in layers.layers(sdxl.MODEL) if not layer.text]
    assert {layer.dotted: [layer.out, layer.in_, layer.kernel] for layer in unet} == real["sdxl"]


def test_the_tokenizer_is_clips(sd_scripts: Path, tmp_path: Path) -> None:
    python = str(settings.sd_scripts_python())
    subprocess.run(
        [python, write_tokenizer.__file__, str(tmp_path), str(sd_scripts)], check=True, capture_output=True, timeout=120
    )
    program = "import sys, json; from transformers import CLIPTokenizer; t = CLIPTokenizer.from_pretrained(sys.argv[1]); "
    program += "print('IDS' + json.dumps({'ids': t('a photo of a cat').input_ids, 'length': t.model_max_length}))"
    encoded = printed(["-c", program, str(tmp_path / write_tokenizer.NAMES[0])], "IDS")
    assert encoded == {"ids": [49406, 320, 1125, 539, 320, 2368, 49407], "length": 77}
    program = "import sys, json; from library.strategy_sdxl import SdxlTokenizeStrategy as S; s = S(None, sys.argv[1]); "
    program += "print('IDS' + json.dumps([one[0, 0, :5].tolist() for one in s.tokenize('a cat')]))"
    offline = {**os.environ, **launch.environment(tmp_path, write_tokenizer.NAMES)}
    done = subprocess.run(
        [python, "-c", program, str(tmp_path)],
        env=offline,
        cwd=sd_scripts,
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert offline["HF_HUB_OFFLINE"] == "1"
    assert done.stdout.rpartition("IDS")[2].strip() == "[[49406, 320, 2368, 49407, 49407], [49406, 320, 2368, 49407, 0]]"


def small_lora(path: Path) -> Path:
    """Write a plain LoRA of rank 16 whose singular values fade: one module of the text encoder, one of the middle block."""
    random = np.random.default_rng(1)
    layers_ = {
        f"lora_unet_down_blocks_{number // 2}_attentions_{number % 2}_proj_in": shape for number, shape in enumerate(_SHAPES)
    }
    layers_ |= {
        "lora_te_text_model_encoder_layers_0_mlp_fc1": (64, 48, 0),
        "lora_unet_mid_block_attentions_0_proj_in": (64, 80, 0),
    }
    tensors: dict[str, Any] = {}
    for name, (out, in_, kernel) in layers_.items():
        square, single = ((kernel, kernel), (1, 1)) if kernel else ((), ())
        fading = np.exp(-np.arange(16) / 3).astype(np.float32)
        tensors[f"{name}.lora_down.weight"] = random.standard_normal((16, in_, *square)).astype(np.float32)
        up = random.standard_normal((out, 16)).astype(np.float32) * fading
        tensors[f"{name}.lora_up.weight"] = up.reshape(out, 16, *single)
        tensors[f"{name}.alpha"] = np.array(8, np.float32)
    save_file(tensors, path, metadata={"ss_network_module": "networks.lora", "ss_network_dim": "16", "ss_network_alpha": "8"})
    return path


def verb(*words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator", *words], capture_output=True, text=True, timeout=600, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout + done.stderr


METHODS = {
    "sv_ratio": ("--sv-ratio", "8", "--new-rank", "16"),
    "sv_ratio capped": ("--sv-ratio", "8", "--new-rank", "5", "--new-conv-rank", "3"),
    "sv_fro": ("--sv-fro", "0.95", "--new-rank", "16"),
    "sv_cumulative": ("--sv-cumulative", "0.8", "--new-rank", "16", "--new-conv-rank", "4"),
    "fixed": ("--new-rank", "6", "--new-conv-rank", "4"),
}


@pytest.mark.usefixtures("sd_scripts")
@pytest.mark.parametrize("method", METHODS)
def test_our_resize_and_sd_scripts_keep_the_same_ranks_with_the_0_10_rule(tmp_path: Path, method: str) -> None:
    """The verb, with and without ``--with sd-scripts``."""
    source, theirs, ours = (str(tmp_path / f"{name}.safetensors") for name in ("lora", "theirs", "ours"))
    small_lora(Path(source))
    how = (*METHODS[method], "--save-precision", "fp32")
    verb("resize", source, theirs, *how, "--with", "sd-scripts")
    verb("resize", source, ours, *how, "--rank-rule", "sd-scripts-0.10")
    left, right = load_file(theirs), load_file(ours)
    assert {name: value.shape for name, value in left.items()} == {name: value.shape for name, value in right.items()}
    ranks = {name: len(value) for name, value in left.items() if "lora_down" in name}
    assert len(set(ranks.values())) > 1
    assert max(ranks.values()) < 16
    for name, rank in ranks.items():
        stem = name.removesuffix(".lora_down.weight")
        delta = []
        for file in (left, right):
            up, down = file[f"{stem}.lora_up.weight"].reshape(-1, rank), file[name].reshape(rank, -1)
            delta.append(file[f"{stem}.alpha"] / rank * up @ down)
        np.testing.assert_allclose(delta[0], delta[1], rtol=0, atol=1e-4 * float(np.abs(delta[0]).max()))
    metadata = [safe_open(path, "numpy").metadata() for path in (theirs, ours)]
    for entry in ("ss_training_comment", "ss_network_dim", "ss_network_alpha"):
        assert metadata[0][entry] == metadata[1][entry]


@pytest.mark.usefixtures("sd_scripts")
def test_sd_scripts_merge_changes_the_same_blocks_with_losses(tmp_path: Path) -> None:
    source, theirs, ours = (tmp_path / f"{name}.safetensors" for name in ("lora", "theirs", "ours"))
    small_lora(source)
    how = ("--block-weights", "FACE")
    verb(
        "merge", str(source), str(theirs), *how, "--save-precision", "fp32", "--with", "sd-scripts", "--option", "no_metadata"
    )
    verb("merge", str(source), str(ours), *how)
    pairs = compare(theirs, ours).blocks
    for side in ("first", "second"):
        assert {name for name, pair in pairs.items() if not getattr(pair, side)} == {
            "BASE",
            "IN05",
            "IN07",
            "MID",
        }  # 0 in FACE
    cosines = [pair.cosine for pair in pairs.values() if pair.second]
    assert all(0.8 < cosine < 0.9999 for cosine in cosines), cosines
