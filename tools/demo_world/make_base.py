"""Makes the base model: draws the world, trains the VAE, then text encoder and U-Net, then what unknown names mean."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

import torch

from tools.demo_world import train_names, train_unet, train_vae
from tools.demo_world.attributes import Scene, random_scene
from tools.demo_world.base_parts import load_base, new_base, save_base, save_part
from tools.demo_world.card import Course, card, table_of, with_row
from tools.demo_world.hogwild import Schedule, run
from tools.demo_world.named_characters import resident_scene
from tools.demo_world.train_names import NamesTask
from tools.demo_world.train_unet import UnetTask
from tools.demo_world.train_vae import VaeTask, draw_scenes, encode_all, fit_scale

if TYPE_CHECKING:
    from pathlib import Path

    from tools.demo_world.base_parts import Base

VAE_SHARE: Final = 0.25  # of the minutes
NAMES_SHARE: Final = 0.1
FIRST_SEED: Final = 1_000_000  # of the training pictures; the probe and the tests use others
RESIDENT_SHARE: Final = 4  # one picture in so many shows a resident


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a base is made: random seed, minutes of wall clock on two cores, how many pictures are drawn.

    With ``start``, the folder of a base, its VAE stays and its text encoder and U-Net go on from their weights.
    """

    seed: int
    minutes: float
    pictures: int = 15_000
    start: Path | None = None


def scenes(count: int) -> list[Scene]:
    """Return the scenes to draw; the last RESIDENT_SHARE-th part with a resident."""
    chosen: list[Scene] = []
    for seed in range(FIRST_SEED, FIRST_SEED + count):
        if seed - FIRST_SEED < count - count // RESIDENT_SHARE:
            chosen.append(random_scene(seed))
        else:
            chosen.append(resident_scene(seed))
    return chosen


def make_base(recipe: Recipe, out: Path, work: Path, threads: int = 2) -> None:
    """Train a base and write it to ``out``; ``work`` keeps the VAE, which is not trained again, and the averaged weights."""
    work.mkdir(parents=True, exist_ok=True)
    base = load_base(recipe.start) if recipe.start else new_base(work, recipe.seed)
    drawn = scenes(recipe.pictures)
    pictures = draw_scenes(drawn, threads)
    pictures.share_memory_()  # type: ignore[no-untyped-call]
    rows = table_of(recipe.start) if recipe.start else (_vae(base, recipe, pictures, work, threads),)
    latents = encode_all(base.vae.eval(), pictures)
    latents.share_memory_()  # type: ignore[no-untyped-call]
    del pictures
    minutes = recipe.minutes * (1 - NAMES_SHARE - (0.0 if recipe.start else VAE_SHARE))
    log = run(UnetTask(base, latents, drawn), Schedule(minutes, train_unet.RATE, threads, recipe.seed), work / "unet.pt")
    save_base(base, out)
    name = "text encoder and U-Net" + (", from the weights above" if recipe.start else "")
    text = card(recipe.seed, recipe.minutes, (*rows, Course(minutes, log).row(name)), started=recipe.start is not None)
    (out / "README.md").write_text(text, encoding="utf-8")
    teach_names(out, Recipe(recipe.seed, recipe.minutes * NAMES_SHARE, recipe.pictures), work, threads)


def teach_names(folder: Path, recipe: Recipe, work: Path, threads: int = 2) -> None:
    """Train what unknown names mean, in the base that is in ``folder``; its text encoder and card are written anew."""
    work.mkdir(parents=True, exist_ok=True)
    table_of(folder)  # it is a base with a card
    base = load_base(folder)
    task = NamesTask(base, scenes(recipe.pictures))
    log = run(task, Schedule(recipe.minutes, train_names.RATE, threads, recipe.seed), work / "names.pt")
    save_part("text_encoder", base.text_encoder, folder)
    with_row(folder, Course(recipe.minutes, log).row("text encoder, unknown names"))


def _vae(base: Base, recipe: Recipe, pictures: torch.Tensor, work: Path, threads: int) -> str:
    """Train the VAE, unless ``work`` has it; return its row of the card."""
    if (work / "vae-done.pt").exists():
        known = torch.load(work / "vae-done.pt", weights_only=True)
        base.vae.load_state_dict(known["weights"])
        return Course(**known["course"]).row("VAE")
    minutes = recipe.minutes * VAE_SHARE
    log = run(VaeTask(base.vae, pictures), Schedule(minutes, train_vae.RATE, threads, recipe.seed), work / "vae.pt")
    fit_scale(base.vae, pictures[:2000])
    course = Course(minutes, log)
    torch.save({"weights": base.vae.state_dict(), "course": asdict(course)}, work / "vae-done.pt")
    return course.row("VAE")
