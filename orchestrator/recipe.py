"""What a recipe is. Data only: nothing here reads a file, and nothing in a recipe names Python.

Every model is frozen, strict and refuses unknown keys. The string below a field describes it in the JSON Schema
(schema.py), from which editors complete; units are part of the description.
"""

from __future__ import annotations

import os
from typing import Annotated, Literal

# Before the import: looking for plugins of pydantic reads the metadata of every installed package, 30 ms for nothing.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Sha256 = Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")]
# Names become folders, file names and make targets.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,99}$")]
Scalar = bool | int | float | str
Option = Scalar | tuple[Scalar, ...]

Family = Literal["lora", "locon", "loha", "lokr", "dylora", "glora", "full", "diag-oft", "boft"]
Architecture = Literal["sd1", "sdxl"]


class Part(BaseModel):
    """Base of every table of a recipe: frozen, strict, unknown keys refused."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class Base(Part):
    """The checkpoint that the LoRA is trained on."""

    architecture: Architecture = "sd1"
    """Chooses train_network.py or sdxl_train_network.py, and the block tables."""
    checkpoint: str
    """File name searched in the configured model folders, a path, or `embedded` for the base this project ships."""
    sha256: Sha256 = ""
    """SHA-256 of the checkpoint; empty: any content is accepted and its digest is recorded."""
    vae: str = ""
    """Separate VAE file; empty: the one inside the checkpoint."""
    vae_sha256: Sha256 = ""
    """SHA-256 of the VAE file."""
    clip_skip: Annotated[int, Field(ge=1, le=12)] = 1
    """Use the text encoder's output of the n-th layer from the end."""
    url: str = ""
    """Public source, `hf:owner/name/file` for `fetch-base`."""
    license: str = ""
    """Licence of the checkpoint, as its author states it."""


CaptionPart = Literal[
    "trigger", "tags", "background", "height", "direction", "framing", "pose", "clothing", "gaze", "expression"
]
Words = str | dict[str, str]
Colour = Annotated[str, Field(pattern=r"^#[0-9a-fA-F]{6}$")]


class Vocabulary(Part):
    """The words of a caption, by the view that a file name states (f00: upper body, level, front)."""

    height: dict[str, str] = {}
    """First digit: 0 level, 1 from above, 2 from below."""
    direction: dict[str, str] = {}
    """Second digit: 0 front, then 45 degrees counter-clockwise each, 1..7; `other` for digits not listed."""
    framing: dict[str, str] = {}
    """First letter: f upper body, b full body."""
    gaze: dict[str, str] = {}
    """By the second digit; `other` for digits not listed."""
    pose: Words = ""
    """Words of every view, or by the second digit (`other` for digits not listed)."""
    clothing: Words = ""
    """As pose; what should not become part of the trigger word."""
    expression: Words = ""
    """As pose: a face is not seen from behind."""
    background: Words = ""
    """As pose."""
    order: tuple[CaptionPart, ...] = (
        "trigger",
        "tags",
        "background",
        "height",
        "direction",
        "framing",
        "pose",
        "clothing",
        "gaze",
        "expression",
    )
    """The order of the parts in a caption; a part that is not listed is left out."""


class Source(Part):
    """One folder of original pictures."""

    images: str
    """Folder, or glob, relative to the project; originals are never changed."""
    reading: Literal["pictures", "charframework", "kohya"] = "pictures"
    """pictures: downscale to `sizes`; charframework: a folder as 4_krnk with folders as `krnk girl, short hair_f0512`,
    which may contain `_flip_` or `_noflip_`, as it is; kohya: a folder with N_name folders as it is."""
    trigger: str = ""
    """The word that will call the character; with reading = "charframework" unset: the first word of the folder."""
    class_tokens: str = ""
    """What sd-scripts uses for images without a caption file; part of the folder name."""
    tags: tuple[str, ...] = ()
    """Further tags of every caption of this source."""
    repeats: Positive | None = None
    """num_repeats of this source; unset: that of its folder's name, or dataset.repeats."""
    flip: bool | None = None
    """flip_aug of this source, false where left and right differ; unset: that of its folder's name, or dataset.flip_aug."""
    captions: Literal["view", "files", "fixed", "tagger"] = "view"
    """view: from the file name; files: the text beside each image; fixed: trigger and tags only; tagger: WD14-style model."""
    caption_files: Annotated[str, Field(pattern=r"^\.[A-Za-z0-9]{1,12}$")] = ".txt"
    """Ending of the caption files that captions = "files" reads."""
    texts: dict[str, str] = {}
    """Whole captions by file name without ending; they win over `captions`."""
    background: Words | None = None
    """Instead of vocabulary.background."""
    background_color: Colour | None = None
    """Instead of dataset.background_color: white behind light hair, black behind dark hair."""
    sizes: tuple[Positive, ...] | None = None
    """Instead of dataset.sizes."""
    regularization: bool = False
    """Images of the class without the subject (is_reg); they take captions as any other source."""


