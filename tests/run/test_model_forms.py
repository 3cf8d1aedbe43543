"""Pickles, shards, indexes and folders in the slots of a recipe, against the forms that each loader of sd-scripts takes."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from typing import TYPE_CHECKING

import pytest

from engine_recipes import RECIPES, load
from headers import Shapes, write
from orchestrator.plan.inputs import ProjectInputs
from orchestrator.recipe import loader
from orchestrator.run import model_files, model_headers
from orchestrator.system.digests import Digests
from orchestrator.weights.io import pickle_scan

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.recipe import Recipe

FLUX: tuple[Shapes, ...] = (
    {"double_blocks.0.img_mod.lin.weight": [2, 2]},
    {"guidance_in.in_layer.weight": [2, 2]},
    {"single_blocks.0.linear1.weight": [2, 2]},
)
ANIMA: tuple[Shapes, ...] = ({"net.blocks.0.cross_attn.q_proj.weight": [2, 2]}, {"net.llm_adapter.x": [2]})


def example(name: str, **base: object) -> Recipe:
    recipe = loader.recipe(RECIPES, str(RECIPES / "examples" / f"{name}.toml")).recipe
    return recipe.model_copy(update={"base": recipe.base.model_copy(update=base)})


def sharded(folder: Path, contents: tuple[Shapes, ...], name: str = "model") -> list[str]:
    """Write shards and their index, and return the names of the shards."""
    names = [f"{name}-{number + 1:05}-of-{len(contents):05}.safetensors" for number in range(len(contents))]
    for each, shapes in zip(names, contents, strict=True):
        write(folder / each, shapes)
    table = {key: each for each, shapes in zip(names, contents, strict=True) for key in shapes}
    (folder / f"{name}.safetensors.index.json").write_text(json.dumps({"weight_map": table}), "utf-8")
    return names


def found(tmp_path: Path, recipe: Recipe, key: str = "base.checkpoint") -> str:
    """Return the problem of a key, or ""."""
    inputs = ProjectInputs(tmp_path, Digests(tmp_path / "digests.json"))
    problems = [problem for problem in model_files.problems(recipe, inputs) if problem.where.startswith(f"{key} = ")]
    assert len(problems) <= 1
    return "".join(f"{problem.what}; {problem.hint}" for problem in problems)


def test_shards_are_read_together_where_the_loader_joins_them(tmp_path: Path) -> None:
    first, _, last = sharded(tmp_path / "models", FLUX)
    assert found(tmp_path, example("krnk-flux", checkpoint=first)) == ""  # the second shard tells dev from schnell
    assert "is FLUX.1-dev, but base.architecture is FLUX.1-schnell; set base" in found(
        tmp_path, example("krnk-flux-schnell", checkpoint=first)
    )
    assert f"is not the first of 3 shards; name {first}" in found(tmp_path, example("krnk-flux", checkpoint=last))
    (tmp_path / "models" / last).unlink()
    assert f"lacks 1 of 3 shards beside it: {last}" in found(tmp_path, example("krnk-flux", checkpoint=first))


def test_every_shard_is_in_the_digest(tmp_path: Path) -> None:
    first, second = sharded(tmp_path / "models", ANIMA)
    before = ProjectInputs(tmp_path, Digests(tmp_path / "a.json")).file("checkpoint", first, "").digest
    write(tmp_path / "models" / second, {"net.llm_adapter.other": [4]})
    assert ProjectInputs(tmp_path, Digests(tmp_path / "b.json")).file("checkpoint", first, "").digest != before


@pytest.mark.parametrize(
    ("name", "contents", "what"),
    [
        ("krnk-flux", FLUX[:2], "is one of 2 shards; the loader of FLUX.1-dev takes 3 shards, or one file"),
        ("krnk-sdxl", FLUX, "is one of 3 shards; the loader of SDXL takes one file"),
        ("krnk-chroma", FLUX, "is one of 3 shards; the loader of Chroma takes one file"),
        ("krnk-anima", ANIMA, ""),
    ],
)
def test_shards_that_a_loader_does_not_join_are_refused(
    tmp_path: Path, name: str, contents: tuple[Shapes, ...], what: str
) -> None:
    first = sharded(tmp_path / "models", contents)[0]
    message = found(tmp_path, example(name, checkpoint=first))
    assert what in message
    assert bool(what) == bool(message)
    index = found(tmp_path, example(name, checkpoint="model.safetensors.index.json"))
    assert f"is an index of {len(contents)} shards, which sd-scripts does not read" in index
    assert (f"set base.checkpoint to the first of them, {first}" in index) == (not what)


def test_a_folder_lacks_a_shard_of_its_index(tmp_path: Path) -> None:
    recipe = example("krnk-anima")
    recipe = recipe.model_copy(
        update={
            "base": recipe.base.model_copy(
                update={"files": {"qwen3": recipe.base.files["qwen3"].model_copy(update={"file": "qwen"})}}
            )
        }
    )
    qwen = {"model.layers.0.self_attn.q_norm.weight": [128], "model.layers.0.input_layernorm.weight": [1024]}
    last = sharded(tmp_path / "models" / "qwen", (qwen, {"x": [2]}))[1]
    (tmp_path / "models" / "qwen" / "config.json").write_text('{"model_type": "qwen3"}', "utf-8")
    assert found(tmp_path, recipe, "base.files.qwen3") == ""
    (tmp_path / "models" / "qwen" / last).unlink()
    assert f"lacks shards that model.safetensors.index.json names: {last}" in found(tmp_path, recipe, "base.files.qwen3")


class Harm:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("echo harm",)


def pickled(path: Path, *names: str, harm: bool = False) -> str:
    """Write a pickle with these names of tensors, and return its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(
            "archive/data.pkl", pickle.dumps({"state_dict": {**dict.fromkeys(names, 0), "x": Harm() if harm else 0}})
        )
    return path.name


