"""The recipe's keys for names of the trainer and its users.

sd-scripts' parser, the ss_ names of its metadata and everyday words (rank, lr) each lead to the key that does it.
"""

from __future__ import annotations

from orchestrator.models import registry


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


PLAIN = _words(
    """
blocks_to_swap fp8_base torch_compile timestep_sampling sigmoid_scale guidance_scale model_prediction_type weighting_scheme
logit_mean logit_std mode_scale
"""
)
"""Options that a key of the same name sets, where the recipe has it."""
# Options with a recipe key of their own, and options that the orchestrator sets (empty).
OWNED: dict[str, str] = {
    "pretrained_model_name_or_path": "base.checkpoint",
    "vae": "base.vae",
    "clip_skip": "base.clip_skip",
    "v2": "base.architecture",
    "model_type": "base.architecture",
    "network_module": "network.family",
    "network_dim": "network.dim",
    "dim_from_weights": "network.dim",
    "network_alpha": "network.alpha",
    "network_dropout": "network.dropout",
    "network_args": "network.args",
    "network_weights": "network.weights",
    "network_train_unet_only": "training.train",
    "network_train_text_encoder_only": "training.train",
    "max_train_steps": "training.steps",
    "max_train_epochs": "training.epochs",
    "optimizer_type": "training.optimizer",
    "use_8bit_adam": "training.optimizer",
    "use_lion_optimizer": "training.optimizer",
    "sdpa": "training.attention",
    "xformers": "training.attention",
    "mem_eff_attn": "training.attention",
    "cache_latents_to_disk": "training.cache_latents",
    "max_data_loader_n_workers": "training.data_loader_workers",
    "persistent_data_loader_workers": "training.persistent_workers",
    "save_state": "training.state_every_n_steps",
    "save_last_n_steps": "training.keep_states",
    "save_last_n_steps_state": "training.keep_states",
    "sample_prompts": "render.prompts",
    "sample_every_n_epochs": "training.sample_every_n_steps",
    "sample_sampler": "render.sampler",
    "validation_split": "training.validation.split",
    "validation_seed": "training.validation.seed",
    "validate_every_n_steps": "training.validation.every_n_steps",
    "validate_every_n_epochs": "training.validation.every_n_steps",
    "train_batch_size": "dataset.batch_size",
    "color_aug": "dataset.color_aug",
    "flip_aug": "dataset.flip_aug",
    "random_crop": "dataset.random_crop",
    "shuffle_caption": "dataset.shuffle_caption",
    "keep_tokens": "dataset.keep_tokens",
    "caption_extension": "dataset.caption_extension",
    "caption_extention": "dataset.caption_extension",
    "caption_dropout_rate": "dataset.caption_dropout_rate",
    "resolution": "dataset.resolution_classes",
    "enable_bucket": "dataset.enable_bucket",
    "bucket_no_upscale": "dataset.bucket_no_upscale",
    "bucket_reso_steps": "dataset.bucket_reso_steps",
    "min_bucket_reso": "dataset.min_bucket_reso",
    "max_bucket_reso": "dataset.max_bucket_reso",
    "cache_text_encoder_outputs_to_disk": "training.cache_text_encoder_outputs",
    "discrete_flow_shift": "training.flow_shift",
    "training_shift": "training.flow_shift",
    "log_with": "training.wandb",
    "wandb_api_key": "the variable WANDB_API_KEY",
} | {
    name: f"training.{name}"
    for name in [
        "learning_rate",
        "text_encoder_lr",
        "unet_lr",
        "optimizer_args",
        "lr_scheduler",
        "lr_scheduler_num_cycles",
        "lr_warmup_steps",
        "seed",
        "mixed_precision",
        "save_precision",
        "gradient_checkpointing",
        "gradient_accumulation_steps",
        "max_grad_norm",
        "log_prefix",
        "cache_latents",
        "cache_text_encoder_outputs",
        *PLAIN,
        "save_every_n_steps",
        "sample_every_n_steps",
    ]
}
SET_HERE = [
    "config_file",
    "output_config",
    "output_dir",
    "output_name",
    "save_model_as",
    "logging_dir",
    "dataset_config",
    "dataset_class",
    "debug_dataset",
    "train_data_dir",
    "reg_data_dir",
    "in_json",
    "tokenizer_cache_dir",
    "resume",
    "initial_step",
    "initial_epoch",
    "skip_until_initial_step",
    "console_log_simple",
    "console_log_file",
    "console_log_level",
    "huggingface_token",
    "huggingface_repo_id",
    "save_state_to_huggingface",
    "resume_from_huggingface",
    "async_upload",
    "no_metadata",
    "save_state_on_train_end",
]
OWNED |= dict.fromkeys(SET_HERE, "")
OWNED |= {file.option: f"base.files.{file.option}" for entry in registry.ARCHITECTURES.values() for file in entry.files}