class Dataset(Part):
    """From source images to what the trainer sees."""

    name: Name
    """Datasets with the same name and content are built once and shared by a subject's algorithms."""
    sources: dict[Name, Source] = {}
    sizes: tuple[Positive, ...] = ()
    """Widths in pixels to downscale every original to; never upscaled."""
    originals: bool = True
    """Also train on the originals."""
    downscale: Literal["lanczos", "area"] = "lanczos"
    """Filter for downscaling; area is what sd-scripts itself uses."""
    resolution_classes: tuple[Positive, ...] = (512, 768, 1024)
    """One [[datasets]] per class; each side of an image goes to the smallest class that holds it, or the largest."""
    batch_size: dict[str, Positive] = {"default": 1}
    """By class as WxH, `default` for the others."""
    batch_table: Literal["own", "12GB"] = "own"
    """12GB: 4 for 512x512, 3 for 768x512, 2 for 768x768 and 1024x512, else 1 (either way round), instead of `batch_size`."""
    repeats: Positive = 1
    color_aug: bool = False
    flip_aug: bool = False
    random_crop: bool = False
    enable_bucket: bool = True
    bucket_no_upscale: bool = False
    bucket_reso_steps: Positive = 64
    min_bucket_reso: Positive = 256
    max_bucket_reso: Positive = 1024
    caption_extension: str = ".txt"
    caption_dropout_rate: Fraction = 0.0
    """Share of the steps that train a picture without its caption."""
    caption_dropout_every_n_epochs: Annotated[int, Field(ge=0)] = 0
    """Every n-th epoch without captions; 0: none."""
    caption_tag_dropout_rate: Fraction = 0.0
    """Share of the tags that are left out, anew each time."""
    shuffle_caption: bool = False
    keep_tokens: Annotated[int, Field(ge=0)] = 0
    """So many tags stay in front when captions are shuffled or tags dropped."""
    background_color: Colour = "#ffffff"
    """Stands behind transparent originals."""
    vocabulary: Vocabulary = Vocabulary()
    tagger_model: str = ""
    """ONNX file for captions = "tagger" (extra `tagger`); its selected_tags.csv stands beside it."""
    tagger_threshold: Fraction = 0.35
    tag_blacklist: tuple[str, ...] = ()
    """Tags that the tagger may not write."""


class Preset(Part):
    """Which modules LyCORIS trains; written to a file and passed as network_args preset=FILE."""

    enable_conv: bool = True
    unet_target_module: tuple[str, ...] = ()
    unet_target_name: tuple[str, ...] = ()
    text_encoder_target_module: tuple[str, ...] = ()
    text_encoder_target_name: tuple[str, ...] = ()


class Network(Part):
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
    args: dict[str, Scalar] = {}
    """Further network_args, checked against what the family takes."""
    weights: str = ""
    """Continue from this file (network_weights)."""


class Training(Part):
    """One run of the trainer."""

    steps: Positive
    """max_train_steps: optimizer steps."""
    learning_rate: Rate | None = None
    text_encoder_lr: Rate | None = None
    unet_lr: Rate | None = None
    optimizer: str
    optimizer_args: dict[str, Option] = {}
    lr_scheduler: str = "constant"
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
    save_every_n_steps: Positive | None = None
    """Also save the LoRA every n steps."""
    state_every_n_steps: Positive | None = None
    """Save a state to resume from every n steps; unset: a stopped run starts again."""
    keep_states: Positive = 1
    sample_every_n_steps: Positive | None = None
    """Draw the recipe's prompts while training, every n steps."""
    log_prefix: str = ""
    wandb: bool = False
    """Log to W&B too; its key comes from the environment only."""
    options: dict[str, Option] = {}
    """Further options of the trainer, checked against the pinned commit's own parser."""


class Guards(Part):
    """What ends or delays a training that goes wrong."""

    stall_seconds: Positive = 900
    """Without a progress frame for this long, the run is reported as stalled."""
    max_loss: Annotated[float, Field(gt=0)] = 10.0
    """A mean loss above this has exploded."""
    retry: tuple[dict[str, Scalar], ...] = ()
    """Tried once, in order, after a NaN: training keys to change, as {mixed_precision = "bf16"}; the card says so."""
    min_free_mb: Annotated[int, Field(ge=0)] = 500
    """With less free disk than this, in MB, a running training is paused until there is room again."""
    zero_delta: Literal["stop", "warn"] = "stop"
    """A trained file in which every zero-initialized factor is still zero has learned nothing."""
    constant_image: Literal["stop", "warn"] = "warn"
    """A sample of one colour, as NaN in a VAE gives."""
    slow_factor: Annotated[float, Field(gt=1)] = 5.0
    """Steps this many times slower than the fastest stretch are reported: GPU memory may have spilled."""
    max_gpu_celsius: Positive = 90
    """A GPU hotter than this, in degrees Celsius, is reported (asked of nvidia-smi, if there is one)."""


