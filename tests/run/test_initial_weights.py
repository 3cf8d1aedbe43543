"""The LoRA that a training starts from is compared with the recipe's network before anything runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from engine_recipes import load
from headers import write
from orchestrator.models.registry import ARCHITECTURES
from orchestrator.plan.inputs import ProjectInputs
from orchestrator.run import initial_weights, model_files
from orchestrator.system.digests import Digests
from orchestrator.weights.families import expected_tensors
from orchestrator.weights.io.state_dict import save_arrays

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.models.registry import ArchitectureName
    from orchestrator.recipe import Recipe

LORA = {"family": "lora", "dim": 4, "alpha": 2.0, "conv_dim": None, "conv_alpha": None, "preset": None, "args": {}}
LORA |= {"tucker": False, "bypass": False, "weights": "old.safetensors"}
LOCON = LORA | {"family": "locon", "conv_dim": 2, "conv_alpha": 1.0}


def made(architecture: ArchitectureName = "sd1", train: str = "both", **network: Any) -> Recipe:
    """Return a recipe of an architecture with a network."""
    base = load("krnk-lora3x3")
    return base.model_copy(
        update={
            "network": base.network.model_copy(update=LORA | network),
            "base": base.base.model_copy(update={"architecture": architecture}),
            "training": base.training.model_copy(update={"train": train}),
        }
    )


def saved(path: Path, recipe: Recipe, rename: tuple[str, str] = ("", "")) -> Path:
    """Write the file that a training of the recipe saves, filled with zeros and the recipe's alphas."""
    tensors = {}
    for layer in expected_tensors.modules(recipe, ARCHITECTURES[recipe.base.architecture].model):
        alpha = recipe.network.conv_alpha if layer.kernel > 1 else recipe.network.alpha
        for part, shape in (expected_tensors.of_layer(recipe, layer) or {}).items():
            name = f"{layer.name}.{part}".replace(*rename, 1) if rename[0] else f"{layer.name}.{part}"
            tensors[name] = np.full(shape, alpha if part == "alpha" else 0, np.float16)
    save_arrays(path, tensors, {})
    return path


def problems(path: Path, recipe: Recipe) -> str:
    model = ARCHITECTURES[recipe.base.architecture].model
    found = initial_weights.problems("network.weights = old", path, recipe, model)
    return "\n".join(f"{problem.where}  {problem.what}; {problem.hint}" for problem in found)


@pytest.mark.parametrize(
    ("recipe", "note"),
    [
        (made(), "264 of 264 modules start from it"),
        (made(**LOCON), ""),
        (made("sd3.5-medium", "unet"), "263 of 263"),
        (made("flux-schnell", "unet"), "304 of 304"),
        (made("anima", train="both", layer_dims={".*mlp.*": 2}), "476 of 476"),
        (made(family="loha", conv_dim=2, conv_alpha=1.0), ""),
        (made(family="lokr", conv_dim=2, args={"factor": 8}), ""),
    ],
)
def test_the_file_of_the_same_training_is_a_start(tmp_path: Path, recipe: Recipe, note: str) -> None:
    path = saved(tmp_path / "old.safetensors", recipe)
    assert problems(path, recipe) == ""
    assert note in initial_weights.continued(path, recipe, ARCHITECTURES[recipe.base.architecture].model)


def test_a_file_of_fewer_modules_is_a_start_and_the_others_are_counted(tmp_path: Path) -> None:
    path = saved(tmp_path / "old.safetensors", made(train="unet"))
    assert problems(path, made()) == ""
    assert "192 of 264 modules start from it, the others anew" in initial_weights.continued(
        path, made(), ARCHITECTURES["sd1"].model
    )


def test_blocks_that_two_sizes_of_a_model_share_are_no_other_model(tmp_path: Path) -> None:
    path = saved(tmp_path / "old.safetensors", made("sd3-medium", "unet", blocks=("J14-J20",)))
    assert problems(path, made("sd3.5-medium", "unet")) == ""


