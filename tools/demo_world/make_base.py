"""Train the base model: VAE, text encoder and U-Net, unknown names."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

import torch

from tools.demo_world import train_names, train_unet, train_vae
from tools.demo_world.attributes import Scene, random_scene
from tools.demo_world.base_parts import load_base, new_base, save_base, save_part
from tools.demo_world.card import LearningCurve, card, table_of, with_row
from tools.demo_world.hogwild import HogwildSchedule, run
from tools.demo_world.named_characters import named_scene
from tools.demo_world.train_names import NamesTask
from tools.demo_world.train_unet import UnetTask
from tools.demo_world.train_vae import VaeTask, draw_scenes, encode_all, fit_scale

if TYPE_CHECKING:
    from pathlib import Path

    from tools.demo_world.base_parts import BaseParts

VAE_SHARE: Final = 0.25  # of the minutes
NAMES_SHARE: Final = 0.1
FIRST_SEED: Final = 1_000_000  # of the training images; tests use other seeds
NAMED_SHARE: Final = 4  # one image in 4 shows a named character


@dataclass(frozen=True, slots=True)
class BaseTraining:
    """Seed, minutes of wall clock on two cores, and number of images.

    With ``start``, the folder of a base, the VAE is unchanged, and text encoder and U-Net continue from their weights.
    """

    seed: int
    minutes: float
    images: int = 15_000
    start: Path | None = None


def scenes(count: int) -> list[Scene]:
    """Return the scenes to draw.

    The last NAMED_SHARE-th part shows named characters.
    """
    chosen: list[Scene] = []
    for seed in range(FIRST_SEED, FIRST_SEED + count):
        if seed - FIRST_SEED < count - count // NAMED_SHARE:
            chosen.append(random_scene(seed))
        else:
            chosen.append(named_scene(seed))
    return chosen


def make_base(training: BaseTraining, out: Path, work: Path, threads: int = 2) -> None:
    """Train a base and write it to ``out``.

    ``work`` keeps averaged weights and the VAE, which is trained once.
    """
    work.mkdir(parents=True, exist_ok=True)
    base = load_base(training.start) if training.start else new_base(work, training.seed)
    drawn = scenes(training.images)
    images = draw_scenes(drawn, threads)
    images.share_memory_()  # type: ignore[no-untyped-call]
    rows = table_of(training.start) if training.start else (_vae(base, training, images, work, threads),)
    latents = encode_all(base.vae.eval(), images)
    latents.share_memory_()  # type: ignore[no-untyped-call]
    del images
    minutes = training.minutes * (1 - NAMES_SHARE - (0.0 if training.start else VAE_SHARE))
    log = run(
        UnetTask(base, latents, drawn), HogwildSchedule(minutes, train_unet.RATE, threads, training.seed), work / "unet.pt"
    )
    save_base(base, out)
    name = "text encoder and U-Net" + (", from the weights above" if training.start else "")
    text = card(
        training.seed, training.minutes, (*rows, LearningCurve(minutes, log).row(name)), started=training.start is not None
    )
    (out / "README.md").write_text(text, encoding="utf-8")
    teach_names(out, BaseTraining(training.seed, training.minutes * NAMES_SHARE, training.images), work, threads)


def teach_names(folder: Path, training: BaseTraining, work: Path, threads: int = 2) -> None:
    """Train the text encoder of a base on unknown names.

    Updates the base and its card in ``folder``.
    """
    work.mkdir(parents=True, exist_ok=True)
    table_of(folder)  # raises if the base has no card
    base = load_base(folder)
    task = NamesTask(base, scenes(training.images))
    log = run(task, HogwildSchedule(training.minutes, train_names.RATE, threads, training.seed), work / "names.pt")
    save_part("text_encoder", base.text_encoder, folder)
    with_row(folder, LearningCurve(training.minutes, log).row("text encoder, unknown names"))


def _vae(base: BaseParts, training: BaseTraining, images: torch.Tensor, work: Path, threads: int) -> str:
    """Train the VAE unless ``work`` has it, and return its row of the card."""
    if (work / "vae-done.pt").exists():
        saved = torch.load(work / "vae-done.pt", weights_only=True)
        base.vae.load_state_dict(saved["weights"])
        return LearningCurve(**saved["course"]).row("VAE")
    minutes = training.minutes * VAE_SHARE
    log = run(VaeTask(base.vae, images), HogwildSchedule(minutes, train_vae.RATE, threads, training.seed), work / "vae.pt")
    fit_scale(base.vae, images[:2000])
    course = LearningCurve(minutes, log)
    torch.save({"weights": base.vae.state_dict(), "course": asdict(course)}, work / "vae-done.pt")
    return course.row("VAE")
