"""The tables for a trained file: merge, resize, render, release, expect."""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from orchestrator.recipe.base import Name, Option, Positive, Rate, Table, Weight, WhereFilled, WhereSet

RankMethod = Literal["sv_ratio", "sv_fro", "sv_cumulative", "size_mb", "fixed"]
"""Methods that choose the ranks of a resize. All but ``fixed`` are keys of the recipe's table."""
RANK_KEYS: tuple[RankMethod, ...] = ("sv_ratio", "sv_fro", "sv_cumulative", "size_mb")
RankRule = Literal["2023", "sd-scripts-0.10"]


class Merge(Table):
    """How block weights are baked in."""

    zeroed: Literal["keep", "prune"] = "keep"
    """Modules with weight 0: keep zeroed tensors as in the release, or leave them out."""
    unmapped: Weight = 1.0
    """Weight of all that block_weights leave out: modules outside of all blocks (conv_out, time_embedding), and blocks that a
    short list or a table of names does not have."""
    order: Annotated[str, WhereFilled] = ""
    """Order of a list of another tool: lbw-61, inspire-58 or inspire-20 on FLUX; lbw-20, inspire-21 and others on SDXL."""
    compat: Literal["", "supermerger-2023"] = ""
    """Reproduce that tool's powers of the weight, to rebuild old fractional releases."""
    tool: Literal["orchestrator", "sd-scripts"] = "orchestrator"
    """sd-scripts: networks/svd_merge_lora.py --lbws, which factors anew and loses some precision."""
    options: dict[str, Option] = {}
    """Further options of that program (new_rank, precision, device, …), checked against its parser."""


class Resize(Table):
    """Compression by rank.

    Exactly one of sv_ratio, sv_fro, sv_cumulative, size_mb, or new_rank alone.
    """

    sv_ratio: Annotated[float, Field(ge=1)] | None = None
    """Keep singular values above the largest divided by this."""
    sv_fro: Annotated[float, Field(gt=0, le=1)] | None = None
    sv_cumulative: Annotated[float, Field(gt=0, le=1)] | None = None
    size_mb: Annotated[float, Field(gt=0)] | None = None
    new_rank: Positive | None = None
    """Cap of every rank."""
    new_conv_rank: Positive | None = None
    rank_rule: RankRule = "2023"
    save_precision: Literal["float", "fp16", "bf16"] = "fp16"
    tool: Literal["orchestrator", "sd-scripts"] = "orchestrator"
    """sd-scripts: networks/resize_lora.py, which takes minutes."""
    options: dict[str, Option] = {}
    """Further options of that program (device), checked against its parser."""

    def methods(self) -> dict[RankMethod, float]:
        """Return the values of the set methods. A valid table has one at most."""
        values = {name: getattr(self, name) for name in RANK_KEYS}
        return {name: value for name, value in values.items() if value is not None}


class Prompt(Table):
    """One column of the grid."""

    prompt: str
    """{trigger} stands for all trigger words."""
    label: str = ""
    negative: str | None = None
    seed: Annotated[int, Field(ge=0, lt=2**32)] | None = None
    width: Positive | None = None
    height: Positive | None = None


class DrawnPrompt(NamedTuple):
    """A prompt with its trigger words and all values of its image."""

    text: str
    label: str
    negative: str
    seed: int
    width: int
    height: int


class Render(Table):
    """Sample images of the finished file."""

    prompts: dict[Name, Prompt] = {}
    negative: str = ""
    width: Positive = 512
    height: Positive = 512
    steps: Positive = 28
    scale: Rate = 7.0
    """Classifier-free guidance: 1 is none."""
    guidance: Annotated[Rate | None, WhereSet] = None
    """Distilled guidance of FLUX.1-dev and Chroma; unset: the script's own."""
    flow_shift: Annotated[Rate | None, WhereSet] = None
    """Shift of the timesteps of a flow matching model; unset: the script's own."""
    sampler: str = "euler_a"
    multiplier: float = 1.0
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 1
    batch_size: Positive = 1
    precision: Literal["no", "fp16", "bf16"] = "fp16"
    options: Annotated[dict[str, Option], WhereFilled] = {}
    """Further options of the script that draws (offload, vae_chunk_size, …), checked against its parser."""

    @property
    def enlargement(self) -> int:
        """Return the factor by which grids enlarge small images."""
        return max(1, 256 // self.width)

    def sides(self) -> dict[str, int]:
        """Return all set widths and heights in pixels, by dotted key."""
        tables: dict[str, Render | Prompt] = {"render": self}
        tables |= {f"render.prompts.{name}": prompt for name, prompt in self.prompts.items()}
        sides = {f"{where}.{key}": getattr(table, key) for where, table in tables.items() for key in ("width", "height")}
        return {key: side for key, side in sides.items() if side is not None}


class Select(Table):
    """Saved steps of the training: those that are drawn, kept, released."""

    steps: Literal["all"] | tuple[Positive, ...] = ()
    """Saved steps that `run` draws as a grid: "all", or their numbers; unset: none."""
    step: Positive | None = None
    """The saved step that is merged, drawn and released; unset: the choice of the verb `select`, else the last step."""
    reason: str = ""
    """Why that step, for card and manifest."""
    keep: Positive | None = None
    """Keep the last n saved steps only; unset: all."""
    free_prompts: Positive | None = None
    """Prompts to draw without the trigger words, for the freedom of `select`; unset: as many as fill the last batch."""


class Region(Table):
    """One part of an image with several characters.

    Latent Couple and Regional Prompter take such parts.
    """

    prompt: str
    """Prompt of this region."""
    label: str = ""
    """Location, as `left half`; unset: the region's name."""
    label_ja: str = ""


class Release(Table):
    """Texts of the card and the metadata, and files of the release."""

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
    """Name of the prompt whose image is NAME.png; unset: the first."""
    regions: dict[Name, Region] = {}
    """For a LoRA with several characters: the prompt of each region, in order. Also part of the usage text."""
    civitai: bool = True
    """Write NAME.civitai.info, which browsers of models in the web UIs read."""
    repository: str = ""
    """OWNER/NAME on the Hugging Face Hub, where `push` puts the bundle."""
    templates: str = ""
    """Folder, relative to the project, with README.md.j2 and others to use instead of the card's own templates."""


class Expect(Table):
    """Known numbers of a released file, which plan and result are to match."""

    tensor_bytes: Positive | None = None
    """Sum of the tensors' bytes after training."""
    modules: Positive | None = None