# The trainer's other options: keys of the table training.options.
FURTHER = _words(
    """
v_parameterization metadata_title metadata_author metadata_description metadata_license metadata_tags
metadata_usage_hint metadata_thumbnail metadata_merged_from metadata_trigger_phrase metadata_preprocessor
metadata_is_negative_embedding cache_info caption_separator keep_tokens_separator secondary_separator enable_wildcard
caption_prefix caption_suffix face_crop_aug_range vae_batch_size skip_cache_check resize_interpolation token_warmup_min
token_warmup_step alpha_mask caption_dropout_every_n_epochs caption_tag_dropout_rate dataset_repeats
huggingface_repo_type huggingface_path_in_repo huggingface_repo_visibility save_every_n_epochs save_n_epoch_ratio
save_last_n_epochs save_last_n_epochs_state max_token_length dynamo_backend full_fp16 full_bf16 ddp_timeout
ddp_gradient_as_bucket_view ddp_static_graph log_tracker_name wandb_run_name log_tracker_config log_config noise_offset
noise_offset_random_strength multires_noise_iterations ip_noise_gamma ip_noise_gamma_random_strength
multires_noise_discount adaptive_noise_scale zero_terminal_snr min_timestep max_timestep loss_type huber_schedule
huber_c huber_scale lowram highvram sample_at_first prior_loss_weight conditioning_data_dir masked_loss deepspeed
zero_stage offload_optimizer_device offload_optimizer_nvme_path offload_param_device offload_param_nvme_path
zero3_init_flag zero3_save_16bit_model fp16_master_weights_and_gradients lr_scheduler_type lr_scheduler_args
lr_decay_steps lr_scheduler_power fused_backward_pass lr_scheduler_timescale lr_scheduler_min_lr_ratio min_snr_gamma
scale_v_pred_loss_like_noise_pred v_pred_like_loss debiased_estimation_loss weighted_captions cpu_offload_checkpointing
fp8_base_unet training_comment scale_weight_norms base_weights base_weights_multiplier no_half_vae
max_validation_steps disable_mmap_load_safetensors
text_encoder_batch_size llm_adapter_path llm_adapter_lr self_attn_lr cross_attn_lr mlp_lr mod_lr t5_tokenizer_path
qwen3_max_token_length t5_max_token_length attn_mode split_attn vae_chunk_size vae_disable_cache
unsloth_offload_checkpointing controlnet_model_name_or_path t5xxl_max_token_length apply_t5_attn_mask split_mode
training_shift t5xxl_device t5xxl_dtype save_clip save_t5xxl clip_l_dropout_rate clip_g_dropout_rate t5_dropout_rate
apply_lg_attn_mask pos_emb_random_crop_rate enable_scaled_pos_embed system_prompt gemma2_max_token_length use_flash_attn
use_sage_attn sample_batch_size fp8_scaled fp8_vl text_encoder_cpu
"""
)
# Arguments of --network_args, and of optimizers.
NETWORK_ARGS = _words(
    """
rank_dropout module_dropout loraplus_lr_ratio loraplus_unet_lr_ratio loraplus_text_encoder_lr_ratio block_dims
block_alphas conv_block_dims conv_block_alphas down_lr_weight mid_lr_weight up_lr_weight block_lr_zero_threshold
train_norm use_scalar rs_lora dora_wd wd_on_output factor decompose_both full_matrix unbalanced_factorization
block_size constraint rescaled
"""
)
NETWORK_ARGS += tuple(
    dict.fromkeys(
        name
        for entry in registry.ARCHITECTURES.values()
        for name in (*entry.layer_choice.dims, *entry.layer_choice.numbers, *entry.model.targets.optional)
        if not name.startswith("train_t5")
    )
)
OPTIMIZER_ARGS = (
    "weight_decay",
    "betas",
    "eps",
    "momentum",
    "d_coef",
    "d0",
    "decouple",
    "use_bias_correction",
    "safeguard_warmup",
    "relative_step",
    "scale_parameter",
    "warmup_init",
)
ALIASES = {
    "train_t5xxl": "training.text_encoders",
    "train_blocks": "network.blocks",
    "train_block_indices": "network.blocks",
    "train_double_block_indices": "network.blocks",
    "train_single_block_indices": "network.blocks",
    "network_reg_dims": "network.layer_dims",
    "network_reg_lrs": "network.layer_lrs",
    "exclude_patterns": "network.exclude",
    "include_patterns": "network.include",
    "rank": "network.dim",
    "lora_rank": "network.dim",
    "network_rank": "network.dim",
    "lora_alpha": "network.alpha",
    "conv_dim": "network.conv_dim",
    "conv_rank": "network.conv_dim",
    "conv_alpha": "network.conv_alpha",
    "algo": "network.family",
    "lora_type": "network.family",
    "use_tucker": "network.tucker",
    "use_cp": "network.tucker",
    "bypass_mode": "network.bypass",
    "lr": "training.learning_rate",
    "te_lr": "training.text_encoder_lr",
    "text_lr": "training.text_encoder_lr",
    "scheduler": "training.lr_scheduler",
    "warmup_steps": "training.lr_warmup_steps",
    "lr_warmup": "training.lr_warmup_steps",
    "num_cycles": "training.lr_scheduler_num_cycles",
    "max_steps": "training.steps",
    "train_steps": "training.steps",
    "epoch": "training.epochs",
    "epochs": "training.epochs",
    "num_epochs": "training.epochs",
    "num_train_epochs": "training.epochs",
    "max_epochs": "training.epochs",
    "gradient_accumulation": "training.gradient_accumulation_steps",
    "precision": "training.mixed_precision",
    "noise_offset_strength": "training.options.noise_offset",
    "snr_gamma": "training.options.min_snr_gamma",
    "min_snr": "training.options.min_snr_gamma",
    "batch": "dataset.batch_size",
    "batch_size": "dataset.batch_size",
    "max_resolution": "dataset.resolution_classes",
    "num_repeats": "dataset.repeats",
    "repeats": "dataset.repeats",
    "image_dir": "dataset.sources.NAME.images",
    "train_data": "dataset.sources.NAME.images",
    "trigger": "dataset.sources.NAME.trigger",
    "trigger_word": "dataset.sources.NAME.trigger",
    "instance_token": "dataset.sources.NAME.trigger",
    "class_tokens": "dataset.sources.NAME.class_tokens",
    "class_token": "dataset.sources.NAME.class_tokens",
    "is_reg": "dataset.sources.NAME.regularization",
    "model": "base.checkpoint",
    "base_model": "base.checkpoint",
    "ckpt": "base.checkpoint",
    "sdxl": "base.architecture",
    "output_name": "name",
}
# Metadata that sd-scripts names otherwise than its options.
METADATA = {
    "base_model_version": "base.architecture",
    "batch_size_per_device": "dataset.batch_size",
    "total_batch_size": "dataset.batch_size",
    "bucket_info": "dataset.resolution_classes",
    "dataset_dirs": "dataset.sources.NAME.images",
    "datasets": "dataset.sources.NAME.images",
    "reg_dataset_dirs": "dataset.sources.NAME.regularization",
    "num_train_images": "dataset.sources.NAME.images",
    "num_reg_images": "dataset.sources.NAME.regularization",
    "num_batches_per_epoch": "dataset.batch_size",
    "tag_frequency": "dataset.sources.NAME.captions",
    "debiased_estimation": "training.options.debiased_estimation_loss",
    "optimizer": "training.optimizer",
    "steps": "training.steps",
    "sd_model_name": "base.checkpoint",
    "sd_model_hash": "base.sha256",
    "new_sd_model_hash": "base.sha256",
    "vae_name": "base.vae",
    "vae_hash": "base.vae_sha256",
    "new_vae_hash": "base.vae_sha256",
}
# Metadata about a run, which no key sets.
RESULTS = (
    "num_validation_images",
    "sd_scripts_commit_hash",
    "session_id",
    "training_started_at",
    "training_finished_at",
)
_TABLES = ((FURTHER, "training.options"), (NETWORK_ARGS, "network.args"), (OPTIMIZER_ARGS, "training.optimizer_args"))


def recipe_key(name: str) -> str | None:
    """Return the recipe's key for a name of another program.

    "": the orchestrator or the trainer sets it. None: the name is unknown.
    """
    name = name.removeprefix("--").lower()
    plain = name.removeprefix("ss_")
    if plain != name and plain in METADATA:
        return METADATA[plain]
    for table in (OWNED, ALIASES) if plain != "output_name" else (ALIASES,):
        if plain in table:
            return table[plain]
    key = next((f"{table}.{plain}" for names, table in _TABLES if plain in names), None)
    return "" if key is None and plain in RESULTS else key
