"""``new``: from folders of pictures to the recipes of a subject; what was seen, what is proposed, and why.

Proposals follow the rule of the release: a face trains 1000 steps with every picture 4 times, a body 1200 with 2, a group
1600 with 1; body and group take the block weights BODY, a face FACE. Nothing that exists is overwritten.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from orchestrator.errors import Problem, RecipeError, near_miss
from orchestrator.importers import inspect_folder
from orchestrator.recipe import compose, toml

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SIZES: Final = (128, 192, 256, 384, 512, 768)
TYPES: Final = ("face", "body", "group")
ALGORITHMS: Final = ("lora3x3", "locon", "loha")
FEW: Final = 8
STEP: Final = 64  # sides of the trainer's buckets are multiples of this, in pixels
_UNFIT: Final = re.compile(r"[^A-Za-z0-9_-]+")
# Of the release of 2023, and not true of anybody else's LoRA.
_NOT_THEIRS: Final = ("release.source", "release.version", "release.listed_size", "release.collection_title_ja")


@dataclass(frozen=True, slots=True)
class Wish:
    """What a person asked for; what is empty is proposed."""

    subject: str
    images: tuple[Path, ...]
    type: str = ""
    triggers: tuple[str, ...] = ()
    algorithms: tuple[str, ...] = ALGORITHMS
    steps: int | None = None
    repeats: int | None = None
    base: str = ""


@dataclass(frozen=True, slots=True)
class Proposal:
    """The files to write (path below recipes/ -> text), the names of the recipes, and why they say what they say."""

    files: dict[str, str]
    recipes: tuple[str, ...]
    notes: tuple[str, ...]


def propose(wish: Wish, root: Path) -> Proposal:
    """Return recipes for the pictures of a wish, for the project at ``root``.

    Raises:
        RecipeError: names that cannot be used, or folders that cannot.
    """
    _check(wish)
    seen = [inspect_folder.look(folder) for folder in wish.images]
    triggers = trigger_words(wish)
    kind = wish.type or inspect_folder.kind_of(seen)
    notes = [inspect_folder.says(one) for one in seen]
    if not wish.type:
        notes.append(f"type {kind}: {inspect_folder.why(seen, kind)}")
    sources = {trigger: inspect_folder.source(one, trigger, root, notes) for one, trigger in zip(seen, triggers, strict=True)}
    part: dict[str, Any] = {"extends": [f"_base/{kind}"], "unset": list(_NOT_THEIRS), "subject": wish.subject}
    if wish.base:
        part["base"] = {"checkpoint": wish.base}
        part["unset"] += ["base.vae", "expect"]
    dataset: dict[str, Any] = {"name": wish.subject}
    widest = max(one.widest for one in seen)
    flattest = min(height / width for one in seen for width, height in one.sizes)
    sizes = [width for width in SIZES if width < widest and width * flattest >= STEP]
    if sizes != list(SIZES):
        dataset["sizes"] = sizes
        why = f"the widest picture has {widest} pixels"
        if SIZES[0] * flattest < STEP:
            why += f", and the flattest one, 1 : {1 / flattest:.1f}, must be {STEP} high"
        notes.append(f"sizes {sizes or 'none, only the originals'}: {why}")
    if wish.repeats is not None:
        dataset["repeats"] = wish.repeats
    part["dataset"] = {**dataset, "sources": sources}
    if wish.steps is not None:
        part["training"] = {"steps": wish.steps}
    usage = f"Write {', '.join(triggers)} in the prompt, at weight 1."
    part["release"] = {
        "collection": wish.subject,
        "collection_title": f"LoRAs of {wish.subject}",
        "title": wish.subject,
        "keywords": list(triggers),
        "usage": usage,
    }
    notes += _advice(seen, triggers)
    count = sum(len(one.stems) for one in seen)
    head = f"# {wish.subject}: {count} pictures. Written by `orchestrator new`; it is yours to change."
    files = {f"_subjects/{wish.subject}.toml": "\n".join([head, "", *toml.lines(part)]) + "\n"}
    names = tuple(f"{wish.subject}-{algorithm}" for algorithm in wish.algorithms)
    known = _algorithms()
    for name, algorithm in zip(names, wish.algorithms, strict=True):
        table: dict[str, Any] = {
            "extends": ["_base/release-2023-03", f"_algorithms/{algorithm}", f"_subjects/{wish.subject}"],
            "summary": f"{wish.subject}, {algorithm}",
        }
        if "block_weights" in known[algorithm].get("unset", []):  # the subject has them
            table["unset"] = ["block_weights"]
        head = f"# {wish.subject} as {algorithm}.   Run:  orchestrator run {name}"
        files[f"{name}.toml"] = "\n".join([head, "", *toml.lines(table)]) + "\n"
    return Proposal(files, names, tuple(notes))


def write(proposal: Proposal, root: Path) -> list[Path]:
    """Write the files below ``root/recipes`` (and the schema, for editors); return their paths.

    Raises:
        RecipeError: one of them exists; nothing was written.
    """
    from orchestrator.recipe import schema  # noqa: PLC0415 - pydantic, only now

    recipes = root / "recipes"
    standing = [
        Problem(str(recipes / name), "exists already", "choose another name, or move it away")
        for name in proposal.files
        if (recipes / name).exists()
    ]
    if standing:
        raise RecipeError(standing)
    recipes.mkdir(parents=True, exist_ok=True)
    if not (recipes / toml.SCHEMA).exists():
        (recipes / toml.SCHEMA).write_text(schema.dumps(), "utf-8")
    written: list[Path] = []
    for name, text in proposal.files.items():
        path = recipes / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(toml.pretty(text, path), "utf-8")
        written.append(path)
    return written


def _check(wish: Wish) -> None:
    problems: list[Problem] = []
    for what, name in [("subject", wish.subject), *(("--trigger", one) for one in wish.triggers)]:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,59}", name):
            plain = _UNFIT.sub("-", name).strip("-") or "mychar"
            problems.append(
                Problem(
                    f"{what} {name}",
                    "becomes a file name and a word of prompts: letters, digits, - and _",
                    f"for example {plain}",
                )
            )
    if wish.type and wish.type not in TYPES:
        problems.append(Problem(f"--type {wish.type}", f"no such type{near_miss(wish.type, TYPES)}", ", ".join(TYPES)))
    known = _algorithms()
    problems += [
        Problem(f"--algorithm {one}", f"no such algorithm{near_miss(one, known)}", ", ".join(known))
        for one in wish.algorithms
        if one not in known
    ]
    if wish.triggers and len(wish.triggers) not in (1, len(wish.images)):
        problems.append(
            Problem(
                "--trigger",
                f"{len(wish.triggers)} words for {len(wish.images)} folders",
                "one for each --images, in the same order",
            )
        )
    if not wish.images:
        problems.append(Problem("--images", "no folder of pictures", "orchestrator new SUBJECT --images DIR"))
    if problems:
        raise RecipeError(problems)


def _algorithms() -> dict[str, dict[str, Any]]:
    """Return the parts that make a network, by name: not those that only change one (alpha1) or its optimizer (adafactor)."""
    files = sorted((compose.library() / "_algorithms").glob("*.toml"))
    tables = {path.stem: tomllib.loads(path.read_text("utf-8")) for path in files}
    return {name: table for name, table in tables.items() if "family" in table.get("network", {})}


def trigger_words(wish: Wish) -> list[str]:
    """Return one trigger word per folder: as asked; else the subject for the first and the folders' names for the others."""
    if len(wish.triggers) == len(wish.images):
        return list(wish.triggers)
    words = [wish.triggers[0] if wish.triggers else wish.subject.lower()]
    for folder in wish.images[1:]:
        word = _UNFIT.sub("", folder.resolve().name).lower() or "other"
        while word in words:
            word += "x"
        words.append(word)
    return words


def _advice(seen: Sequence[inspect_folder.Seen], triggers: Sequence[str]) -> list[str]:
    from orchestrator.dataset.lint import clip_tokens  # noqa: PLC0415 - half a megabyte of merges

    found: list[str] = []
    count = sum(len(one.stems) for one in seen)
    if count < FEW:
        found.append(f"{count} pictures are few: 12 to 15 from all sides made the release's faces")
    found += [
        f"the trigger word {word!r} means something to CLIP already; a made-up one is learned more easily"
        for word in triggers
        if clip_tokens.common(clip_tokens.split(word)[0]) and len(clip_tokens.split(word)) == 1
    ]
    found.append("flip_aug mirrors half of the pictures: set  flip = false  in a source whose left and right differ")
    return found
