"""Drawing pictures: many prompts at once, each from its own seed, the same whatever else is drawn with it.

Noise is drawn per picture on the CPU, and a batch is always filled up to its full size, so a picture does not depend on its
company even in the last bit.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import diffusers
import numpy as np
import torch
from PIL import Image

from orchestrator.engines.embedded.trainer import model as models
from orchestrator.errors import Problem, RecipeError, near_miss

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from orchestrator.engines.embedded.trainer.model import Model
    from orchestrator.engines.embedded.trainer.prompts import Line

# gen_img.py's names -> diffusers' class, its extra settings, and the name that web UIs know.
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
    """Raise a RecipeError for a sampler that this engine does not have."""
    if name not in SAMPLERS:
        raise RecipeError(
            Problem("--sampler", f"{name} is unknown{near_miss(name, SAMPLERS)}", f"known: {', '.join(SAMPLERS)}")
        )


def draw(model: Model, lines: Sequence[Line], clip_skip: int | None, batch_size: int) -> Iterator[tuple[Line, Image.Image]]:
    """Draw every line, in order; lines that follow each other with the same size and settings share batches."""
    start = 0
    while start < len(lines):
        end = start
        while end < len(lines) and end - start < batch_size and _together(lines[start]) == _together(lines[end]):
            end += 1
        batch = lines[start:end]
        yield from zip(batch, draw_batch(model, batch, clip_skip, batch_size), strict=True)
        start = end


def _together(line: Line) -> tuple[object, ...]:
    return (line.width, line.height, line.steps, line.scale, line.sampler)


@torch.inference_mode()
def draw_batch(model: Model, lines: Sequence[Line], clip_skip: int | None, size: int) -> list[Image.Image]:
    """Draw lines that share size, steps, scale and sampler, as one batch filled up to ``size``.

    Raises:
        RecipeError: the size does not fit the model, or the sampler is unknown.
    """
    first = lines[0]
    check_sampler(first.sampler)
    cells = (first.height // model.reduction, first.width // model.reduction)
    if first.height % model.reduction or first.width % model.reduction:
        raise RecipeError(Problem("--w/--h", f"{first.width}x{first.height} is no multiple of {model.reduction}"))
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
        given = torch.cat([latents, latents]) if guided else latents
        given = scheduler.scale_model_input(given, time).contiguous(memory_format=torch.channels_last)
        answer = model.unet(given, time, text, return_dict=False)[0]
        if guided:
            without, with_prompt = answer.chunk(2)
            answer = without + first.scale * (with_prompt - without)
        latents = scheduler.step(answer, time, latents, return_dict=False, **extra)[0]
    decoded = model.vae.decode(latents / model.latent_scale, return_dict=False)[0]
    return [_image(value) for value in decoded[: len(lines)]]


def _text(model: Model, captions: list[str], clip_skip: int | None) -> Tensor:
    different = list(dict.fromkeys(captions))
    # One at a time: what a caption becomes must not depend on how many others there are.
    encoded = torch.cat([models.encode_text(model, models.tokens(model, [caption]), clip_skip) for caption in different])
    return encoded[[different.index(caption) for caption in captions]]


def _scheduler(model: Model, name: str, steps: int) -> Any:
    kind, extra, _ = SAMPLERS[name]
    kept = {key: model.noise[key] for key in _KEPT if model.noise.get(key) is not None}
    # steps_offset 1 is Stable Diffusion's; schedulers that do not know it ignore nothing: they are not given it.
    offset = {"steps_offset": 1} if name in {"ddim", "pndm"} else {}
    with warnings.catch_warnings():
        # diffusers 0.32.1 hands tensors to numpy 2 in a way that numpy will stop taking some day; the numbers are right.
        warnings.filterwarnings("ignore", "__array", DeprecationWarning)
        scheduler = getattr(diffusers, kind)(**kept, **extra, **offset)
        scheduler.set_timesteps(steps, device=model.device)
    return scheduler


def _is_random(scheduler: Any) -> bool:
    return (
        "generator" in scheduler.step.__wrapped__.__code__.co_varnames
        if hasattr(scheduler.step, "__wrapped__")
        else ("generator" in scheduler.step.__code__.co_varnames)
    )


def _image(value: Tensor) -> Image.Image:
    """(3, h, w) of -1..1 -> a picture."""
    scaled = (value.float().cpu().clamp(-1, 1) + 1) * 127.5
    return Image.fromarray(np.asarray(scaled.round().to(torch.uint8).permute(1, 2, 0).contiguous()))