class Merge(Part):
    """How block weights are baked in."""

    zeroed: Literal["keep", "prune"] = "keep"
    """Modules with weight 0: zeroed tensors as in the release, or left out."""
    unmapped: float = 1.0
    """Weight of modules that stand in no block (conv_out, time_embedding)."""
    compat: Literal["", "supermerger-2023"] = ""
    """Reproduce that tool's powers of the weight, to rebuild old fractional releases."""
    tool: Literal["orchestrator", "sd-scripts"] = "orchestrator"


class Resize(Part):
    """Compression by rank. Exactly one of sv_ratio, sv_fro, sv_cumulative, size_mb, or new_rank alone."""

    sv_ratio: Annotated[float, Field(ge=1)] | None = None
    """Keep singular values above the largest divided by this."""
    sv_fro: Annotated[float, Field(gt=0, le=1)] | None = None
    sv_cumulative: Annotated[float, Field(gt=0, le=1)] | None = None
    size_mb: Annotated[float, Field(gt=0)] | None = None
    new_rank: Positive | None = None
    """Cap of every rank."""
    new_conv_rank: Positive | None = None
    rank_rule: Literal["2023", "sd-scripts-0.10"] = "2023"
    save_precision: Literal["float", "fp16", "bf16"] = "fp16"
    tool: Literal["orchestrator", "sd-scripts"] = "orchestrator"


class Prompt(Part):
    """One column of the grid."""

    prompt: str
    """{trigger} stands for all trigger words."""
    label: str = ""
    negative: str | None = None
    seed: Annotated[int, Field(ge=0, lt=2**32)] | None = None
    width: Positive | None = None
    height: Positive | None = None


class Render(Part):
    """Sample images of the finished file."""

    prompts: dict[Name, Prompt] = {}
    negative: str = ""
    width: Positive = 512
    height: Positive = 512
    steps: Positive = 28
    scale: Rate = 7.0
    sampler: str = "euler_a"
    multiplier: float = 1.0
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 1
    batch_size: Positive = 1
    precision: Literal["no", "fp16", "bf16"] = "fp16"


class Region(Part):
    """One part of a picture with several characters (Latent Couple, regional prompter), and what stands there."""

    prompt: str
    """What to write for this region."""
    label: str = ""
    """Where it is, as `left half`; unset: the region's name."""
    label_ja: str = ""


class Release(Part):
    """What the file and the card say."""

    title: str = ""
    title_ja: str = ""
    description: str = ""
    description_ja: str = ""
    collection: str = ""
    """Name of the release that several recipes form together."""
    collection_title: str = ""
    collection_title_ja: str = ""
    author: str = ""
    source: str = ""
    version: str = ""
    license: str = ""
    tags: tuple[str, ...] = ()
    keywords: tuple[str, ...] = ()
    """Trigger words in the order people type them; unset: those of the dataset."""
    usage: str = ""
    usage_ja: str = ""
    rating: Annotated[int, Field(ge=0, le=5)] = 0
    preferred_weight: float = 1.0
    scrub: bool = True
    """Remove folder names and local paths from the metadata."""
    plain_copy: bool = False
    """Also release an exact plain LoCon for programs that refuse lora_mid."""
    listed_size: str = ""
    """Size as an earlier card lists it, for comparison."""
    cover: str = ""
    """Name of the prompt whose picture is NAME.png; unset: the first."""
    regions: dict[Name, Region] = {}
    """For a LoRA with several characters: the prompt of each region, in order. Also drawn into the usage text."""
    civitai: bool = True
    """Write NAME.civitai.info, which browsers of models in the web UIs read."""
    repository: str = ""
    """OWNER/NAME on the Hugging Face Hub, where `push` puts the bundle."""
    templates: str = ""
    """Folder, relative to the project, with README.md.j2 and others to use instead of the card's own templates."""


class Expect(Part):
    """What is known of a released file; checked against the plan and against the result."""

    tensor_bytes: Positive | None = None
    """Sum of the tensors' bytes after training."""
    modules: Positive | None = None


class Recipe(Part):
    """One LoRA, from images to a released file."""

    name: Name
    summary: str
    subject: Name
    algorithm: Name
    type: Literal["face", "body", "group", "style", "object"] = "face"
    engine: Literal["sd-scripts", "embedded"]
    base: Base
    dataset: Dataset
    network: Network
    training: Training
    guards: Guards = Guards()
    block_weights: str | tuple[float, ...] | None = None
    """Preset name (FACE, BODY), or the weights of BASE, IN00..OUT11: 26 or 17 values on SD1, 20 or 12 on SDXL."""
    merge: Merge = Merge()
    resize: Resize | None = None
    render: Render = Render()
    release: Release = Release()
    expect: Expect = Expect()

    def triggers(self) -> tuple[str, ...]:
        """Return the trigger words, in the order of release.keywords or of the sources; regularization calls nobody."""
        if self.release.keywords:
            return self.release.keywords
        words = (source.trigger for source in self.dataset.sources.values() if source.trigger and not source.regularization)
        return tuple(dict.fromkeys(words))
