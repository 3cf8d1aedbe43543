"""Generate the recipes of a new subject from folders of images (``new``).

Steps, repeats and block weights are those of the part of the type: face, body and group as in the release, style and object.
Existing files are never overwritten.
"""

from __future__ import annotations

import re
import shlex
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from orchestrator.dataset import lint
from orchestrator.dataset.lint import clip_tokens
from orchestrator.dataset.lint.findings import Finding, Level
from orchestrator.errors import Problem, RecipeError, near_miss
from orchestrator.importers import inspect_folder, new_base
from orchestrator.models import block_weights
from orchestrator.models.registry import DEFAULT
from orchestrator.plan.inputs import ProjectInputs
from orchestrator.recipe import compose, loader, schema, toml
from orchestrator.system import allowlist, settings
from orchestrator.system.digests import Digests

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from orchestrator.importers.inspect_folder import FolderSummary

SIZES: Final = (128, 192, 256, 384, 512, 768)
TYPES: Final = ("face", "body", "group", "style", "object")
ALGORITHMS: Final = ("lora3x3", "locon", "loha")
FEW: Final = 8
STEP: Final = 64  # sides of the trainer's buckets are multiples of this, in pixels
_LONGEST: Final = 120
_UNFIT: Final = re.compile(r"[^A-Za-z0-9_-]+")
# Facts about the release of 2023, not about a new LoRA.
_RELEASE_ONLY: Final = ("release.source", "release.version", "release.listed_size", "release.collection_title_ja")


@dataclass(frozen=True, slots=True)
class NewSubject:
    """Arguments of ``new``. Empty ones are suggested from the images."""

    name: str
    images: tuple[Path, ...]
    type: str = ""
    triggers: tuple[str, ...] = ()
    algorithms: tuple[str, ...] = ()
    """Empty: those of the release, or those that train the base model."""
    steps: int | None = None
    repeats: int | None = None
    base: str = ""


@dataclass(frozen=True, slots=True)
class GeneratedRecipes:
    """Files to write, names of the recipes, and notes on their values.

    ``files`` maps a path below recipes/ to a text.
    """

    files: dict[str, str]
    recipes: tuple[str, ...]
    notes: tuple[str, ...]
    outside: tuple[Path, ...] = ()
    """Folders outside the project that the user named. ``write`` allows recipes to read them."""


def generate(subject: NewSubject, root: Path) -> GeneratedRecipes:
    """Return recipes for the images of a subject, for the project at ``root``.

    Raises:
        RecipeError: unusable names or folders.
    """
    _check(subject)
    summaries = [inspect_folder.inspect(folder) for folder in subject.images]
    triggers = trigger_words(subject)
    kind = subject.type or inspect_folder.suggest_type(summaries)
    notes = [summary.describe() for summary in summaries]
    notes.append(f"type {kind}: {'--type' if subject.type else inspect_folder.explain_type(summaries)}")
    notes.append(_effort(subject, kind))
    noun = kind if kind in ("style", "object") else "character"
    sources = {
        name: inspect_folder.source_table(summary, trigger, noun, root, notes)
        for name, summary, trigger in zip(_source_names(triggers), summaries, triggers, strict=True)
    }
    part: dict[str, Any] = {"extends": [f"_base/{kind}"], "unset": list(_RELEASE_ONLY), "subject": subject.name}
    base = new_base.of(subject.base, _inputs(root)) if subject.base else new_base.NewBase({})
    algorithms = _trained(subject, base)
    if base.note:
        notes.append(base.note)
    if base.table and not base.part:
        part["base"] = base.table
        part["unset"] += ["base.vae", "expect", *base.unset]
    dataset: dict[str, Any] = {"name": subject.name}
    sizes = _sizes(summaries, base.sizes or SIZES, notes)
    if sizes != list(SIZES) and not base.part:
        dataset["sizes"] = sizes
    if subject.repeats is not None:
        dataset["repeats"] = subject.repeats
    part["dataset"] = {**dataset, "sources": sources}
    if subject.steps is not None:
        part["training"] = {"steps": subject.steps}
    part["release"] = {
        "collection": subject.name,
        "collection_title": f"LoRAs of {subject.name}",
        "title": subject.name,
        "keywords": list(triggers),
        "usage": f"Write {', '.join(triggers)} in the prompt, at weight 1.",
    }
    if not base.part:
        notes += _weights_note(kind)
    notes += _advice(summaries, triggers, reads_clip=base.reads_clip)
    count = sum(len(summary.stems) for summary in summaries)
    head = f"# {subject.name}: {count} images. Written by `orchestrator new`; edit it as you like."
    files = {f"_subjects/{subject.name}.toml": "\n".join([head, "", *toml.lines(part)]) + "\n"}
    names = tuple(f"{subject.name}-{algorithm}" for algorithm in algorithms)
    parts = _algorithms()
    for name, algorithm in zip(names, algorithms, strict=True):
        table: dict[str, Any] = {
            "extends": ["_base/release-2023-03", f"_algorithms/{algorithm}", f"_subjects/{subject.name}"],
            "summary": f"{subject.name}, {algorithm}",
        }
        if "block_weights" in parts[algorithm].get("unset", []):  # the subject has them
            table["unset"] = ["block_weights"]
        if base.part:  # after the subject, whose block weights are for SD1.5
            table["extends"].append(base.part)
            table |= {"unset": ["block_weights", "expect", *base.unset], "base": base.table}
            table |= {"network": base.network} if base.network else {}
            table |= {"dataset": {"sizes": sizes}} if sizes != list(base.sizes or SIZES) else {}
        head = f"# {subject.name} as {algorithm}.   Run:  orchestrator run {name}"
        files[f"{name}.toml"] = "\n".join([head, "", *toml.lines(table)]) + "\n"
    return GeneratedRecipes(files, names, tuple(notes), tuple(_outside(subject, root)))


