"""The release of several recipes: a folder, its card and its zip."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.errors import Problem, StepFailed
from orchestrator.release import bundle, card, facts
from orchestrator.release.request import read_recipe
from orchestrator.run.paths import SUMS
from orchestrator.system.files import link_or_copy

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.recipe import Recipe

JSON = dict[str, Any]

# Files beside a LoRA.
_SIDECARS = (".png", ".json", ".civitai.info", bundle.PLAIN)


def release(request: JSON, tick: Callable[[int, int, str], None]) -> None:
    """Write the release of several recipes into ``request["output"]``.

    Writes files, image/, README.md, checksums, manifest and zip.

    Args:
        request: kind "collection", output, name, members [{recipe, folder}], grids (files, or their folders),
            and optionally lock and root (for release.templates).
        tick: called with (parts done, all parts, name of the part).

    Raises:
        OrchestratorError: every missing member or grid. The output is then incomplete, without SHA256SUMS.
    """
    name, output = str(request["name"]), Path(request["output"])
    recipes = [read_recipe(member["recipe"], f"request: members.{number}") for number, member in enumerate(request["members"])]
    folders = [Path(member["folder"]) for member in request["members"]]
    manifests = [bundle.read_manifest(folder) for folder in folders]
    sources, problems = _gather(recipes, folders, list(request.get("grids") or []))
    if problems:
        raise StepFailed(problems)
    (output / "image").mkdir(parents=True, exist_ok=True)
    (output / SUMS).unlink(missing_ok=True)
    total = len(sources) + 4
    for target, source in sources.items():
        link_or_copy(source, output / target)
    computed = {
        f"{recipe.name}{suffix}": manifest["files"][f"{recipe.name}{suffix}"]
        for recipe, manifest in zip(recipes, manifests, strict=True)
        for suffix in (".safetensors", *_SIDECARS)
        if f"{recipe.name}{suffix}" in manifest["files"]
    }
    tick(1, total, "files")
    text = _card(name, recipes, manifests, sorted(sources), request)
    (output / "README.md").write_bytes(text.encode())
    tick(2, total, "card")

    names = ["README.md", *sorted(sources)]
    manifest: JSON = {
        "kind": "collection",
        "name": name,
        "files": bundle.digests(output, names, computed),
        "members": {
            recipe.name: {key: value for key, value in manifest.items() if key not in ("files", "schema", "kind", "name")}
            for recipe, manifest in zip(recipes, manifests, strict=True)
        },
        "lock": dict(request.get("lock") or {}),
    }
    bundle.write_manifest(output, manifest)
    bundle.write_sums(output, manifest["files"])
    done = 3
    tick(done, total, "checksums")

    def tick_file(file: str) -> None:
        nonlocal done
        done += 1
        tick(min(done, total - 1), total, file)

    # The digests in the members' manifests are checked here, because the zip reads every byte anyway.
    written = bundle.write_zip(output, output / f"{name}.zip", [*names, bundle.MANIFEST, SUMS], tick_file)
    changed = [file for file, entry in manifest["files"].items() if written[file] != entry]
    if changed:
        (output / SUMS).unlink()
        (output / f"{name}.zip").unlink()
        hint = "run the release steps of those recipes again (--force release)"
        raise StepFailed([Problem(file, "differs from the manifest of its recipe", hint) for file in changed])
    tick(total, total, f"{name}.zip")


def _gather(recipes: list[Recipe], folders: list[Path], grids: list[str]) -> tuple[dict[str, Path], list[Problem]]:
    """Return the sources of the files by name, and the missing ones."""
    sources: dict[str, Path] = {}
    problems: list[Problem] = []
    for recipe, folder in zip(recipes, folders, strict=True):
        weights = folder / f"{recipe.name}.safetensors"
        if weights.is_file():
            sources[weights.name] = weights
        else:
            problems.append(Problem(str(weights), "is missing", "run the recipe's release step again"))
        for suffix in _SIDECARS:
            if (folder / f"{recipe.name}{suffix}").is_file():
                sources[f"{recipe.name}{suffix}"] = folder / f"{recipe.name}{suffix}"
        for suffix in (".png", ".webp"):
            if (folder / f"{recipe.name}_grid{suffix}").is_file():
                sources[f"image/{recipe.name}_grid{suffix}"] = folder / f"{recipe.name}_grid{suffix}"
    for grid in map(Path, grids):
        images = sorted(grid.glob("*_grid.*")) if grid.is_dir() else [grid]
        for path in images:
            if path.is_file() and path.suffix in (".png", ".webp"):
                sources[f"image/{path.name}"] = path
        if not any(path.is_file() for path in images):
            problems.append(Problem(str(grid), "holds no grid", "run the grid step again"))
    return sources, problems


def _card(name: str, recipes: list[Recipe], manifests: list[JSON], files: list[str], request: JSON) -> str:
    """Return README.md in Japanese and English."""
    first = recipes[0].release
    members = [
        {"recipe": recipe, "facts": manifest.get("facts", {}), "lock": manifest.get("lock", {})}
        for recipe, manifest in zip(recipes, manifests, strict=True)
    ]
    subjects = list(dict.fromkeys(recipe.subject for recipe in recipes))
    grids = [subject for subject in subjects if f"image/{subject}_grid.png" in files]
    context: JSON = {
        "name": name,
        "title": first.collection_title or name,
        "title_ja": first.collection_title_ja or first.collection_title or name,
        "source": first.source,
        "version": first.version,
        "members": members,
        "subjects": {subject: [member for member in members if member["recipe"].subject == subject] for subject in subjects},
        "algorithms": {
            word: [member for member in members if member["recipe"].algorithm == word]
            for word in dict.fromkeys(recipe.algorithm for recipe in recipes)
        },
        "readers": _readers(members),
        "grids": grids,
        "files": files,
        "common": _common(members),
        "noncommercial": facts.noncommercial(recipes[0].base.license),
    }
    widgets = []
    for recipe, manifest in zip(recipes, manifests, strict=True):
        prompts = manifest.get("facts", {}).get("prompts") or []
        if prompts and f"{recipe.name}.png" in files:
            widgets.append({"text": prompts[0]["prompt"], "output": {"url": f"{recipe.name}.png"}})
    context["front_matter"] = card.front_matter(recipes, widgets)
    return card.render("collection.md.j2", context, first.templates, str(request.get("root", ".")))


def _readers(members: list[JSON]) -> list[JSON]:
    """Return the programs that open the files, once for all files alike."""
    groups: dict[str, JSON] = {}
    for member in members:
        readers = member["facts"].get("readers") or {}
        if readers.keys() - {"unseen"}:
            group = groups.setdefault(json.dumps(readers, sort_keys=True), {"readers": readers, "files": []})
            group["files"].append(member["recipe"].name)
    return list(groups.values())


def _common(members: list[JSON]) -> JSON:
    """Return the training values that all members share."""
    common: JSON = {}
    keys = dict.fromkeys(key for member in members for key in member["facts"].get("training", {}))
    for key in keys:
        values: dict[str, list[str]] = {}
        for member in members:
            value = member["facts"].get("training", {}).get(key)
            values.setdefault("" if value is None else str(value), []).append(member["recipe"].name)
        if len(values) == 1 and "" not in values:
            common[key] = members[0]["facts"]["training"][key]
    return common
