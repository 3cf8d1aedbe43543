"""The embedded renderer: prompt lines, one seed one picture, networks of several families baked in at a multiplier."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import embedded_tiny as tiny
from orchestrator.engines.embedded.trainer import cli_options, lora_baking, model, network, network_spec, prompts, sampling
from orchestrator.engines.embedded.trainer.gen_img import main
from orchestrator.errors import RecipeError

if TYPE_CHECKING:
    from collections.abc import Iterator

LINE = "krnk, cat ears --n bad --w 32 --h 32 --s 3 --l 3"


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.model(tmp_path_factory.mktemp("model") / "base")


FAMILIES = {
    "lora": tiny.LORA,
    "locon": tiny.locon(Path("preset.toml")),
    "loha": tiny.loha(Path("preset.toml")),
    "lokr": ("--network_module", "lycoris.kohya", "--network_args", "algo=lokr", "factor=2", "preset=preset.toml"),
    "norms": ("--network_module", "lycoris.kohya", "--network_args", "algo=locon", "train_norm=True", "preset=preset.toml"),
}


def made(base: Path, family: str, folder: Path) -> tuple[network_spec.BuiltNetwork, model.DiffusionModel, Path]:
    """A network with random factors on a model, and its file."""
    (folder / "preset.toml").write_text(tiny.PRESET)
    words = [word.replace("preset=", f"preset={folder}/") for word in FAMILIES[family]]
    loaded = model.load(base)
    built = network.build(loaded, network_spec.read(cli_options.parse(tiny.arguments(base, base, folder, *words))))
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in built.network.parameters():
            parameter.normal_(std=0.3)
    file = folder / f"{family}.safetensors"
    save_file(built.network.saved(), file)
    return built, loaded, file


@pytest.fixture(scope="module")
def lora(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(base, "lora", tmp_path_factory.mktemp("lora"))[2]


def draw(base: Path, out: Path, lines: list[str], *words: str) -> int:
    out.mkdir(parents=True, exist_ok=True)
    file = out / "prompts.txt"
    file.write_text("# a comment\n\n" + "\n".join(lines))
    return main(["--ckpt", str(base), "--outdir", str(out), "--from_file", str(file), "--clip_skip", "2", *words])


def look(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.asarray(Image.open(path))


@pytest.mark.parametrize("sampler", ["ddim", "euler_a"])
def test_a_picture_is_its_seed_whatever_is_drawn_with_it(base: Path, tmp_path: Path, sampler: str) -> None:
    words = ("--sampler", sampler, "--batch_size", "3")
    lines = [f"{LINE} --d {seed} --f {seed}.png" for seed in (1, 2, 3, 4)]
    assert draw(base, tmp_path / "all", lines, *words) == 0
    assert draw(base, tmp_path / "one", [lines[2]], *words) == 0
    assert draw(base, tmp_path / "other", ["another one --w 32 --h 32 --s 3 --l 3 --d 9 --f 9.png", lines[2]], *words) == 0
    third = look(tmp_path / "all" / "3.png")
    assert third.shape == (32, 32, 3)
    assert (third == look(tmp_path / "one" / "3.png")).all()
    assert (third == look(tmp_path / "other" / "3.png")).all()
    assert not (third == look(tmp_path / "all" / "4.png")).all()


def test_multiplier_0_is_the_base_and_1_is_not(base: Path, lora: Path, tmp_path: Path) -> None:
    network_words = ("--network_module", "networks.lora", "--network_weights", str(lora), "--network_mul", "1.0")
    lines = [f"{LINE} --d 1 --f one.png", f"{LINE} --d 1 --am 0 --f zero.png", f"{LINE} --d 1 --am 0.5 --f half.png"]
    assert draw(base, tmp_path / "with", lines, *network_words) == 0
    assert draw(base, tmp_path / "without", [f"{LINE} --d 1 --f base.png"]) == 0
    plain = look(tmp_path / "without" / "base.png")
    assert (look(tmp_path / "with" / "zero.png") == plain).all()
    assert not (look(tmp_path / "with" / "one.png") == plain).all()
    assert not (look(tmp_path / "with" / "half.png") == look(tmp_path / "with" / "one.png")).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_baked_weights_are_those_that_training_computes_with(base: Path, tmp_path: Path, family: str) -> None:
    built, trained, file = made(base, family, tmp_path)
    built.network.train(mode=False)
    plain = model.load(base)
    baked = lora_baking.BakedModel(plain, [file])
    baked.set([1.0])

    def answer(of: model.DiffusionModel) -> torch.Tensor:
        torch.manual_seed(1)
        text = model.encode_text(of, model.tokens(of, ["krnk, cat ears"]), 2)
        result: torch.Tensor = of.unet(torch.randn(1, 4, 8, 8), torch.tensor([300]), text, return_dict=False)[0]
        return result

    with torch.no_grad():
        built.network.rebuild()
        torch.testing.assert_close(answer(plain), answer(trained), rtol=1e-3, atol=1e-3)


def test_two_networks_add_up_and_can_be_taken_away(base: Path, lora: Path) -> None:
    loaded = model.load(base)
    layer = loaded.unet.down_blocks[0].resnets[0].conv1
    own = layer.weight.detach().clone()
    baked = lora_baking.BakedModel(loaded, [lora, lora])
    baked.set([0.25, 0.5])
    both = layer.weight.detach().clone()
    baked.set([0.75, 0.0])
    torch.testing.assert_close(both, layer.weight.detach())
    assert not torch.equal(both, own)
    baked.set([0.0, 0.0])
    assert torch.equal(layer.weight, own)


def test_what_a_picture_says_about_itself(base: Path, lora: Path, tmp_path: Path) -> None:
    words = ("--network_weights", str(lora), "--network_mul", "0.8", "--sampler", "euler_a", "--fp16", "--v1")
    assert draw(base, tmp_path, [f"{LINE} --d 12 --f a.png"], *words) == 0
    assert Image.open(tmp_path / "a.png").text == {
        "parameters": "krnk, cat ears <lora:lora:0.8>\nNegative prompt: bad\n"
        "Steps: 3, Sampler: Euler a, CFG scale: 3, Seed: 12, Size: 32x32, Model: base, Clip skip: 2"
    }


def test_names_progress_and_seeds(base: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
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


@pytest.mark.parametrize("sampler", sampling.SAMPLERS)
def test_every_sampler_draws(base: Path, sampler: str) -> None:
    line = prompts.parse(LINE, prompts.PromptDefaults(sampler=sampler, seed=1))
    (image,) = sampling.draw_batch(model.load(base), [line], None, 1)
    assert image.size == (32, 32)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("krnk --q 5", "--q is not an option of a prompt line here"),
        ("krnk --d x", "invalid literal"),
        ("krnk (cat:1.2)", "brackets and | are prompt syntax"),
        ("{a|b} krnk", "brackets and | are prompt syntax"),
        ("krnk --f ../a.png", "--f must be a plain file name"),
        ("krnk --w 4", "a side of 4 pixels is too small"),
    ],
)
def test_lines_that_cannot_be_drawn(tmp_path: Path, line: str, message: str) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text(f"fine\n{line}\n")
    with pytest.raises(RecipeError) as raised:
        prompts.read(file, prompts.PromptDefaults())
    assert f"{file}:2" in str(raised.value)
    assert message in str(raised.value)


def test_a_line_of_everything() -> None:
    line = prompts.parse(
        r"a \(b\), c--d --n bad, --w 64 --h 48 --d 7 --s 9 --l 2.5 --ss euler --am 0.5,1 --f x.png", prompts.PromptDefaults()
    )
    assert (line.prompt, line.negative) == ("a (b), c--d", "bad,")
    assert (line.width, line.height, line.seed, line.steps, line.scale) == (64, 48, 7, 9, 2.5)
    assert (line.sampler, line.multipliers, line.file) == ("euler", (0.5, 1.0), "x.png")


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