def _effort(subject: NewSubject, kind: str) -> str:
    """Return steps and repeats, and their origin."""
    part = _part(kind)
    steps = f"{subject.steps} steps (--steps)" if subject.steps else f"{part['training']['steps']} steps"
    repeats = subject.repeats or part["dataset"]["repeats"]
    often = {1: "once", 2: "twice"}.get(repeats, f"{repeats} times")
    origin = "of the release" if kind in ("face", "body", "group") else "of recipes/_base"
    return f"{steps}, every image {often} an epoch; the part _base/{kind} {origin} sets the others"


def _weights_note(kind: str) -> list[str]:
    """Say which blocks the type leaves out of the file."""
    weights = _part(kind).get("block_weights", {}).get("sd1")
    if weights is None:
        return []
    parsed = block_weights.parse(tuple(weights), DEFAULT)
    notes = [
        f'block weights {parsed.preset} are baked into the file, as in the release; block_weights = "ALL" keeps all blocks'
    ]
    if weights[0] == 0:
        notes.append(
            "BASE = 0 among them leaves out the text encoder's part, though it is trained: the U-Net learns the trigger word"
        )
    return notes


def _part(kind: str) -> dict[str, Any]:
    return tomllib.loads((compose.library() / "_base" / f"{kind}.toml").read_text("utf-8"))


def _source_names(triggers: Sequence[str]) -> list[str]:
    """Return the names of sources: trigger words as file names."""
    return [_UNFIT.sub("-", trigger).strip("-") or f"source{number}" for number, trigger in enumerate(triggers, start=1)]


def _outside(subject: NewSubject, root: Path) -> Iterator[Path]:
    """Yield the folders outside the project that the user named."""
    base = Path(subject.base).expanduser()
    for folder in (*subject.images, *([base.parent] if base.is_absolute() and base.is_file() else [])):
        if not folder.resolve().is_relative_to(root.resolve()):
            yield folder


def _inputs(root: Path) -> ProjectInputs:
    return ProjectInputs(root, Digests(root / "runs" / "digests.json"), settings.model_folders())


def _trained(subject: NewSubject, base: new_base.NewBase) -> tuple[str, ...]:
    """Return the algorithms of the recipes.

    Raises:
        RecipeError: one of them does not train the base model.
    """
    chosen = subject.algorithms or base.algorithms or ALGORITHMS
    unfit = [algorithm for algorithm in chosen if base.algorithms and algorithm not in base.algorithms]
    if unfit:
        where = f"--algorithm {unfit[0]}"
        raise RecipeError(Problem(where, f"does not train {subject.base} here", f"{', '.join(base.algorithms)} does"))
    return chosen


def _sizes(summaries: Sequence[FolderSummary], usual: Sequence[int], notes: list[str]) -> list[int]:
    """Return those of the usual widths in pixels to which images are scaled down.

    Adds the reason to ``notes``.
    """
    widest = max(summary.widest for summary in summaries)
    flattest = min(height / width for summary in summaries for width, height in summary.sizes)
    sizes = [width for width in usual if width < widest and width * flattest >= STEP]
    if sizes != list(usual):
        why = f"the widest image has {widest} pixels"
        if usual[0] * flattest < STEP:
            why += f", and the flattest one, 1 : {1 / flattest:.1f}, needs a height of {STEP}"
        notes.append(f"sizes {sizes or 'none, only the originals'}: {why}")
    if sizes:
        copies = f"copies {', '.join(map(str, sizes))} pixels wide"
        origin = ", as in the release" if usual == SIZES else ""
        notes.append(f"every wider image is also trained as {copies}{origin}; sizes = [] trains the originals only")
    return sizes