@pytest.mark.parametrize(
    ("file", "recipe", "expected"),
    [
        (
            made("flux", "unet"),
            made(),
            "is a LoRA of FLUX.1-dev, but the recipe trains SD1.5; name a LoRA of SD1.5, or set base.ar",
        ),
        (made("sd2", "unet"), made(), "is a LoRA of SD2, but the recipe trains SD1.5"),
        (made("sdxl"), made("sd2"), "is a LoRA of SDXL, but the recipe trains SD2"),
        (made(dim=8), made(), "has rank 8; network.dim trains 4: sd-scripts would stop; set network.dim = 8; or  python -m"),
        (made(dim=2), made(), "has rank 2; network.dim trains 4: sd-scripts would stop; set network.dim = 2"),
        (
            made(**{**LOCON, "conv_dim": 8}),
            made(**LOCON),
            "has rank 8; network.conv_dim trains 2: sd-scripts would stop; set network.conv_dim = 8",
        ),
        (
            made(),
            made(train="unet"),
            "has 72 modules of text encoders, as lora_te_text_model_encoder_layers_0_mlp_fc1: sd-scripts",
        ),
        (made(), made(train="unet"), 'set training.train = "both"'),
        (made(**LOCON), made(), "modules that the recipe does not train, as lora_unet_"),
        (made(family="loha"), made(), "modules of loha, with other tensors than network.family = lora of the recipe trains"),
        (made(alpha=8.0), made(), "has alpha 8 in 264 modules; network.alpha is 2: the trainer scales by that"),
        (made(**{**LOCON, "conv_alpha": 2.0}), made(**LOCON), "network.conv_alpha is 1: the trainer scales by that"),
    ],
)
def test_a_file_of_another_training_is_named_with_the_difference(
    tmp_path: Path, file: Recipe, recipe: Recipe, expected: str
) -> None:
    assert expected in problems(saved(tmp_path / "old.safetensors", file), recipe)


def test_an_alpha_of_any_type_is_compared(tmp_path: Path) -> None:
    path = saved(tmp_path / "old.safetensors", made())
    tensors = load_file(path)
    whole = {name: tensor.astype(np.int64) if name.endswith(".alpha") else tensor for name, tensor in tensors.items()}
    save_arrays(path, whole, {})
    assert problems(path, made()) == ""
    assert "has alpha 2 in 264 modules; network.alpha is 1" in problems(path, made(alpha=1.0))


def test_another_form_is_named_with_the_command_that_converts_it(tmp_path: Path) -> None:
    path = saved(tmp_path / "old.safetensors", made("flux", "unet"), ("lora_unet_double_blocks", "lora_transformer_blocks"))
    assert problems(path, made("flux", "unet")) != ""
    shapes = {
        f"diffusion_model.double_blocks.{number}.img_attn.proj.lora_{letter}.weight": shape
        for number in range(19)
        for letter, shape in (("A", [4, 3072]), ("B", [3072, 4]))
    }
    found = problems(write(tmp_path / "comfy.safetensors", shapes), made("flux", "unet"))
    assert "which the trainer ignores" in found
    assert "orchestrator convert" in found
    assert "--to kohya" in found


def test_a_checkpoint_and_another_file_are_no_loras(tmp_path: Path) -> None:
    checkpoint = write(tmp_path / "x.safetensors", {"model.diffusion_model.x": [2], "conditioner.x": [2]})
    assert "is a checkpoint of SDXL, not a LoRA" in problems(checkpoint, made())
    assert "x.safetensors: is a file of whole tensors (x.weight), not a LoRA" in problems(
        write(tmp_path / "x.safetensors", {"x.weight": [2]}), made()
    )


def test_the_start_is_checked_with_the_other_files(tmp_path: Path) -> None:
    (tmp_path / "models" / "loras").mkdir(parents=True)
    saved(tmp_path / "models" / "loras" / "old.safetensors", made(dim=8))
    inputs = ProjectInputs(tmp_path, Digests(tmp_path / "digests.json"))
    found = [problem for problem in model_files.problems(made(), inputs) if "weights" in problem.where]
    assert [problem.where for problem in found] == ["network.weights = old.safetensors"]
    saved(tmp_path / "models" / "loras" / "old.safetensors", made())
    inputs = ProjectInputs(tmp_path, Digests(tmp_path / "digests.json"))
    (check,) = [check for check in model_files.checks(made(), inputs) if check.what == "network.weights"]
    assert check.detail.endswith("; 264 of 264 modules start from it")
