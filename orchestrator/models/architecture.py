"""The description of one architecture of base models."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from orchestrator.models import file_kinds
from orchestrator.models.layer_choice import ALL_LAYERS, LayerChoice
from orchestrator.models.renderer import GEN_IMG, Renderer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from orchestrator.models.counterparts import Table
    from orchestrator.models.file_kinds import FileKind
    from orchestrator.models.layers import Model
    from orchestrator.models.orders import Order


CAPTION_CHANGES = (
    *("dataset.shuffle_caption", "dataset.caption_dropout_rate", "dataset.caption_dropout_every_n_epochs"),
    *("dataset.caption_tag_dropout_rate", "training.options.caption_tag_dropout_rate", "training.options.token_warmup_step"),
)
"""Recipe keys that change captions at every step."""


TENSORS = "tensors"
"""The trainer unpickles tensors only (weights_only, the default of torch since 2.6)."""
ANYTHING = "anything"
"""The trainer unpickles whatever a file holds (weights_only=False), so that it may run code."""


@dataclass(frozen=True, slots=True)
class CaptionLimit:
    """The number of tokens after which a text encoder's caption is cut off."""

    title: str
    """Name of the text encoder in messages."""
    tokens: int
    option: str
    """Option of the training script that changes the limit, or ""."""
    folder: str = ""
    """Folder below configs of sd-scripts with its tokenizer.json. Empty: that of CLIP, which this program has."""


CLIP_LIMIT = CaptionLimit("CLIP", 75, "max_token_length")


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A further file that the trainer needs, named by its option."""

    option: str
    """Option of the training script without dashes, and key of the recipe's base.files."""
    kind: FileKind
    """Its title in messages, and its tensors."""
    required: bool = True
    folder: bool = False
    """The trainer takes a model folder in its place."""
    pickles: str = ""
    """TENSORS or ANYTHING if the trainer takes a pickle in its place. Empty: .safetensors only."""
    lora_prefix: str = ""
    """Prefix of its layers in LoRA files. Empty: it has no LoRA."""


@dataclass(frozen=True, slots=True)
class Part:
    """Modules with a name of their own in block weights.

    They are inside a block, or outside of all.
    """

    block: str
    """The block whose weight they have where they are not named. "": they are outside of all blocks."""
    modules: str
    """Pattern of the beginning of their names with underscores."""
    title: str
    """Name in tables."""


@dataclass(frozen=True, slots=True)
class DepthVariant:
    """A variant of a base model with inserted blocks.

    No trainer here trains it.
    """

    name: str
    """Value of --to of the verb remap."""
    title: str
    blocks: int
    inserted: tuple[int, ...] | None
    """Numbers of the inserted blocks. None: no source states them."""
    source: str
    """Where the map was published, or the reason why there is none."""

    def block(self, number: int) -> int:
        """Return the number in the variant of a block of the base model.

        >>> DepthVariant("", "", 5, (1, 3), "").block(2)
        4
        """
        return [position for position in range(self.blocks) if position not in (self.inserted or ())][number]


