"""The embedded renderer: seeds, multipliers, file names, errors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from orchestrator.engines.embedded.trainer.gen_img import main as gen_img

if TYPE_CHECKING:
    from pathlib import Path

LINE = "krnk, cat ears --n bad --w 32 --h 32 --s 3 --l 3"


def draw(base: Path, out: Path, lines: list[str], *words: str) -> int:
    out.mkdir(parents=True, exist_ok=True)
    file = out / "prompts.txt"
    file.write_text("# a comment\n\n" + "\n".join(lines))
    return gen_img(["--ckpt", str(base), "--outdir", str(out), "--from_file", str(file), "--clip_skip", "2", *words])


def pixels(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.asarray(Image.open(path))


@pytest.mark.parametrize("sampler", ["ddim", "euler_a"])
def test_image_does_not_depend_on_its_batch(base: Path, tmp_path: Path, sampler: str) -> None:
    words = ("--sampler", sampler, "--batch_size", "3")
    lines = [f"{LINE} --d {seed} --f {seed}.png" for seed in (1, 2, 3, 4)]
    assert draw(base, tmp_path / "all", lines, *words) == 0
    assert draw(base, tmp_path / "one", [lines[2]], *words) == 0
    assert draw(base, tmp_path / "other", ["another one --w 32 --h 32 --s 3 --l 3 --d 9 --f 9.png", lines[2]], *words) == 0
    third = pixels(tmp_path / "all" / "3.png")
    assert third.shape == (32, 32, 3)
    assert (third == pixels(tmp_path / "one" / "3.png")).all()
    assert (third == pixels(tmp_path / "other" / "3.png")).all()
    assert not (third == pixels(tmp_path / "all" / "4.png")).all()


def test_multiplier_0_is_the_base_and_1_is_not(base: Path, lora: Path, tmp_path: Path) -> None:
    network_words = ("--network_module", "networks.lora", "--network_weights", str(lora), "--network_mul", "1.0")
    lines = [f"{LINE} --d 1 --f one.png", f"{LINE} --d 1 --am 0 --f zero.png", f"{LINE} --d 1 --am 0.5 --f half.png"]
    assert draw(base, tmp_path / "with", lines, *network_words) == 0
    assert draw(base, tmp_path / "without", [f"{LINE} --d 1 --f base.png"]) == 0
    plain = pixels(tmp_path / "without" / "base.png")
    assert (pixels(tmp_path / "with" / "zero.png") == plain).all()
    assert not (pixels(tmp_path / "with" / "one.png") == plain).all()
    assert not (pixels(tmp_path / "with" / "half.png") == pixels(tmp_path / "with" / "one.png")).all()


def test_parameters_in_the_image(base: Path, lora: Path, tmp_path: Path) -> None:
    words = ("--network_weights", str(lora), "--network_mul", "0.8", "--sampler", "euler_a", "--fp16", "--v1")
    assert draw(base, tmp_path, [f"{LINE} --d 12 --f a.png"], *words) == 0
    assert Image.open(tmp_path / "a.png").text == {
        "parameters": "krnk, cat ears <lora:lora:0.8>\nNegative prompt: bad\n"
        "Steps: 3, Sampler: Euler a, CFG scale: 3, Seed: 12, Size: 32x32, Model: base, Clip skip: 2"
    }


def test_file_names_progress_and_seeds(base: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    lines = [LINE, f"{LINE} --d 77"]
    assert draw(base, tmp_path, lines, "--seed", "5", "--batch_size", "2", "--sdpa") == 0
    out, err = capfd.readouterr()
    names = sorted(path.name for path in tmp_path.glob("*.png"))
    assert names[0].startswith("im_")
    assert names[0].endswith("_000_5.png")
    assert names[1].endswith("_001_77.png")
    assert "generating: 100%" in err
    assert "2/2 [" in err
    assert "--sdpa: attention is PyTorch's own" in err
    assert out.endswith("done!\n")
    assert not list(tmp_path.glob(".*part"))


def test_wrong_arguments(base: Path, lora: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    alien = tmp_path / "alien.safetensors"
    save_file({"lora_unet_nowhere.diff": torch.zeros(2, 2)}, alien)
    odd = tmp_path / "odd.safetensors"
    save_file({"lora_unet_conv_in.lora_up.weight": torch.zeros(2, 2)}, odd)
    for lines, words, code, message in (
        ([LINE], ("--sampler", "eulr"), 2, "eulr is unknown; did you mean euler?"),
        ([LINE], ("--network_weights", str(lora), "--network_mul", "1", "1"), 2, "2 multipliers for 1 networks"),
        ([f"{LINE} --am 1"], (), 2, "1 multipliers for 0 networks"),
        ([f"{LINE} --f a.png"] * 2, (), 2, "two lines write this file"),
        (["krnk --w 33 --h 32 --s 2"], (), 2, "33x32 is not a multiple of 4"),
        ([LINE], ("--network_weights", str(alien)), 2, "the model has no such layer"),
        ([LINE], ("--network_weights", str(odd)), 2, "tensors of an unknown family"),
        ([LINE], ("--network_weights", str(tmp_path / "none.safetensors")), 2, "cannot be read as safetensors"),
        ([LINE], ("--vae", str(tmp_path / "none")), 3, "not a VAE folder in Diffusers layout"),
    ):
        capfd.readouterr()
        assert draw(base, tmp_path / "out", lines, *words) == code
        assert message in capfd.readouterr().err
    with pytest.raises(SystemExit):
        draw(base, tmp_path / "out", [LINE], "--what")
