"""The tables for training: base model, network, trainer, guards."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from orchestrator.models.registry import ArchitectureName
from orchestrator.recipe.base import (
    Family,
    Filled,
    Fraction,
    Option,
    Positive,
    Rate,
    Scalar,
    Sha256,
    Table,
    WhereFilled,
    WhereSet,
)

SMALL = "embedded"
"""Name of the demo's small base model in recipes."""


class BaseFile(Table):
    """A file that the trainer needs beside the checkpoint."""

    file: Filled
    """File name searched in the configured model folders, or a path."""
    sha256: Sha256 = ""
    """SHA-256 of the file; empty: any content is accepted and its digest is recorded."""


class Base(Table):
    """The checkpoint that the LoRA is trained on."""

    architecture: ArchitectureName = "sd1"
    """Chooses the training script, its network module and the block tables."""
    checkpoint: Filled
    """File name searched in the configured model folders, a path, or `embedded` for the base model of this project."""
    sha256: Sha256 = ""
    """SHA-256 of the checkpoint; empty: any content is accepted and its digest is recorded."""
    vae: str = ""
    """Separate VAE file; empty: the one inside the checkpoint."""
    vae_sha256: Sha256 = ""
    """SHA-256 of the VAE file."""
    files: dict[str, BaseFile] = {}
    """Further files by their option of the training script, as qwen3 of Anima: text encoders and autoencoders."""
    clip_skip: Annotated[int, Field(ge=1, le=12)] = 1
    """Use the text encoder's output of the n-th layer from the end."""
    url: str = ""
    """Public source, `hf:owner/name/file` for `fetch-base`."""
    license: str = ""
    """Licence of the checkpoint, as its author states it."""

    @property
    def is_small(self) -> bool:
        """Return whether it is the demo's small base model."""
        return self.checkpoint == SMALL


class Preset(Table):
    """Modules that LyCORIS trains.

    A file holds them, which is passed as network_args preset=FILE.
    """

    enable_conv: bool = True
    unet_target_module: tuple[str, ...] = ()
    unet_target_name: tuple[str, ...] = ()
    text_encoder_target_module: tuple[str, ...] = ()
    text_encoder_target_name: tuple[str, ...] = ()


class Network(Table):
    """The LoRA that is trained."""

    family: Family
    """lora is sd-scripts' own networks.lora; the others are algorithms of LyCORIS."""
    dim: Positive
    alpha: Annotated[float, Field(gt=0)]
    conv_dim: Positive | None = None
    """Rank of the 3x3 convolutions; unset: they are not trained."""
    conv_alpha: Annotated[float, Field(gt=0)] | None = None
    dropout: Fraction | None = None
    tucker: bool = False
    """LyCORIS use_tucker: 3x3 convolutions get a core of their own (lora_mid, hada_t1, hada_t2)."""
    bypass: bool = False
    """LyCORIS bypass_mode: add up(down(x)) instead of rebuilding the weight, which in fp16 loses most of a small delta."""
    preset: Preset | None = None
    blocks: Annotated[tuple[str, ...], WhereFilled] = ()
    """Blocks that sd-scripts' own network of a transformer trains, as ["D00-D09", "S12"]; empty: all."""
    layer_dims: Annotated[dict[str, Annotated[int, Field(ge=0)]], WhereFilled] = {}
    """Ranks by pattern (regular expression) of layer names, instead of dim; 0 leaves layers out. The first match counts."""
    layer_lrs: Annotated[dict[str, Rate], WhereFilled] = {}
    """Learning rates by pattern of layer names, instead of unet_lr; 0 leaves them untrained. The first match counts."""
    exclude: Annotated[tuple[str, ...], WhereFilled] = ()
    """Patterns of whole layer names to leave out, as ".*mlp.*"; Anima only."""
    include: Annotated[tuple[str, ...], WhereFilled] = ()
    """Patterns of whole layer names that are trained although they are left out by default; Anima only."""
    args: dict[str, Scalar] = {}
    """Further network_args, checked against what the family takes."""
    weights: str = ""
    """Continue from this file (network_weights)."""


