"""Commands of the scripts that draw one architecture, and values that they lack."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import toml

from engine_recipes import RECIPES, ROOT, load, problems, variant
from orchestrator.engines.sdscripts import engine as sdscripts
from orchestrator.engines.sdscripts import inference, parser_options, render_command
from orchestrator.engines.sdscripts.render_command import LoraDelivery
from orchestrator.models.registry import ARCHITECTURES
from orchestrator.models.renderer import GEN_IMG
from orchestrator.recipe import loader

if TYPE_CHECKING:
    from orchestrator.recipe import Recipe
    from orchestrator.system.process import Command

pytestmark = pytest.mark.usefixtures("no_checkout")

DRAWN = [name for name, entry in ARCHITECTURES.items() if entry.renderer.script != GEN_IMG.script]


def drawn(tmp_path: Path, name: str, text: str = "") -> Recipe:
    """Return a recipe of an architecture with two prompts and every value that its script takes.

    ``text`` changes it.
    """
    entry = ARCHITECTURES[name]
    renderer = entry.renderer
    unset = ["base.vae", "base.clip_skip", "block_weights", "render.prompts", "training.text_encoder_lr"]
    table: dict[str, Any] = {"unset": unset, "algorithm": "lora"}
    table["base"] = {"architecture": name, "checkpoint": "dit.safetensors"}
    table["base"] |= {"vae": "vae.safetensors"} if entry.needs_vae else {}
    table["base"]["files"] = {file.option: {"file": f"{file.option}.safetensors"} for file in entry.files}
    table["dataset"] = {"color_aug": False, "bucket_reso_steps": 64}
    table["network"] = {"family": "lora", "dim": 4, "alpha": 4}
    table["training"] = {"train": "unet", "mixed_precision": "bf16", "options": {}}
    table["render"] = {"width": 64, "height": 96, "sampler": "euler", "precision": "bf16", "scale": 4.5, "negative": "bad"}
    keys = {**renderer.line, **renderer.arguments}
    table["render"] |= {key: 3.0 for key in ("guidance", "flow_shift") if key in keys} | {"multiplier": 0.8}
    table["render"]["prompts"] = {"front": {"prompt": "{trigger}, \\(ears\\) ねこ"}, "side": {"prompt": "side", "seed": 8}}
    changed = merged(table, tomllib.loads(text))
    return variant(tmp_path, text=toml.dumps(changed))


def merged(table: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    both = {key: merged(table[key], other[key]) for key in table.keys() & other.keys() if isinstance(other[key], dict)}
    return table | other | both


def command(recipe: Recipe, **inputs: Path) -> Command:
    entry = ARCHITECTURES[recipe.base.architecture]
    models = {key: Path(f"/m/{key}.safetensors") for key in ("checkpoint", *(file.option for file in entry.files))}
    models |= {"vae": Path("/m/vae.safetensors")} if entry.needs_vae else {}
    return sdscripts.render(recipe, {**models, "lora": Path("/l/x.safetensors"), **inputs}, Path("/w"))


@pytest.mark.parametrize("name", DRAWN)
def test_every_architecture_is_drawn_by_its_script_with_options_that_it_has(tmp_path: Path, name: str) -> None:
    recipe = drawn(tmp_path, name)
    assert list(render_command.problems(recipe)) == []
    made = command(recipe)
    assert made.argv[1].endswith("draw_prompts.py")
    assert Path(made.argv[3]).name == ARCHITECTURES[name].renderer.script
    options = parser_options.of(ARCHITECTURES[name].renderer.script)
    given = [word.removeprefix("--") for word in made.argv if word.startswith("--")]
    assert set(given) <= options.keys()
    assert len(given) == len(set(given))
    values = set(made.argv)
    assert {"/m/checkpoint.safetensors", *(f"/m/{file.option}.safetensors" for file in ARCHITECTURES[name].files)} <= values
    assert "/l/x.safetensors;0.8" in values or {"/l/x.safetensors", "0.8"} <= values
    request = json.loads(made.files[inference.REQUEST])
    assert request["names"] == ["front", "side"]
    first, second = request["lines"]
    assert " --n bad --w 64 --h 96 --d 31337 --s 28" in first
    assert second.startswith("side --n bad --w 64 --h 96 --d 8 --s 28")
    assert made.files[inference.PROMPTS].splitlines() == request["lines"]
    read_by_file = f"--from_file {Path('/w').absolute() / inference.PROMPTS}"
    assert ("--interactive" in values) == request["dialog"] == (read_by_file not in " ".join(made.argv))


def test_prompts_that_a_script_unescapes_reach_it_as_they_are(tmp_path: Path) -> None:
    """anima_minimal_inference.py line 329: bytes of UTF-8 decoded by "unicode_escape", which mangles every other character."""
    text = inference.lines(drawn(tmp_path, "anima"))[0].split(" --")[0]
    assert text.isascii()
    assert text.encode("utf-8").decode("unicode_escape") == "krnk, \\(ears\\) ねこ"
    assert inference.lines(drawn(tmp_path, "hunyuan-image"))[0].startswith("krnk, \\(ears\\) ねこ --n")


def test_a_model_is_drawn_as_it_was_trained(tmp_path: Path) -> None:
    made = command(drawn(tmp_path, "flux", "[training.options]\napply_t5_attn_mask = true\n"))
    assert "--apply_t5_attn_mask" in made.argv
    assert "--apply_t5_attn_mask" not in command(drawn(tmp_path, "flux")).argv
    made = command(drawn(tmp_path, "flux-schnell", '[render.options]\noffload = true\nflux_dtype = "fp8_e4m3fn"\n'))
    assert " ".join(made.argv[4:]).count("--offload --flux_dtype fp8_e4m3fn") == 1


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("anima", 'render.sampler = "euler_a"', "anima_minimal_inference.py has euler only"),
        ("anima", 'render.precision = "fp16"', "draws in no or bf16"),
        ("anima", "render.batch_size = 2", "draws one image at a time"),
        ("anima", "render.guidance = 3.5", "anima_minimal_inference.py has no such setting"),
        ("anima", "render.height = 72", "multiples of 32"),
        ("anima", "render.prompts.side.width = 72", "render.prompts.side.width is 72"),
        ("anima", "render.options.lycoris = true", "is set by the orchestrator"),
        ("anima", "render.options.fp8_scald = true", "did you mean fp8_scaled?"),
        ("anima", "render.options.dit = 'x'", "set base.checkpoint instead"),
        ("anima", "render.options.text_encoder = 'x'", "set base.files.qwen3 instead"),
        ("anima", "render.options.lora_multiplier = 1.0", "set render.multiplier instead"),
        ("anima", "render.options.vae_chunk_size = 'x'", "takes a whole number"),
        ("hunyuan-image", "render.options.fp8_scaled = true", 'set training.save_precision = "bf16"'),
        ("hunyuan-image", "render.options.fp8_scaled = true\nresize.new_rank = 2", 'set resize.save_precision = "bf16"'),
        ("anima", "render.options.fp8_scaled = true", "rounds the weights to 8 bits, and then keeps them in bf16"),
        ("anima", "render.options.fp8 = true", "rounds the weights to 8 bits, and then keeps them in bf16"),
        ("anima", "render.options.include_patterns = ['x']", "has no use: the script adds every module of the LoRA"),
        ("hunyuan-image", "render.options.exclude_patterns = ['x']", "has no use"),
        ("flux-schnell", "render.guidance = 3.5", "has no such setting for FLUX.1-schnell"),
        ("anima", "render.scale = 1.0", "render.negative has no effect"),
        ("flux", "render.flow_shift = 3.0", "flux_minimal_inference.py has no such setting"),
        ("flux", "render.prompts.side.negative = ''", "with a negative prompt only"),
        ("flux", "render.prompts.side.prompt = 'well--known'", "begins an option"),
        ("flux", "render.options.dtype = 'fp32'", "set render.precision instead"),
        ("sd3-medium", 'base.vae = "x.safetensors"', "draws with the VAE of the checkpoint only"),
        ("lumina", "render.options.offload = true", "is set by the orchestrator"),
        ("lumina", "render.prompts.side.prompt = '# 1'", "begins a comment"),
    ],
)
def test_values_that_a_script_lacks_or_misreads_are_named(tmp_path: Path, name: str, text: str, expected: str) -> None:
    assert expected in "\n".join(f"{key} {what}" for key, what in render_command.problems(drawn(tmp_path, name, text)))


def test_a_recipe_without_prompts_may_hold_any_render_table(tmp_path: Path) -> None:
    recipe = drawn(tmp_path, "anima")
    empty = recipe.model_copy(update={"render": recipe.render.model_copy(update={"prompts": {}, "sampler": "lms"})})
    assert list(render_command.problems(empty)) == []


def test_settings_of_transformers_are_refused_for_gen_img(tmp_path: Path) -> None:
    assert "gen_img.py has no such setting" in problems(tmp_path, "[render]\nguidance = 3.5\n")
    assert "is not an option of sd-scripts' gen_img.py" in problems(tmp_path, "[render.options]\nflux_dtype = 'fp8'\n")
    assert problems(tmp_path, "[render.options]\nvae_slices = 4\n") == ""
    made = command(variant(tmp_path, "_algorithms/lora3x3", text="[render.options]\nvae_slices = 4\n"))
    assert made.argv[-2:] == ("--vae_slices", "4") or "--vae_slices 4" in " ".join(made.argv)
    assert "draws without further options" in problems(tmp_path, "[render.options]\nvae_slices = 4\n", engine="embedded")


PRESET = """
[network]
family = "{family}"
[network.preset]
enable_conv = false
unet_target_module = ["Attention", "GPT2FeedForward"]
text_encoder_target_module = ["Qwen3Attention"]
"""


def test_a_network_that_the_script_would_drop_is_folded_or_baked(tmp_path: Path) -> None:
    def way(name: str, text: str, **inputs: Path) -> LoraDelivery:
        return render_command.delivery(drawn(tmp_path, name, text), inputs)

    both = 'training.train = "both"\n'
    assert way("anima", "") is LoraDelivery.DIRECT
    assert way("anima", PRESET.format(family="locon")) is LoraDelivery.DIRECT  # linear layers alone are a plain LoRA
    assert way("anima", both + PRESET.format(family="locon")) is LoraDelivery.FOLD  # lora_te1_ of LyCORIS
    assert way("anima", PRESET.format(family="lokr")) is LoraDelivery.BAKE
    assert way("anima", PRESET.format(family="locon") + "[network.args]\ndora_wd = true\n") is LoraDelivery.BAKE
    assert way("flux", 'network.family = "locon"\n') is LoraDelivery.DIRECT
    assert way("hunyuan-image", 'network.family = "locon"\n') is LoraDelivery.DIRECT  # merged by name, final layer included
    folder = tmp_path / "qwen3"
    folder.mkdir()
    assert way("anima", both, qwen3=folder) is LoraDelivery.BAKE  # the script reads a folder without the LoRA
    assert way("anima", both, qwen3=tmp_path / "qwen3.safetensors") is LoraDelivery.DIRECT
    assert way("anima", "", qwen3=folder) is LoraDelivery.DIRECT


def test_baked_files_replace_those_of_the_recipe(tmp_path: Path) -> None:
    recipe = drawn(tmp_path, "flux", 'network.family = "lokr"\n[network.args]\nfactor = 4\n')
    request = json.loads(command(recipe).files["request.json"])
    assert (request["how"], request["dtype"], request["architecture"]) == ("bake", "BF16", "flux")
    assert {file["text_prefix"]: Path(file["source"]).name for file in request["files"]} == {
        "": "checkpoint.safetensors",
        "lora_te1": "clip_l.safetensors",
        "lora_te3": "t5xxl.safetensors",
    }
    argv = request["argv"]
    assert {file["target"] for file in request["files"]} <= set(argv)
    assert "/m/ae.safetensors" in argv
    assert "--lora_weights" not in argv


def test_anima_is_drawn_in_bf16_with_the_profile_of_a_cpu_too() -> None:
    path = str(ROOT / "recipes" / "examples" / "krnk-anima.toml")
    recipe = loader.recipe(RECIPES, path, "cpu").recipe
    assert recipe.render.precision == "no"
    assert sdscripts.check(recipe) == []
    assert render_command._dtype(recipe) == "BF16"


def test_the_examples_draw_their_prompts() -> None:
    for name in ("anima", "flux", "chroma", "sdxl", "sd3", "lumina", "hunyuan-image"):
        recipe = load(f"recipes/examples/krnk-{name}.toml")
        assert recipe.render.prompts
        assert sdscripts.check(recipe) == []
