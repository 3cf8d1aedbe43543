"""Settings of bmaltais' kohya_ss GUI, and their names in sd-scripts.

Source: kohya_gui/lora_gui.py of kohya_ss.
"""

from __future__ import annotations

from typing import Final

from orchestrator.recipe.trainer_names import words

PAGE: Final = {"LoRA_type", "network_dim", "network_alpha", "text_encoder_lr", "unet_lr"}
_CONV: Final = words("conv_dim conv_alpha")
_DROPOUT: Final = words("rank_dropout module_dropout")
_NATIVE: Final = words(
    "down_lr_weight mid_lr_weight up_lr_weight block_lr_zero_threshold block_dims block_alphas conv_block_dims"
    " conv_block_alphas rank_dropout module_dropout"
)
PLUS: Final = words("loraplus_lr_ratio loraplus_unet_lr_ratio loraplus_text_encoder_lr_ratio")
_SCALED: Final = (*_CONV, *_DROPOUT, "train_norm", "rank_dropout_scale")
_TUCKER: Final = (*_SCALED, "use_tucker", "bypass_mode", "dora_wd", "use_scalar")
# LoRA_type -> network_module, algo of LyCORIS, and the settings that become network_args.
TYPES: Final[dict[str, tuple[str, str, tuple[str, ...]]]] = {
    "standard": ("networks.lora", "", _NATIVE),
    "kohya locon": ("networks.lora", "", (*_CONV, *_NATIVE)),
    "lora-fa": ("networks.lora_fa", "", _NATIVE),
    "kohya dylora": ("networks.dylora", "", (*_CONV, *_NATIVE, "unit")),
    "kohya loha": ("networks.loha", "", (*_CONV, *_DROPOUT, "use_tucker")),
    "kohya lokr": ("networks.lokr", "", (*_CONV, *_DROPOUT, "use_tucker", "factor")),
    "locon": ("lycoris.kohya", "locon", _TUCKER),
    "lycoris/locon": ("lycoris.kohya", "locon", _TUCKER),
    "lycoris/loha": ("lycoris.kohya", "loha", _TUCKER),
    "lycoris/lokr": ("lycoris.kohya", "lokr", (*_TUCKER, "factor", "use_cp", "decompose_both")),
    "lycoris/dylora": ("lycoris.kohya", "dylora", (*_CONV, *_DROPOUT, "use_tucker", "unit", "train_norm")),
    "lycoris/glora": ("lycoris.kohya", "glora", (*_SCALED, "use_tucker")),
    "lycoris/diag-oft": ("lycoris.kohya", "diag-oft", (*_SCALED, "use_tucker", "constrain", "rescaled")),
    "lycoris/boft": ("lycoris.kohya", "boft", (*_SCALED, "use_tucker")),
    "lycoris/native fine-tuning": ("lycoris.kohya", "full", (*_DROPOUT, "rank_dropout_scale", "train_norm")),
    "lycoris/ia3": ("lycoris.kohya", "ia3", (*_CONV, "train_on_input")),
}
ARGUMENTS: Final = {*_TUCKER, *_NATIVE, *PLUS, *words("factor use_cp decompose_both unit constrain rescaled train_on_input")}
RENAMED: Final = {
    "optimizer": "optimizer_type",
    "lora_network_weights": "network_weights",
    "max_resolution": "resolution",
    "constrain": "constraint",
    "unit": "block_size",
    "sdxl_no_half_vae": "no_half_vae",
    "sdxl_cache_text_encoder_outputs": "cache_text_encoder_outputs",
}
# Read by name in kohya_gui; the other names are options of sd-scripts.
READ: Final = words(
    "LoRA_type max_resolution epoch lr_warmup additional_parameters sdxl v2 use_wandb LyCORIS_preset xformers"
    " text_encoder_lr t5xxl_lr unet_lr optimizer_args lr_scheduler_args lr_scheduler_num_cycles noise_offset_type"
)
# The script is chosen by the first of these that is on.
MODELS: Final = {
    "sdxl": ("sdxl", "SDXL"),
    "flux1_checkbox": ("flux", "FLUX.1"),
    "sd3_checkbox": ("sd3", "Stable Diffusion 3"),
    "hunyuan_image_checkbox": ("hunyuan_image", "HunyuanImage 2.1"),
    "anima_checkbox": ("anima", "Anima"),
    "lumina_checkbox": ("lumina", "Lumina Image 2.0"),
    "v2": ("sd2", "Stable Diffusion 2"),
}
# Arguments of the own network module of FLUX.1 and SD3.
OF_MODULE: Final = words(
    "train_blocks split_qkv train_t5xxl img_attn_dim img_mlp_dim img_mod_dim single_dim txt_attn_dim txt_mlp_dim txt_mod_dim"
    " single_mod_dim in_dims train_double_block_indices train_single_block_indices ggpo_sigma ggpo_beta"
)
# Settings without a prefix that it passes for some models only, by the first word of their training script.
OF_MODEL: Final = {
    "flux": words(
        "ae clip_l t5xxl t5xxl_lr model_type discrete_flow_shift model_prediction_type timestep_sampling split_mode"
        " train_blocks t5xxl_max_token_length enable_all_linear guidance_scale mem_eff_save apply_t5_attn_mask"
        " split_qkv train_t5xxl cpu_offload_checkpointing blocks_to_swap single_blocks_to_swap double_blocks_to_swap"
        " show_timesteps show_timesteps_resolution img_attn_dim img_mlp_dim img_mod_dim single_dim txt_attn_dim"
        " txt_mlp_dim txt_mod_dim single_mod_dim in_dims train_double_block_indices train_single_block_indices"
        " fp8_base_unet train_lora_ggpo ggpo_sigma ggpo_beta"
    ),
    "sd3": words(
        "clip_g t5xxl_lr clip_g_dropout_rate logit_mean logit_std mode_scale pos_emb_random_crop_rate save_clip save_t5xxl"
        " t5xxl_device t5xxl_dtype weighting_scheme blocks_to_swap show_timesteps show_timesteps_resolution"
    ),
    "anima": words("blocks_to_swap show_timesteps show_timesteps_resolution"),
    "lumina": words("blocks_to_swap show_timesteps show_timesteps_resolution"),
    "hunyuan_image": words("blocks_to_swap"),
}
OTHER_MODELS: Final = frozenset(name for passed in OF_MODEL.values() for name in passed)
# Prefixes of the settings of one model, by its architecture's training script; the longest first.
OTHER_PREFIXES: Final = {
    "flux1_": "flux",
    "sd3_": "sd3",
    "hunyuan_image_": "hunyuan_image",
    "hunyuan_": "hunyuan_image",
    "anima_": "anima",
    "lumina_": "lumina",
}
OWN_TYPES: Final = ("flux1", "sd3", "anima", "lumina", "hunyuanimage-2.1")
# Texts that files written by other programs and by hand have for values without quotes.
WORDS: Final = {"True": True, "true": True, "False": False, "false": False, "None": None, "null": None}
FILLED_IN: Final = 1e-4  # DEFAULT_UNET_LR of its interface
# Settings of the interface or the launcher, without influence on the training.
INTERFACE: Final = words(
    "model_list num_cpu_threads_per_process num_processes num_machines multi_gpu gpu_ids main_process_port dynamo_backend"
    " dynamo_mode dynamo_use_dynamic dynamo_use_fullgraph extra_accelerate_launch_args lowvram"
)
REMOVED: Final = words("stop_text_encoder_training conv_dims conv_alphas")
NOISE: Final = {
    "noise_offset": "Original",
    "adaptive_noise_scale": "Original",
    "noise_offset_random_strength": "Original",
    "multires_noise_iterations": "Multires",
    "multires_noise_discount": "Multires",
}
