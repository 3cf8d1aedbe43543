"""Generate the recipes of a new subject from folders of images (``new``).

Steps, repeats and block weights are those of the part of the type: face, body and group as in the release, style and object.
Existing files are never overwritten.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from orchestrator.dataset import lint
from orchestrator.dataset.lint.findings import Finding, Level
from orchestrator.errors import Problem, RecipeError
from orchestrator.importers import inspect_folder, new_base, subject_notes, subject_options
from orchestrator.importers.subject_options import UNFIT
from orchestrator.plan.inputs import ProjectInputs
from orchestrator.recipe import loader, schema, toml
from orchestrator.system import allowlist, settings
from orchestrator.system.digests import Digests

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from orchestrator.importers.inspect_folder import FolderSummary
    from orchestrator.importers.subject_options import NewSubject

SIZES: Final = (128, 192, 256, 384, 512, 768)
ALGORITHMS: Final = ("lora3x3", "locon", "loha")
STEP: Final = 64  # sides of the trainer's buckets are multiples of this, in pixels
# Facts about the release of 2023, not about a new LoRA.
_RELEASE_ONLY: Final = ("release.source", "release.version", "release.listed_size", "release.collection_title_ja")


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
    subject_options.check(subject)
    summaries = [inspect_folder.inspect(folder) for folder in subject.images]
    triggers = subject_options.trigger_words(subject)
    kind = subject.type or inspect_folder.suggest_type(summaries)
    notes = [summary.describe() for summary in summaries]
    notes.append(f"type {kind}: {'--type' if subject.type else inspect_folder.explain_type(summaries)}")
    notes.append(subject_notes.effort(subject, kind))
    noun = kind if kind in ("style", "object") else "character"
    sources = {
        name: inspect_folder.source_table(summary, trigger, noun, root, notes)
        for name, summary, trigger in zip(_source_names(triggers), summaries, triggers, strict=True)
    }
    base = new_base.of(subject.base, _inputs(root)) if subject.base else new_base.NewBase({})
    algorithms = _trained(subject, base)
    notes += [base.note] if base.note else []
    sizes = _sizes(summaries, base.sizes or SIZES, notes)
    notes += [] if base.part else subject_notes.block_weights_of(kind)
    notes += subject_notes.advice(summaries, triggers, reads_clip=base.reads_clip)
    dataset: dict[str, Any] = {"name": subject.name}
    dataset |= {"sizes": sizes} if sizes != list(SIZES) and not base.part else {}
    dataset |= {"repeats": subject.repeats} if subject.repeats is not None else {}
    part = _subject_part(subject, kind, base, {**dataset, "sources": sources}, triggers)
    count = sum(len(summary.stems) for summary in summaries)
    head = f"# {subject.name}: {count} images. Written by `orchestrator new`; edit it as you like."
    files = {f"_subjects/{subject.name}.toml": "\n".join([head, "", *toml.lines(part)]) + "\n"}
    names = tuple(f"{subject.name}-{algorithm}" for algorithm in algorithms)
    for name, algorithm in zip(names, algorithms, strict=True):
        head = f"# {subject.name} as {algorithm}.   Run:  orchestrator run {name}"
        files[f"{name}.toml"] = "\n".join([head, "", *toml.lines(_recipe(subject, algorithm, base, sizes))]) + "\n"
    return GeneratedRecipes(files, names, tuple(notes), tuple(_outside(subject, root)))


def _subject_part(
    subject: NewSubject, kind: str, base: new_base.NewBase, dataset: dict[str, Any], triggers: Sequence[str]
) -> dict[str, Any]:
    """Return the part that all recipes of the subject extend."""
    part: dict[str, Any] = {"extends": [f"_base/{kind}"], "unset": list(_RELEASE_ONLY), "subject": subject.name}
    if base.table and not base.part:
        part["base"] = base.table
        part["unset"] += ["base.vae", "expect"]
    part["dataset"] = dataset
    if subject.steps is not None:
        part["training"] = {"steps": subject.steps}
    part["release"] = {
        "collection": subject.name,
        "collection_title": f"LoRAs of {subject.name}",
        "title": subject.name,
        "keywords": list(triggers),
        "usage": f"Write {', '.join(triggers)} in the prompt, at weight 1.",
    }
    return part


def _recipe(subject: NewSubject, algorithm: str, base: new_base.NewBase, sizes: list[int]) -> dict[str, Any]:
    """Return the recipe that trains the subject by an algorithm."""
    table: dict[str, Any] = {
        "extends": ["_base/release-2023-03", f"_algorithms/{algorithm}", f"_subjects/{subject.name}"],
        "summary": f"{subject.name}, {algorithm}",
    }
    if "block_weights" in subject_options.algorithms()[algorithm].get("unset", []):  # the subject has them
        table["unset"] = ["block_weights"]
    if base.part:  # after the subject, whose block weights are for SD1.5
        table["extends"].append(base.part)
        table |= {"unset": ["block_weights", "expect", *base.unset], "base": base.table}
        table |= {"network": base.network} if base.network else {}
        table |= {"dataset": {"sizes": sizes}} if sizes != list(base.sizes or SIZES) else {}
    return table


def _source_names(triggers: Sequence[str]) -> list[str]:
    """Return the names of sources: trigger words as file names."""
    return [UNFIT.sub("-", trigger).strip("-") or f"source{number}" for number, trigger in enumerate(triggers, start=1)]


def _outside(subject: NewSubject, root: Path) -> Iterator[Path]:
    """Yield the folders outside the project that the user named."""
    base = root / Path(subject.base).expanduser()
    for folder in (*subject.images, *([base.parent] if base.is_file() else [])):
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
    """Return the usual widths in pixels that images are scaled down to.

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


def findings(generated: GeneratedRecipes, root: Path) -> list[Finding]:
    """Return the errors and warnings of the images of written recipes."""
    recipe = loader.recipe(root / "recipes", generated.recipes[0]).recipe
    report = lint.check(
        recipe.dataset, root, recipe.training, architecture=recipe.base.architecture, cache=lint.hash_cache(root)
    )
    return [finding for finding in report.findings if finding.level is not Level.NOTE]
