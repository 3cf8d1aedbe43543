"""Each name of the trainer, its metadata and its users leads to the recipe's key."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel

from orchestrator.engines.sdscripts import network_args, parser_options
from orchestrator.errors import RecipeError, report
from orchestrator.models import registry
from orchestrator.recipe import Recipe, loader, trainer_names
from orchestrator.recipe.messages import _model

if TYPE_CHECKING:
    from pathlib import Path

SS_NAMES = """
ss_adaptive_noise_scale ss_base_model_version ss_batch_size_per_device ss_bucket_info ss_bucket_no_upscale ss_cache_latents
ss_caption_dropout_every_n_epochs ss_caption_dropout_rate ss_caption_tag_dropout_rate ss_clip_skip ss_color_aug ss_dataset_dirs
ss_datasets ss_debiased_estimation ss_enable_bucket ss_epoch ss_face_crop_aug_range ss_flip_aug ss_fp8_base ss_fp8_base_unet
ss_full_fp16 ss_gradient_accumulation_steps ss_gradient_checkpointing ss_huber_c ss_huber_scale ss_huber_schedule
ss_ip_noise_gamma ss_ip_noise_gamma_random_strength ss_keep_tokens ss_learning_rate ss_loss_type ss_lowram ss_lr_scheduler
ss_lr_warmup_steps ss_max_bucket_reso ss_max_grad_norm ss_max_token_length ss_max_train_steps ss_max_validation_steps
ss_min_bucket_reso ss_min_snr_gamma ss_mixed_precision ss_multires_noise_discount ss_multires_noise_iterations ss_network_alpha
ss_network_args ss_network_dim ss_network_dropout ss_network_module ss_new_sd_model_hash ss_new_vae_hash ss_noise_offset
ss_noise_offset_random_strength ss_num_batches_per_epoch ss_num_epochs ss_num_reg_images ss_num_train_images
ss_num_validation_images ss_optimizer ss_output_name ss_prior_loss_weight ss_random_crop ss_reg_dataset_dirs
ss_resize_interpolation ss_resolution ss_scale_weight_norms ss_sd_model_hash ss_sd_model_name ss_sd_scripts_commit_hash ss_seed
ss_session_id ss_shuffle_caption ss_steps ss_tag_frequency ss_text_encoder_lr ss_total_batch_size ss_training_comment
ss_training_finished_at ss_training_started_at ss_unet_lr ss_v2 ss_vae_hash ss_vae_name ss_validate_every_n_epochs
ss_validate_every_n_steps ss_validation_seed ss_validation_split ss_zero_terminal_snr
"""


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    monkeypatch.setenv("SD_SCRIPTS_DIR", str(tmp_path / "no sd-scripts"))
    return {name for script in parser_options.TRAINERS for name in parser_options.of(script)}


def exists(key: str) -> bool:
    """Return whether a recipe may have the key."""
    model: Any = Recipe
    for part in key.split("."):
        field = model.model_fields.get(part) if isinstance(model, type) and issubclass(model, BaseModel) else None
        if field is None:
            return part == "NAME" or model is None  # a name in a table of tables, or in a table of options
        model = _model(field.annotation)
    return True


def test_every_option_of_the_trainer_leads_to_a_key(options: set[str]) -> None:
    named = {*trainer_names.OWNED, *trainer_names.FURTHER}
    assert sorted(options - named) == [], "add them to FURTHER"
    files = {name for name, key in trainer_names.OWNED.items() if key.startswith("base.files.")}  # of all architectures
    assert sorted(named - options - files - {"training_shift"}) == []  # of sd3_train_network.py
    arguments = {name for names in network_args.ARGS.values() for name in names}
    entries = registry.ARCHITECTURES.values()
    arguments |= {name for entry in entries for name in network_args.taken("lora", entry)}
    assert arguments == set(trainer_names.NETWORK_ARGS)


def test_every_name_of_the_metadata_leads_to_a_key_or_is_a_result() -> None:
    for name in SS_NAMES.split():
        key = trainer_names.recipe_key(name)
        assert key is not None, name
        assert bool(key) is (name.removeprefix("ss_") not in trainer_names.RESULTS), name


def test_every_key_exists(options: set[str]) -> None:
    for name in [
        *options,
        *SS_NAMES.split(),
        *trainer_names.ALIASES,
        *trainer_names.NETWORK_ARGS,
        *trainer_names.OPTIMIZER_ARGS,
    ]:
        for key in re.split(r" or |, ", trainer_names.recipe_key(name) or ""):
            named = not key or key == "the variable WANDB_API_KEY" or key.startswith("base.files.")
            assert named or exists(key), (name, key)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("network_dim = 16\n", "network_dim\n    unknown key; set network.dim"),
        ("[network]\nrank = 16\n", "network.rank\n    unknown key; set network.dim"),
        ("[training]\nlr = 1e-4\n", "training.lr\n    unknown key; set training.learning_rate"),
        ("[training]\ntrain_batch_size = 2\n", "unknown key; set dataset.batch_size"),
        ("[training]\nmin_snr_gamma = 5\n", "unknown key; set training.options.min_snr_gamma"),
        ("[training]\nnoise_offset = 0.1\n", "unknown key; set training.options.noise_offset"),
        ('[dataset]\nresolution = "512,512"\n', "unknown key; set dataset.resolution_classes"),
        ("[training]\nweight_decay = 0.1\n", "unknown key; set training.optimizer_args.weight_decay"),
        ("ss_network_alpha = 8\n", "unknown key; set network.alpha"),
        ("[network]\nrank_dropout = 0.1\n", "unknown key; set network.args.rank_dropout"),
        ('[training]\noutput_dir = "x"\n', "unknown key; it is set for you, remove it"),
        ("[network]\ndimm = 16\n", "unknown key; did you mean dim?"),
    ],
)
def test_names_of_kohya_in_a_recipe(tmp_path: Path, text: str, expected: str) -> None:
    head = 'extends = ["_base/release-2023-03", "_algorithms/locon", "_subjects/krnk"]\nsummary = "x"\n'
    (tmp_path / "mine.toml").write_text(head + text, "utf-8")
    with pytest.raises(RecipeError) as raised:
        loader.recipe(tmp_path, "mine")
    assert expected in report(raised.value)
