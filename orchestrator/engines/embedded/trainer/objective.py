"""The loss of some images: text, noise, prediction, weights."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

import torch

from orchestrator.engines.embedded.trainer import loss, model

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from orchestrator.engines.embedded.trainer.images import ImageSample
    from orchestrator.engines.embedded.trainer.run_state import TrainingRun


def losses(run: TrainingRun, samples: Sequence[ImageSample], latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """Return the weighted loss of each image at its timestep, (n,).

    Args:
        run: the network, the model and the arguments.
        samples: the n images with their captions.
        latents: scaled latents, (n, 4, h, w).
        noise: in the shape of the latents.
        timesteps: (n,).
    """
    args = run.args
    weights = [args.prior_loss_weight if sample.image.subset.is_reg else 1.0 for sample in samples]
    dtype = torch.bfloat16 if args.mixed_precision == "bf16" else torch.float16
    autocast = torch.autocast(latents.device.type, dtype) if args.mixed_precision != "no" else nullcontext()
    with autocast:
        run.built.network.rebuild()
        text = _encode_text(run, [sample.caption for sample in samples])
        noisy = run.noise.add(latents, noise, timesteps)
        prediction = run.model.unet(noisy, timesteps, text, return_dict=False)[0]
    target = run.noise.target(latents, noise, timesteps)
    result = loss.per_image(prediction, target, torch.tensor(weights).to(latents.device))
    if args.min_snr_gamma:
        result = loss.min_snr(result, run.noise, timesteps, args.min_snr_gamma)
    if args.debiased_estimation_loss:
        result = loss.debiased(result, run.noise, timesteps)
    return result


def _encode_text(run: TrainingRun, captions: list[str]) -> Tensor:
    """Encode each caption of a batch once.

    The run keeps the states where the text encoder does not train.
    """
    base, skip, states = run.model, run.args.clip_skip, run.text_states
    unique = list(dict.fromkeys(captions))
    if run.built.text_modules:
        encoded = model.encode_text(base, model.tokens(base, unique), skip)
        return encoded[[unique.index(caption) for caption in captions]]
    new = [caption for caption in unique if caption not in states]
    if new:
        with torch.no_grad():
            encoded = model.encode_text(base, model.tokens(base, new), skip)
        states.update(zip(new, encoded.unbind(0), strict=True))
    return torch.stack([states[caption] for caption in captions])