def test_a_pickle_is_refused_where_the_loader_takes_safetensors_only(tmp_path: Path) -> None:
    name = pickled(tmp_path / "models" / "a.pt", "double_blocks.0.img_mod.lin.weight", "guidance_in.in_layer.weight")
    assert "is a pickle; the loader of FLUX.1-dev takes .safetensors only" in found(
        tmp_path, example("krnk-flux", checkpoint=name)
    )
    assert "is a pickle; the loader of Anima takes .safetensors only" in found(
        tmp_path, example("krnk-anima", vae=name), "base.vae"
    )


def test_the_texts_of_a_pickle_tell_its_architecture(tmp_path: Path) -> None:
    sd2 = pickled(tmp_path / "models" / "a.ckpt", "model.diffusion_model.x", "cond_stage_model.model.x")
    assert "is SD2, but base.architecture is SD1" in found(tmp_path, _release(sd2))
    lora = pickled(tmp_path / "models" / "b.ckpt", "lora_unet_x.lora_up.weight")
    assert "is a LoRA, but base.architecture is SD1" in found(tmp_path, _release(lora))
    assert found(tmp_path, _release(pickled(tmp_path / "models" / "c.ckpt", "model.diffusion_model.x"))) == ""
    assert model_headers.whole_checkpoint(tmp_path / "models" / "a.ckpt")[0] == "sd2"


def _release(checkpoint: str) -> Recipe:
    recipe = load("krnk-locon")
    return recipe.model_copy(update={"base": recipe.base.model_copy(update={"checkpoint": checkpoint, "vae": ""})})


@pytest.mark.parametrize(("name", "what"), [("krnk-locon", "would run code in it"), ("krnk-sdxl", "its tensors only")])
def test_doctor_tells_how_sd_scripts_loads_a_pickle(tmp_path: Path, name: str, what: str) -> None:
    recipe = load(name) if name == "krnk-locon" else example(name)
    names = ["model.diffusion_model.x", *(["conditioner.x"] if name == "krnk-sdxl" else [])]
    file = pickled(tmp_path / "models" / "a.ckpt", *names)
    recipe = recipe.model_copy(update={"base": recipe.base.model_copy(update={"checkpoint": file, "vae": ""})})
    (check,) = model_files.checks(recipe, ProjectInputs(tmp_path, Digests(tmp_path / "digests.json")))
    assert what in check.detail


def test_a_harmful_pickle_in_a_folder_is_refused(tmp_path: Path) -> None:
    pickled(tmp_path / "models" / "sd15" / "unet" / "diffusion_pytorch_model.bin", harm=True)
    assert "unet/diffusion_pytorch_model.bin is a pickle that would call posix.system when loaded" in found(
        tmp_path, _release("sd15")
    )


def _old(*values: object) -> bytes:
    """Return a file of torch before 1.6: pickles in a row."""
    return b"".join(
        pickle.dumps(value, protocol=2) for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, *values)
    )


@pytest.mark.parametrize(
    "content",
    [
        _old({"x": Harm()}, []),  # not in the first pickle
        pickle.dumps({"x": Harm()}) + b"PK\x05\x06" + bytes(18),  # torch reads the pickle, zipfile an empty archive
        b"\x80\x04\x8c\x05posix\x940\x8c\x06system\x940\x8c\x05torch\x940\x8c\x04Size\x940h\x00h\x01\x93.",  # by the memo
        b"\x80\x02cnumpy.testing._private.utils\nrunstring\n.",
        b"\x80\x02ctorch.hub\nload\n.",
        b"\x80\x02\x82\x01.",  # a function by its registered number
    ],
)
def test_hidden_calls_of_a_pickle_are_found(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.ckpt").write_bytes(content)
    assert pickle_scan.strange(tmp_path / "x.ckpt")


def test_an_old_pickle_of_tensors_is_familiar(tmp_path: Path) -> None:
    (tmp_path / "x.ckpt").write_bytes(_old({"state_dict": {"model.diffusion_model.x": 1}}, ["0"]) + bytes(64))
    assert pickle_scan.strange(tmp_path / "x.ckpt") == []
    assert "model.diffusion_model.x" in pickle_scan.texts(tmp_path / "x.ckpt")