class Validation(Table):
    """The loss on originals that are not trained.

    Exactly one of split and images.
    """

    split: Annotated[float, Field(gt=0, le=0.5)] | None = None
    """Share of each source's originals to hold out, at least one in all."""
    images: tuple[str, ...] = ()
    """Originals to hold out, as SOURCE/NAME without ending; * stands for any text."""
    every_n_steps: Positive | None = None
    """Validate every n steps; unset: where the LoRA is saved, else ten times."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of the choice of images and of the noise (validation_seed)."""

    def choice(self) -> dict[str, Any]:
        """Return the values that decide which images are held out, as JSON."""
        return {"split": self.split, "images": list(self.images), "seed": self.seed}


class Training(Table):
    """One run of the trainer."""

    steps: Positive = 0
    """max_train_steps: optimizer steps. Exactly one of steps and epochs."""
    epochs: Positive | None = None
    """max_train_epochs: passes over all images with their repeats, instead of steps."""
    learning_rate: Rate | None = None
    text_encoder_lr: Rate | tuple[Rate, ...] | None = None
    unet_lr: Rate | None = None
    optimizer: Filled
    optimizer_args: dict[str, Option] = {}
    lr_scheduler: Filled = "constant"
    lr_scheduler_num_cycles: Positive | None = None
    lr_warmup_steps: Annotated[int, Field(ge=0)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    mixed_precision: Literal["no", "fp16", "bf16"] = "no"
    save_precision: Literal["float", "fp16", "bf16"] = "fp16"
    gradient_checkpointing: bool = False
    gradient_accumulation_steps: Positive | None = None
    attention: Literal["sdpa", "xformers", "none"] = "sdpa"
    cache_latents: Literal["no", "memory", "disk"] = "no"
    data_loader_workers: Annotated[int, Field(ge=0)] = 2
    persistent_workers: bool = False
    max_grad_norm: Rate | None = None
    train: Literal["both", "unet", "text_encoder"] = "both"
    text_encoders: Annotated[tuple[str, ...] | None, WhereSet] = None
    """Text encoders that are trained, as ["clip_l", "t5xxl"] on FLUX.1; unset: those that the script trains by default."""
    cache_text_encoder_outputs: Annotated[Literal["no", "memory", "disk"], Field(exclude_if=lambda value: value == "no")] = (
        "no"
    )
    """Encode captions once; excludes what changes captions, and training of the cached text encoders."""
    blocks_to_swap: Annotated[Positive | None, WhereSet] = None
    """Number of transformer blocks that wait in RAM: less GPU memory, more time."""
    fp8_base: Annotated[bool, WhereFilled] = False
    """Keep the base model in 8 bits: half the GPU memory of bf16."""
    torch_compile: Annotated[bool, WhereFilled] = False
    """Compile the network: a slow start, then faster steps."""
    timestep_sampling: Annotated[
        Literal["sigma", "uniform", "sigmoid", "shift", "flux_shift", "nextdit_shift"] | None, WhereSet
    ] = None
    """How flow matching draws the noise of a step; unset: as the architecture's script does."""
    sigmoid_scale: Annotated[float | None, Field(gt=0), WhereSet] = None
    """Spread of sigmoid, shift and flux_shift; larger is more uniform."""
    flow_shift: Annotated[float | None, Field(gt=0), WhereSet] = None
    """More than 1 trains noisier steps (composition), less than 1 cleaner ones (details)."""
    guidance_scale: Annotated[Rate | None, WhereSet] = None
    """The guidance that a distilled model (FLUX.1-dev, Chroma) is given."""
    model_prediction_type: Annotated[Literal["raw", "additive", "sigma_scaled"] | None, WhereSet] = None
    """How the output of the network is read."""
    weighting_scheme: Annotated[
        Literal["none", "uniform", "sigma_sqrt", "logit_normal", "mode", "cosmap"] | None, WhereSet
    ] = None
    """logit_normal and mode change the noise that sigma sampling draws, sigma_sqrt and cosmap the weight of the loss."""
    logit_mean: Annotated[float | None, WhereSet] = None
    """Mean of logit_normal."""
    logit_std: Annotated[float | None, Field(gt=0), WhereSet] = None
    """Standard deviation of logit_normal."""
    mode_scale: Annotated[float | None, WhereSet] = None
    """Scale of mode."""
    save_every_n_steps: Positive | None = None
    """Also save the LoRA every n steps."""
    state_every_n_steps: Positive | None = None
    """Save a state to resume from every n steps; unset: a stopped run starts again."""
    keep_states: Positive = 1
    sample_every_n_steps: Positive | None = None
    """Draw the recipe's prompts while training, every n steps."""
    validation: Validation | None = None
    """Hold originals out and measure the loss on them."""
    log_prefix: str = ""
    wandb: bool = False
    """Log to W&B too; its key comes from the environment only."""
    options: dict[str, Option] = {}
    """Further options of the trainer, checked against the pinned commit's own parser."""

    @property
    def caches_on_disk(self) -> bool:
        """Return whether the trainer writes caches beside the images."""
        return "disk" in {self.cache_latents, self.cache_text_encoder_outputs}

    @property
    def relative_step(self) -> bool:
        """Return whether Adafactor finds its own rates.

        It does so by default, and always with warmup_init.
        """
        args = self.optimizer_args
        return self.optimizer.lower() == "adafactor" and bool(args.get("relative_step", True) or args.get("warmup_init"))

    @property
    def validation_interval(self) -> int | None:
        """Return the steps between validations, None without validation."""
        if self.validation is None:
            return None
        return self.validation.every_n_steps or self.save_every_n_steps or max(1, self.steps // 10)

    def rates(self) -> list[float]:
        """Return the learning rates of the trained parts.

        1.0 for an optimizer that finds its own.
        """
        general = self.learning_rate
        own = self.text_encoder_lr
        text = own if isinstance(own, tuple) else (general if own is None else own,)
        unet = (general if self.unet_lr is None else self.unet_lr,)
        trained = {"both": (*text, *unet), "text_encoder": text, "unet": unet}[self.train]
        return [1.0 if rate is None else rate for rate in trained]


class Guards(Table):
    """Limits that stop or pause a training."""

    stall_seconds: Positive = 900
    """Without a progress frame for this long, the run is reported as stalled."""
    max_loss: Annotated[float, Field(gt=0)] = 10.0
    """A mean loss above this has exploded."""
    retry: tuple[dict[str, Scalar], ...] = ()
    """Tried once, in order, after a NaN, an explosion or a file that learned nothing: training keys to change, as
    {mixed_precision = "bf16"}. Record and card list them."""
    min_free_mb: Annotated[int, Field(ge=0)] = 500
    """With less free disk than this, in MB, a running training is paused until there is room again."""
    zero_delta: Literal["stop", "warn"] = "stop"
    """A trained file in which every zero-initialized factor is still zero has learned nothing."""
    constant_image: Literal["stop", "warn"] = "warn"
    """A sample of one colour, as NaN in a VAE gives."""
    slow_factor: Annotated[float, Field(gt=1)] = 5.0
    """Steps this many times slower than the fastest stretch are a collapse: GPU memory may have spilled."""
    slow: Literal["stop", "warn"] = "warn"
    """On a collapse of the pace: stop the run, which keeps its last state, or warn."""
    max_gpu_celsius: Positive = 90
    """A GPU hotter than this, in degrees Celsius, is hot (as nvidia-smi reports)."""
    hot: Literal["pause", "warn"] = "warn"
    """On heat: pause the run until the GPU is 5 degrees below, or warn."""
    max_gpu_memory: Annotated[float, Field(gt=0, le=1)] = 0.97
    """A GPU with more than this share of its memory in use is full: Windows and WSL then use RAM, many times slower."""
    full: Literal["stop", "warn"] = "warn"
    """On a full GPU: stop the run, which keeps its last state, or warn."""
