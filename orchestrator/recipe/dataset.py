"""The [dataset] of a recipe: image sources, captions, training of images."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from orchestrator.recipe.base import Filled, Fraction, Name, Positive, Table

CaptionPart = Literal[
    "trigger", "tags", "background", "height", "direction", "framing", "pose", "clothing", "gaze", "expression"
]
Words = str | dict[str, str]
Colour = Annotated[str, Field(pattern=r"^#[0-9a-fA-F]{6}$")]


class Vocabulary(Table):
    """Words of a caption, by the view in a file name.

    f00 is the upper body, level, from the front.
    """

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
    """As pose; clothing that should not become part of the trigger word."""
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


class Source(Table):
    """One folder of original images."""

    images: Filled
    """Folder, or glob, relative to the project (program:data/others: of the program); originals are never changed."""
    reading: Literal["pictures", "charframework", "kohya"] = "pictures"
    """pictures: downscale to `sizes`; charframework: a folder as 4_krnk with folders as `krnk girl, short hair_f0512`,
    which may contain `_flip_` or `_noflip_`, as it is; kohya: a folder with N_name folders as it is."""
    trigger: str = ""
    """The word for the character in prompts; with reading = "charframework" unset: the first word of the folder."""
    class_tokens: str = ""
    """Caption of images without a caption file; part of the folder name."""
    tags: tuple[str, ...] = ()
    """Further tags of every caption of this source."""
    repeats: Positive | None = None
    """num_repeats of this source; unset: that of its folder's name, or dataset.repeats."""
    flip: bool | None = None
    """flip_aug of this source, false where left and right differ; unset: that of its folder's name, or dataset.flip_aug."""
    captions: Literal["view", "files", "fixed", "tagger", "alike"] = "view"
    """Of images without caption file or text: view: from the file name; files: trigger and tags; tagger: WD14-style model;
    fixed: trigger and tags for all, whatever lies beside; alike, of regularization: view if most captions of the subject are
    from views, else fixed."""
    caption_files: Annotated[str, Field(pattern=r"^\.[A-Za-z0-9]{1,12}$")] = ".txt"
    """Ending of the caption files beside the images. A caption file comes before everything but captions = "fixed"."""
    texts: dict[str, str] = {}
    """Whole captions by file name without ending, of images without a caption file."""
    background: Words | None = None
    """Instead of vocabulary.background."""
    background_color: Colour | None = None
    """Instead of dataset.background_color: white behind light hair, black behind dark hair."""
    sizes: tuple[Positive, ...] | None = None
    """Instead of dataset.sizes."""
    regularization: bool = False
    """Images of the class without the subject (is_reg); they take captions as any other source."""


class Dataset(Table):
    """From source images to training folders."""

    name: Name
    """Datasets with the same name and content are built once and shared by a subject's algorithms."""
    sources: dict[Name, Source] = {}
    sizes: tuple[Positive, ...] = ()
    """Widths in pixels to downscale every original to; never upscaled."""
    originals: bool = True
    """Also train on the originals."""
    downscale: Literal["lanczos", "area"] = "lanczos"
    """Filter for downscaling; area is the filter of sd-scripts."""
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
    """Share of the steps that train an image without its caption."""
    caption_dropout_every_n_epochs: Annotated[int, Field(ge=0)] = 0
    """Every n-th epoch without captions; 0: none."""
    caption_tag_dropout_rate: Fraction = 0.0
    """Share of the tags that are left out, chosen anew each time."""
    shuffle_caption: bool = False
    keep_tokens: Annotated[int, Field(ge=0)] = 0
    """Number of tags that stay in front when captions are shuffled or tags dropped."""
    background_color: Colour = "#ffffff"
    """Background of transparent originals."""
    vocabulary: Vocabulary = Vocabulary()
    tagger_model: str = ""
    """ONNX file for captions = "tagger" (extra `tagger`); its selected_tags.csv is beside it."""
    tagger_threshold: Fraction = 0.35
    tag_blacklist: tuple[str, ...] = ()
    """Tags that the tagger may not write."""
