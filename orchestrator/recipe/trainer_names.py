"""The recipe's keys for names of the trainer and its users.

sd-scripts' parser, the ss_ names of its metadata and everyday words (rank, lr) each lead to the key that does it.
"""

from __future__ import annotations

from orchestrator.models import registry


def words(text: str) -> tuple[str, ...]:
    """Return the names in a text."""
    return tuple(text.split())


def _keys_by_name(names_by_key: dict[str, str]) -> dict[str, str]:
    return {name: key for key, names in names_by_key.items() for name in words(names)}


PLAIN = words(
    """
blocks_to_swap fp8_base torch_compile timestep_sampling sigmoid_scale guidance_scale model_prediction_type
weighting_scheme logit_mean logit_std mode_scale
"""
)
"""Options that a key of the same name sets, where the recipe has it."""
_TRAINING = (
    *PLAIN,
    *words(
        """
learning_rate text_encoder_lr unet_lr optimizer_args lr_scheduler lr_scheduler_num_cycles lr_warmup_steps seed
mixed_precision save_precision gradient_checkpointing gradient_accumulation_steps max_grad_norm log_prefix
cache_latents cache_text_encoder_outputs save_every_n_steps sample_every_n_steps
"""
    ),
)
_SET_HERE = """
config_file output_config output_dir output_name save_model_as logging_dir dataset_config dataset_class debug_dataset
train_data_dir reg_data_dir in_json tokenizer_cache_dir resume initial_step initial_epoch skip_until_initial_step
console_log_simple console_log_file console_log_level huggingface_token huggingface_repo_id save_state_to_huggingface
resume_from_huggingface async_upload no_metadata save_state_on_train_end
"""
OWNED = {
    **_keys_by_name(
        {
            "base.checkpoint": "pretrained_model_name_or_path",
            "base.vae": "vae",
            "base.clip_skip": "clip_skip",
            "base.architecture": "v2 model_type",
            "network.family": "network_module",
            "network.dim": "network_dim dim_from_weights",
            "network.alpha": "network_alpha",
            "network.dropout": "network_dropout",
            "network.args": "network_args",
            "network.weights": "network_weights",
            "training.train": "network_train_unet_only network_train_text_encoder_only",
            "training.steps": "max_train_steps",
            "training.epochs": "max_train_epochs",
            "training.optimizer": "optimizer_type use_8bit_adam use_lion_optimizer",
            "training.attention": "sdpa xformers mem_eff_attn",
            "training.cache_latents": "cache_latents_to_disk",
            "training.data_loader_workers": "max_data_loader_n_workers",
            "training.persistent_workers": "persistent_data_loader_workers",
            "training.state_every_n_steps": "save_state",
            "training.keep_states": "save_last_n_steps save_last_n_steps_state",
            "render.prompts": "sample_prompts",
            "training.sample_every_n_steps": "sample_every_n_epochs",
            "render.sampler": "sample_sampler",
            "training.validation.split": "validation_split",
            "training.validation.seed": "validation_seed",
            "training.validation.every_n_steps": "validate_every_n_steps validate_every_n_epochs",
            "dataset.batch_size": "train_batch_size",
            "dataset.color_aug": "color_aug",
            "dataset.flip_aug": "flip_aug",
            "dataset.random_crop": "random_crop",
            "dataset.shuffle_caption": "shuffle_caption",
            "dataset.keep_tokens": "keep_tokens",
            "dataset.caption_extension": "caption_extension caption_extention",
            "dataset.caption_dropout_rate": "caption_dropout_rate",
            "dataset.resolution_classes": "resolution",
            "dataset.enable_bucket": "enable_bucket",
            "dataset.bucket_no_upscale": "bucket_no_upscale",
            "dataset.bucket_reso_steps": "bucket_reso_steps",
            "dataset.min_bucket_reso": "min_bucket_reso",
            "dataset.max_bucket_reso": "max_bucket_reso",
            "training.cache_text_encoder_outputs": "cache_text_encoder_outputs_to_disk",
            "training.flow_shift": "discrete_flow_shift training_shift",
            "training.wandb": "log_with",
            "the variable WANDB_API_KEY": "wandb_api_key",
        }
    ),
    **{name: f"training.{name}" for name in _TRAINING},
    **_keys_by_name({"": _SET_HERE}),
    **{file.option: f"base.files.{file.option}" for entry in registry.ARCHITECTURES.values() for file in entry.files},
}
"""Options with a recipe key of their own, and options that the orchestrator sets (empty)."""
FURTHER = words(
    """
v_parameterization metadata_title metadata_author metadata_description metadata_license metadata_tags
metadata_usage_hint metadata_thumbnail metadata_merged_from metadata_trigger_phrase metadata_preprocessor
metadata_is_negative_embedding cache_info caption_separator keep_tokens_separator secondary_separator enable_wildcard
caption_prefix caption_suffix face_crop_aug_range vae_batch_size skip_cache_check resize_interpolation
token_warmup_min token_warmup_step alpha_mask caption_dropout_every_n_epochs caption_tag_dropout_rate dataset_repeats
huggingface_repo_type huggingface_path_in_repo huggingface_repo_visibility save_every_n_epochs save_n_epoch_ratio
save_last_n_epochs save_last_n_epochs_state max_token_length dynamo_backend full_fp16 full_bf16 ddp_timeout
ddp_gradient_as_bucket_view ddp_static_graph log_tracker_name wandb_run_name log_tracker_config log_config
noise_offset noise_offset_random_strength multires_noise_iterations ip_noise_gamma ip_noise_gamma_random_strength
multires_noise_discount adaptive_noise_scale zero_terminal_snr min_timestep max_timestep loss_type huber_schedule
huber_c huber_scale lowram highvram sample_at_first prior_loss_weight conditioning_data_dir masked_loss deepspeed
zero_stage offload_optimizer_device offload_optimizer_nvme_path offload_param_device offload_param_nvme_path
zero3_init_flag zero3_save_16bit_model fp16_master_weights_and_gradients lr_scheduler_type lr_scheduler_args
lr_decay_steps lr_scheduler_power fused_backward_pass lr_scheduler_timescale lr_scheduler_min_lr_ratio min_snr_gamma
scale_v_pred_loss_like_noise_pred v_pred_like_loss debiased_estimation_loss weighted_captions
cpu_offload_checkpointing fp8_base_unet training_comment scale_weight_norms base_weights base_weights_multiplier
no_half_vae max_validation_steps disable_mmap_load_safetensors text_encoder_batch_size llm_adapter_path llm_adapter_lr
self_attn_lr cross_attn_lr mlp_lr mod_lr t5_tokenizer_path qwen3_max_token_length t5_max_token_length attn_mode
split_attn vae_chunk_size vae_disable_cache unsloth_offload_checkpointing controlnet_model_name_or_path
t5xxl_max_token_length apply_t5_attn_mask split_mode training_shift t5xxl_device t5xxl_dtype save_clip save_t5xxl
clip_l_dropout_rate clip_g_dropout_rate t5_dropout_rate apply_lg_attn_mask pos_emb_random_crop_rate
enable_scaled_pos_embed system_prompt gemma2_max_token_length use_flash_attn use_sage_attn sample_batch_size
fp8_scaled fp8_vl text_encoder_cpu
"""
)
"""The trainer's other options: keys of the table training.options."""
NETWORK_ARGS = words(
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
"""Arguments of --network_args."""
OPTIMIZER_ARGS = words(
    """
weight_decay betas eps momentum d_coef d0 decouple use_bias_correction safeguard_warmup relative_step scale_parameter
warmup_init
"""
)
ALIASES = _keys_by_name(
    {
        "training.text_encoders": "train_t5xxl",
        "network.blocks": "train_blocks train_block_indices train_double_block_indices train_single_block_indices",
        "network.layer_dims": "network_reg_dims",
        "network.layer_lrs": "network_reg_lrs",
        "network.exclude": "exclude_patterns",
        "network.include": "include_patterns",
        "network.dim": "rank lora_rank network_rank",
        "network.alpha": "lora_alpha",
        "network.conv_dim": "conv_dim conv_rank",
        "network.conv_alpha": "conv_alpha",
        "network.family": "algo lora_type",
        "network.tucker": "use_tucker use_cp",
        "network.bypass": "bypass_mode",
        "training.learning_rate": "lr",
        "training.text_encoder_lr": "te_lr text_lr",
        "training.lr_scheduler": "scheduler",
        "training.lr_warmup_steps": "warmup_steps lr_warmup",
        "training.lr_scheduler_num_cycles": "num_cycles",
        "training.steps": "max_steps train_steps",
        "training.epochs": "epoch epochs num_epochs num_train_epochs max_epochs",
        "training.gradient_accumulation_steps": "gradient_accumulation",
        "training.mixed_precision": "precision",
        "training.options.noise_offset": "noise_offset_strength",
        "training.options.min_snr_gamma": "snr_gamma min_snr",
        "dataset.batch_size": "batch batch_size",
        "dataset.resolution_classes": "max_resolution",
        "dataset.repeats": "num_repeats repeats",
        "dataset.sources.NAME.images": "image_dir train_data",
        "dataset.sources.NAME.trigger": "trigger trigger_word instance_token",
        "dataset.sources.NAME.class_tokens": "class_tokens class_token",
        "dataset.sources.NAME.regularization": "is_reg",
        "base.checkpoint": "model base_model ckpt",
        "base.architecture": "sdxl",
        "name": "output_name",
    }
)
"""Everyday words, and words of other programs."""
METADATA = _keys_by_name(
    {
        "base.architecture": "base_model_version",
        "dataset.batch_size": "batch_size_per_device total_batch_size num_batches_per_epoch",
        "dataset.resolution_classes": "bucket_info",
        "dataset.sources.NAME.images": "dataset_dirs datasets num_train_images",
        "dataset.sources.NAME.regularization": "reg_dataset_dirs num_reg_images",
        "dataset.sources.NAME.captions": "tag_frequency",
        "training.options.debiased_estimation_loss": "debiased_estimation",
        "training.optimizer": "optimizer",
        "training.steps": "steps",
        "base.checkpoint": "sd_model_name",
        "base.sha256": "sd_model_hash new_sd_model_hash",
        "base.vae": "vae_name",
        "base.vae_sha256": "vae_hash new_vae_hash",
    }
)
"""Metadata that sd-scripts names otherwise than its options."""
RESULTS = ("num_validation_images", "sd_scripts_commit_hash", "session_id", "training_started_at", "training_finished_at")
"""Metadata about a run, which no key sets."""
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