@dataclass(frozen=True, slots=True)
class Architecture:
    """A kind of base model: its layers, blocks and trainer settings."""

    name: str
    """Value of base.architecture in a recipe."""
    title: str
    """Name in messages."""
    released: str
    """Year and month of its first weights, 2023-07. A file is compared with the latest architecture first."""
    trainer_script: str
    """Script of sd-scripts that trains it."""
    model: Model
    """The sizes that sd-scripts builds, regardless of the checkpoint's own configuration."""
    blocks: tuple[str, ...]
    """Names of all blocks, in the order of a full list of block weights."""
    short_blocks: tuple[str, ...]
    """Names of the blocks in a short list: those with attention. Equal to ``blocks`` where no tool has a short list."""
    presets: Mapping[str, tuple[float, ...]]
    """Named lists of block weights, one for each block."""
    block_of: Callable[[str], str | None]
    """Return the block of a module name with underscores, before it is looked up in ``blocks``."""
    checkpoint_names: tuple[str, ...]
    """Patterns of tensor names. All of them match in a checkpoint; a later architecture may have further ones."""
    modelspec: str
    """Value of modelspec.architecture before "/lora"."""
    base_model_version: str
    """Value of ss_base_model_version in the trainer's metadata."""
    checkpoint_title: str
    """Name of a checkpoint in messages."""
    civitai_base: str
    """Name of the base model on Civitai."""
    parts: Mapping[str, Part] = field(default_factory=dict)
    """Parts that block weights can name: text encoders where there are several, and others."""
    orders: Mapping[str, Order] = field(default_factory=dict)
    """Orders of lists of other tools."""
    outside: tuple[str, ...] = ()
    """Modules of LoRA files outside of all blocks, with underscores, that ``model`` does not list."""
    v_prediction: tuple[str, str] = ("", "")
    """``base_model_version`` and ``modelspec`` of a training with v_parameterization. Empty: the same."""
    civitai_derived: tuple[tuple[str, str], ...] = ()
    """Patterns of a checkpoint's name or source, in lower case, and the name of such a base model on Civitai."""
    webui_version: str = "Unknown"
    """Choice of "sd version" in the card editor of A1111 and Forge."""
    hub_tags: tuple[str, ...] = ()
    """Tags of a model card on the Hub."""
    diffusers: Table = field(default_factory=dict)
    """Layers of diffusers' transformer by the original's. Empty: a U-Net, whose names follow a rule."""
    comfy: tuple[tuple[str, str], ...] = ()
    """Parts of paths that ComfyUI names differently: (in the original, in ComfyUI)."""
    stability_names: bool = False
    """LoRA files name U-Net layers as Stability's code does (input_blocks_4_1_…), and not as diffusers does."""
    conv_projections: bool = False
    """Transformers are entered and left by 1x1 convolutions, and not by linear layers."""
    embedded: bool = False
    """The embedded engine trains it."""
    fixed_clip_skip: str = ""
    """The reason why the layer of the text encoder to read cannot be chosen, or ""."""
    trainer_switches: tuple[str, ...] = ()
    """Switches of the training script that select it."""
    network_module: str = "networks.lora"
    """sd-scripts' own network module for it, which the family lora stands for."""
    block_lists: int = 0
    """Number of values in lists of the network module such as block_dims. 0: it takes none."""
    ignored_options: tuple[str, ...] = ()
    """Options that the training script accepts and ignores."""
    rejected_options: Mapping[str, str] = field(default_factory=dict)
    """Options that the training script accepts and stops at, or that do less than their name, with the reason."""
    xformers: bool = True
    """The training script uses xformers where ``training.attention`` says so."""
    swappable_blocks: int = 0
    """Largest value of blocks_to_swap. 0: the training script has no such option."""
    uncached_captions: tuple[str, ...] = CAPTION_CHANGES
    """Recipe keys that change captions, and so exclude cached outputs of text encoders."""
    trained_beside_cache: tuple[str, ...] = ()
    """Text encoders that are trained although outputs are cached: only those of the others are."""
    disk_cache_only: str = ""
    """The reason why outputs of text encoders are cached on disk only, or ""."""
    cached_text_bytes: int = 0
    """Bytes of the cached outputs of one caption, in float32."""
    flow_shift: str = ""
    """Option of the training script for the shift of flow matching, or ""."""
    shifted_samplings: tuple[str, ...] = ("sigma", "shift")
    """Values of timestep_sampling that use the shift."""
    loss_weighting: bool = True
    """weighting_scheme weights the loss, whatever model_prediction_type says. False: with sigma_scaled only."""
    layer_choice: LayerChoice = ALL_LAYERS
    """Arguments of its own network module that choose layers and ranks."""
    lycoris: tuple[str, ...] | None = None
    """Families of LyCORIS that train it. None: all."""
    lycoris_preset: str = ""
    """The reason why LyCORIS needs a preset in the recipe, or ""."""
    lycoris_modules: tuple[str, ...] = ()
    """Classes of layers that such a preset names."""
    files: tuple[ModelFile, ...] = ()
    """Files that the trainer needs beside the checkpoint and the VAE of ``base.vae``."""
    vae: FileKind | None = file_kinds.KL_VAE
    """Kind of the file of ``base.vae``. None: the trainer ignores it."""
    needs_vae: bool = False
    """The checkpoint holds no VAE, so that ``base.vae`` is required."""
    takes_folder: bool = False
    """The trainer takes models in Diffusers layout, a folder, in place of a file."""
    pickles: str = ""
    """TENSORS or ANYTHING if the trainer takes a checkpoint that is a pickle. Empty: .safetensors only."""
    vae_pickles: str = ""
    """The same for the file of ``base.vae``."""
    shards: tuple[int, ...] | None = ()
    """Numbers of shards of a checkpoint that the trainer joins. None: any number. Empty: it takes one file."""
    prediction_type: str = "epsilon"
    """Value of modelspec.prediction_type. Empty: the entry is left out, since the specification has no name for it."""
    caption_limits: tuple[CaptionLimit, ...] = (CLIP_LIMIT,)
    """Limits of captions, for the text encoders that read whole captions and whose tokens can be counted."""
    tokenizers: tuple[str, ...] = ()
    """Folders below --tokenizer_cache_dir that the programs need to run offline."""
    bucket_step: int = 64
    """Smallest step between bucket sides that the trainer takes, in pixels."""
    resolution: int = 512
    """Usual side of training images, in pixels."""
    renderer: Renderer = GEN_IMG
    """Script of sd-scripts that draws prompts."""
    sample_line: Mapping[str, str] = field(default_factory=dict)
    """Option of a line of --sample_prompts for the keys guidance and flow_shift of ``render``, if the trainer reads them."""
    samples_need_autocast: bool = False
    """The trainer draws images in bf16, which weights in single precision do not take."""
    least_sample_seed: int = 0
    """Smallest seed with which the trainer draws images."""
    variants: tuple[DepthVariant, ...] = ()
    """Models with blocks inserted into this one, from the fewest blocks to the most."""

    @property
    def denoiser(self) -> str:
        """Return the kind of its denoising network, as people name it."""
        return "U-Net" if "MID" in self.blocks else "transformer"
