"""The loss on held-out images, at fixed noise and timesteps.

As in sd-scripts: four timesteps evenly inside the trained range, each image once, with the training's loss weights. A change
of the number comes from the network alone, because noise and latents are drawn from --validation_seed each time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from orchestrator.engines.embedded.trainer import images, loss, objective

if TYPE_CHECKING:
    from orchestrator.engines.embedded.trainer.images import ImageGroup
    from orchestrator.engines.embedded.trainer.run_state import TrainingRun

TIMESTEPS = 4


class Validator:
    """Measures a run's network on the images of its validation datasets."""

    def __init__(self, run: TrainingRun, groups: tuple[ImageGroup, ...]) -> None:
        self.run = run
        args = run.args
        self.seed = args.seed if args.validation_seed is None else args.validation_seed
        self.batches = [
            images.samples(members[start : start + group.dataset.batch_size], self.seed, start, epoch=1)
            for group in groups
            for members in group.by_bucket().values()
            for start in range(0, len(members), group.dataset.batch_size)
        ]
        least, most = args.min_timestep or 0, args.max_timestep or run.noise.timesteps
        self.timesteps = np.linspace(least, most, TIMESTEPS + 2, dtype=int)[1:-1].tolist()

    def due(self, step: int) -> bool:
        """Return whether the network is validated after this step."""
        every = self.run.args.validate_every_n_steps
        return bool(self.batches and every and step % every == 0)

    @torch.no_grad()
    def loss(self) -> float:
        """Return the mean loss over all held-out images and timesteps."""
        run = self.run
        network: Any = run.built.network
        network.eval()
        values: list[torch.Tensor] = []
        for number, samples in enumerate(self.batches):
            torch.manual_seed(images.derive(self.seed, "validation", number))
            latents = run.latents.batch(samples).repeat(TIMESTEPS, 1, 1, 1)
            noise = loss.draw_noise(latents, run.args.noise_offset)
            timesteps = torch.tensor(self.timesteps).repeat_interleave(len(samples)).to(latents.device)
            latents = latents.contiguous(memory_format=run.model.layout)
            values.append(objective.losses(run, samples * TIMESTEPS, latents, noise, timesteps))
        network.train()
        return float(torch.cat(values).mean())
