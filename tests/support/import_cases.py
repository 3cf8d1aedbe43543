"""Settings of other programs, and checks of the recipes made of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator import engines
from orchestrator.recipe import loader

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.importers import to_recipe

GUI: dict[str, Any] = {
    "LoRA_type": "LyCORIS/LoHa", "additional_parameters": "--min_timestep=100 --weighted_captions", "bucket_no_upscale": True,
    "bucket_reso_steps": 64.0, "cache_latents": True, "cache_latents_to_disk": True, "caption_extension": ".txt", "clip_skip": "2",  # noqa: E501
    "color_aug": False, "conv_alpha": 4, "conv_dim": 8, "enable_bucket": True, "epoch": 2, "factor": -1, "keep_tokens": "1",
    "learning_rate": "0.0001", "lr_scheduler": "constant", "lr_warmup": "10", "max_data_loader_n_workers": "0", "max_grad_norm": 0,  # noqa: E501
    "max_resolution": "512,768", "max_token_length": "75", "max_train_steps": "1000", "min_snr_gamma": 5, "mixed_precision": "bf16",  # noqa: E501
    "network_alpha": 16, "network_dim": 32, "noise_offset": 0, "optimizer": "AdamW8bit", "optimizer_args": "weight_decay=0.1",
    "output_name": "cat lora", "pretrained_model_name_or_path": "C:\\models\\base.safetensors", "save_every_n_epochs": 1,
    "save_precision": "fp16", "seed": "", "text_encoder_lr": "5e-5", "train_batch_size": 3, "train_data_dir": "D:\\train\\img",
    "unet_lr": 0.0001, "use_cp": True, "xformers": "xformers", "stop_text_encoder_training": 3,
}  # fmt: skip


LINE = "call LoRA Lora3x3A50p-AdamW8 128 100 1000 4_krnk krnk Defmix-v2.0.safetensors kl-f8-anime2.ckpt 2"


def loaded(imported: to_recipe.ImportedRecipe, folder: Path) -> Any:
    """Write the imported recipe, load it, and validate it by its engine."""
    from orchestrator.recipe import toml  # noqa: PLC0415

    path = folder / "recipes" / f"{imported.name}.toml"
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(toml.lines(imported.table)), "utf-8")
    recipe = loader.recipe(path.parent, imported.name).recipe
    assert engines.get("sd-scripts").check(recipe) == []
    return recipe


def dispositions(imported: to_recipe.ImportedRecipe) -> dict[str, str]:
    return {note.name: str(note.disposition) for note in imported.notes}