def write(generated: GeneratedRecipes, root: Path) -> list[Path]:
    """Write the files below ``root/recipes`` and return their paths.

    Also the schema, for editors. Recipes may read the folders that the user named.

    Raises:
        RecipeError: one of them exists. Nothing was written.
    """
    recipes = root / "recipes"
    existing = [
        Problem(str(recipes / name), "exists already", "choose another name, or move it away")
        for name in generated.files
        if (recipes / name).exists()
    ]
    if existing:
        raise RecipeError(existing)
    for folder in generated.outside:
        allowlist.add(folder)
    recipes.mkdir(parents=True, exist_ok=True)
    if not (recipes / schema.FILE).exists():
        (recipes / schema.FILE).write_text(schema.dumps(), "utf-8")
    written: list[Path] = []
    for name, text in generated.files.items():
        path = recipes / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(toml.with_schema(text, path), "utf-8")
        written.append(path)
    return written


def _check(subject: NewSubject) -> None:
    problems: list[Problem] = []
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,59}", subject.name):
        plain = _UNFIT.sub("-", subject.name).strip("-") or "mychar"
        what = "is used in file names: letters, digits, - and _"
        problems.append(Problem(f"subject {subject.name}", what, f"for example {plain}"))
    for words in subject.triggers:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_ -]*(, *[A-Za-z0-9][A-Za-z0-9_ -]*)*", words) or len(words) > _LONGEST:
            what = f"is used in prompts: letters, digits, - and _, commas between words, at most {_LONGEST} letters"
            plain = _UNFIT.sub("-", words).strip("-") or "mychar"
            problems.append(Problem(f"--trigger {words}", what, f"for example {plain[:_LONGEST]}"))
    if subject.type and subject.type not in TYPES:
        problems.append(Problem(f"--type {subject.type}", f"no such type{near_miss(subject.type, TYPES)}", ", ".join(TYPES)))
    parts = _algorithms()
    problems += [
        Problem(f"--algorithm {algorithm}", f"no such algorithm{near_miss(algorithm, parts)}", ", ".join(parts))
        for algorithm in subject.algorithms
        if algorithm not in parts
    ]
    if subject.triggers and len(subject.triggers) not in (1, len(subject.images)):
        problems.append(
            Problem(
                "--trigger",
                f"{len(subject.triggers)} words for {len(subject.images)} folders",
                "one for each --images, in the same order",
            )
        )
    elif len(subject.images) > len(subject.triggers) == 1 and "," in subject.triggers[0]:
        apart = " ".join(f"--trigger {shlex.quote(word.strip())}" for word in subject.triggers[0].split(","))
        what = f"is one trigger of several words, for the first of {len(subject.images)} folders"
        problems.append(Problem(f"--trigger {subject.triggers[0]}", what, f"one for each --images: {apart}"))
    if not subject.images:
        problems.append(Problem("--images", "no folder of images", "orchestrator new SUBJECT --images DIR"))
    if problems:
        raise RecipeError(problems)


def _algorithms() -> dict[str, dict[str, Any]]:
    """Return the parts that define a network, by name.

    alpha1 and adafactor only change one.
    """
    files = sorted((compose.library() / "_algorithms").glob("*.toml"))
    tables = {path.stem: tomllib.loads(path.read_text("utf-8")) for path in files}
    return {name: table for name, table in tables.items() if "family" in table.get("network", {})}


def suggested_type(subject: NewSubject) -> str:
    """Return the type of a subject, or the one that its images suggest."""
    return subject.type or inspect_folder.suggest_type([inspect_folder.inspect(folder) for folder in subject.images])


def findings(generated: GeneratedRecipes, root: Path) -> list[Finding]:
    """Return the errors and warnings of the images of written recipes."""
    recipe = loader.recipe(root / "recipes", generated.recipes[0]).recipe
    report = lint.check(
        recipe.dataset, root, recipe.training, architecture=recipe.base.architecture, cache=lint.hash_cache(root)
    )
    return [finding for finding in report.findings if finding.level is not Level.NOTE]


def trigger_words(subject: NewSubject) -> list[str]:
    """Return one trigger word per folder.

    As given, or else the subject and the names of further folders.
    """
    if len(subject.triggers) == len(subject.images):
        return list(subject.triggers)
    words = [subject.triggers[0] if subject.triggers else subject.name.lower()]
    for folder in subject.images[1:]:
        word = _UNFIT.sub("", folder.resolve().name).lower() or "other"
        while word in words:
            word += "x"
        words.append(word)
    return words


def _advice(summaries: Sequence[FolderSummary], triggers: Sequence[str], *, reads_clip: bool) -> list[str]:
    notes: list[str] = []
    count = sum(len(summary.stems) for summary in summaries)
    if count < FEW:
        notes.append(f"{count} images are few: the release's faces have 12 to 15, from all sides")
    notes += [
        f"the trigger word {word!r} has a meaning to CLIP already; an invented word is learned more easily"
        for word in triggers
        if reads_clip and clip_tokens.common(clip_tokens.split(word)[0]) and len(clip_tokens.split(word)) == 1
    ]
    notes.append("flip_aug mirrors half of the images: set  flip = false  in a source whose left and right differ")
    return notes
