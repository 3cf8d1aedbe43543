"""The description of a script of sd-scripts that draws prompts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

SAMPLERS = (
    *("ddim", "pndm", "lms", "euler", "euler_a", "heun", "dpm_2", "dpm_2_a", "dpmsolver", "dpmsolver++", "dpmsingle"),
    *("k_lms", "k_euler", "k_euler_a", "k_dpm_2", "k_dpm_2_a"),
)
"""Values of gen_img.py's --sampler and train_network.py's --sample_sampler (v0.10.1)."""

PATTERNS_WITHOUT_USE = dict.fromkeys(("include_patterns", "exclude_patterns"), "the script adds every module of the LoRA")
"""Their use is commented out in anima_minimal_inference.py and hunyuan_image_minimal_inference.py (v0.10.1)."""


@dataclass(frozen=True, slots=True)
class Renderer:
    """A script that draws prompts: its options, and its limits."""

    script: str
    """Path in the checkout of sd-scripts."""
    models: Mapping[str, str]
    """Option of each model file, without dashes: checkpoint, vae and the keys of ``base.files``."""
    output: str
    """Option of the folder for images."""
    lora: str = ""
    """Option of the LoRA file."""
    multiplier: str = ""
    """Option of the LoRA's strength. Empty: it stands after the file, behind a semicolon."""
    switches: tuple[str, ...] = ()
    """Options that select the architecture."""
    line: Mapping[str, str] = field(default_factory=dict)
    """Option of a prompt line for the keys scale, guidance and flow_shift of the table ``render``, if the script has them."""
    arguments: Mapping[str, str] = field(default_factory=dict)
    """Option of the script for those of these keys that a prompt line does not take."""
    precisions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Arguments of each ``render.precision``."""
    samplers: tuple[str, ...] = ("euler",)
    side_step: int = 8
    """Sides of images are multiples of this, in pixels."""
    dialog: bool = False
    """Prompts are typed in, after --interactive. False: they are read from a file."""
    last_line: str = ""
    """The line that ends the dialog."""
    unescapes: bool = False
    r"""Backslashes of a prompt are escapes, as in Python's "unicode_escape"."""
    scale_needs_negative: bool = False
    """Without a negative prompt ``render.scale`` has no effect."""
    trained: tuple[str, ...] = ()
    """Options of the trainer that the script takes too, since images are to be drawn as the LoRA was trained."""
    merges: bool = False
    """A LoRA is added to every layer of its names. False: it is loaded into the modules that the trainer's network has."""
    without_use: Mapping[str, str] = field(default_factory=dict)
    """Options that the script accepts without the effect of their name, and the reason."""
    drops_text_lora: bool = False
    """A LoRA of the text encoder has no effect on a model folder, only on a file."""


GEN_IMG = Renderer(
    script="gen_img.py",
    models={"checkpoint": "ckpt", "vae": "vae"},
    output="outdir",
    lora="network_weights",
    multiplier="network_mul",
    line={"scale": "l"},
    precisions={"no": (), "fp16": ("--fp16",), "bf16": ("--bf16",)},
    samplers=SAMPLERS,
    trained=("v_parameterization", "zero_terminal_snr"),
)
