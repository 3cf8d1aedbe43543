"""Draw images of many prompts at once, each from its own seed.

Noise is drawn per image on the CPU, and a batch is always filled up to its full size, so an image is the same in every batch
up to the last bit.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import diffusers
import numpy as np
import torch
from PIL import Image

from orchestrator.engines.embedded.trainer.model import encode_text, tokens
from orchestrator.errors import Problem, RecipeError, near_miss

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from orchestrator.engines.embedded.trainer.model import DiffusionModel
    from orchestrator.engines.embedded.trainer.prompts import PromptLine

# By gen_img.py's names: diffusers' class, its extra settings, and the name in web UIs.
SAMPLERS: dict[str, tuple[str, dict[str, Any], str]] = {
    "ddim": ("DDIMScheduler", {"clip_sample": False, "set_alpha_to_one": False}, "DDIM"),
    "ddpm": ("DDPMScheduler", {"clip_sample": False}, "DDPM"),
    "pndm": ("PNDMScheduler", {"skip_prk_steps": True}, "PLMS"),
    "euler": ("EulerDiscreteScheduler", {}, "Euler"),
    "euler_a": ("EulerAncestralDiscreteScheduler", {}, "Euler a"),
    "heun": ("HeunDiscreteScheduler", {}, "Heun"),
    "dpm_2": ("KDPM2DiscreteScheduler", {}, "DPM2"),
    "dpm_2_a": ("KDPM2AncestralDiscreteScheduler", {}, "DPM2 a"),
    "dpmsolver++": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}, "DPM++ 2M"),
    "dpmsingle": ("DPMSolverSinglestepScheduler", {}, "DPM++ 2S"),
}
SAMPLERS |= {f"k_{name}": SAMPLERS[name] for name in ("euler", "euler_a", "dpm_2", "dpm_2_a")}
_KEPT = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "prediction_type")


def check_sampler(name: str) -> None:
    """Check that this engine has a sampler.

    Raises:
        RecipeError: it does not.
    """
    if name not in SAMPLERS:
        raise RecipeError(
            Problem("--sampler", f"{name} is unknown{near_miss(name, SAMPLERS)}", f"known: {', '.join(SAMPLERS)}")
        )


def draw(
    model: DiffusionModel, lines: Sequence[PromptLine], clip_skip: int | None, batch_size: int
) -> Iterator[tuple[PromptLine, Image.Image]]:
    """Draw every line in order.

    Consecutive lines with the same size and settings share batches.
    """
    start = 0
    while start < len(lines):
        end = start
        while end < len(lines) and end - start < batch_size and _batch_key(lines[start]) == _batch_key(lines[end]):
            end += 1
        batch = lines[start:end]
        yield from zip(batch, draw_batch(model, batch, clip_skip, batch_size), strict=True)
        start = end


def _batch_key(line: PromptLine) -> tuple[object, ...]:
    return (line.width, line.height, line.steps, line.scale, line.sampler)


@torch.inference_mode()
def draw_batch(model: DiffusionModel, lines: Sequence[PromptLine], clip_skip: int | None, size: int) -> list[Image.Image]:
    """Draw lines of equal settings as one batch filled up to ``size``.

    The lines share size, steps, scale and sampler.

    Raises:
        RecipeError: the size does not fit the model, or the sampler is unknown.
    """
    first = lines[0]
    check_sampler(first.sampler)
    cells = (first.height // model.reduction, first.width // model.reduction)
    if first.height % model.reduction or first.width % model.reduction:
        raise RecipeError(Problem("--w/--h", f"{first.width}x{first.height} is not a multiple of {model.reduction}"))
    filled = [*lines, *[first] * (size - len(lines))]
    scheduler = _scheduler(model, first.sampler, first.steps)
    generators = [torch.Generator("cpu").manual_seed(line.seed) for line in filled]
    channels = int(model.unet.config.in_channels)
    noise = torch.cat([torch.randn(1, channels, *cells, generator=generator) for generator in generators])
    latents = noise.to(model.device) * scheduler.init_noise_sigma
    guided = first.scale != 1.0
    text = _text(model, [line.prompt for line in filled], clip_skip)
    if guided:
        text = torch.cat([_text(model, [line.negative for line in filled], clip_skip), text])
    extra = {"generator": generators} if _is_random(scheduler) else {}
    for time in scheduler.timesteps:
        inputs = torch.cat([latents, latents]) if guided else latents
        inputs = scheduler.scale_model_input(inputs, time).contiguous(memory_format=torch.channels_last)
        prediction = model.unet(inputs, time, text, return_dict=False)[0]
        if guided:
            without, with_prompt = prediction.chunk(2)
            prediction = without + first.scale * (with_prompt - without)
        latents = scheduler.step(prediction, time, latents, return_dict=False, **extra)[0]
    decoded = model.vae.decode(latents / model.latent_scale, return_dict=False)[0]
    return [_image(value) for value in decoded[: len(lines)]]


def _text(model: DiffusionModel, captions: list[str], clip_skip: int | None) -> Tensor:
    unique = list(dict.fromkeys(captions))
    # One at a time, because the states of a caption must not depend on the number of others.
    encoded = torch.cat([encode_text(model, tokens(model, [caption]), clip_skip) for caption in unique])
    return encoded[[unique.index(caption) for caption in captions]]


def _scheduler(model: DiffusionModel, name: str, steps: int) -> Any:
    class_name, extra, _ = SAMPLERS[name]
    settings = {key: model.noise[key] for key in _KEPT if model.noise.get(key) is not None}
    # steps_offset 1 is Stable Diffusion's. Other schedulers do not have the setting.
    offset = {"steps_offset": 1} if name in {"ddim", "pndm"} else {}
    with warnings.catch_warnings():
        # diffusers 0.32.1 passes tensors to numpy 2 in a deprecated way. The numbers are right.
        warnings.filterwarnings("ignore", "__array", DeprecationWarning)
        scheduler = getattr(diffusers, class_name)(**settings, **extra, **offset)
        scheduler.set_timesteps(steps, device=model.device)
    return scheduler


def _is_random(scheduler: Any) -> bool:
    return (
        "generator" in scheduler.step.__wrapped__.__code__.co_varnames
        if hasattr(scheduler.step, "__wrapped__")
        else ("generator" in scheduler.step.__code__.co_varnames)
    )


def _image(value: Tensor) -> Image.Image:
    """Convert (3, h, w) of -1..1 to an image."""
    scaled = (value.float().cpu().clamp(-1, 1) + 1) * 127.5
    return Image.fromarray(np.asarray(scaled.round().to(torch.uint8).permute(1, 2, 0).contiguous()))
