"""The release of one recipe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from orchestrator.errors import Problem, RecipeError
from orchestrator.recipe import Recipe
from orchestrator.release import a1111, block_stats, bundle, card, file_metadata, images, scrub, sidecars
from orchestrator.release import facts as numbers
from orchestrator.weights.io.safetensors_io import read_header

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.weights.io.safetensors_io import Header

JSON = dict[str, Any]

PARTS = 7


def read_recipe(value: JSON, where: str) -> Recipe:
    """Return a recipe from the JSON of a request or manifest."""
    try:
        return Recipe.model_validate_json(json.dumps(value))
    except ValidationError as error:
        first = error.errors()[0]
        what = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise RecipeError(Problem(where, f"is no recipe of this version: {what}")) from error


def release(request: JSON, tick: Callable[[int, int, str], None]) -> None:
    """Write the release of one recipe into ``request["output"]``.

    Args:
        request: kind "recipe", output, recipe (merged, as JSON), lora; images and columns (None and [] without pictures);
            folders or records of the steps behind it; optional lock, root (for release.templates).
        tick: told parts done, parts in all, and what was done.

    Raises:
        OrchestratorError: what is missing or broken; the output is then incomplete and has no SHA256SUMS.
    """
    recipe = read_recipe(request["recipe"], "request: recipe")
    output = Path(request["output"])
    output.mkdir(parents=True, exist_ok=True)
    (output / bundle.SUMS).unlink(missing_ok=True)
    name = recipe.name
    records = numbers.read_records(request)
    header = read_header(Path(request["lora"]))
    facts = numbers.facts(recipe, header, records, numbers.dataset_manifest(request))
    columns = list(request.get("columns") or recipe.columns()) if request.get("images") else []
    drawn = images.load(Path(request["images"]), columns) if columns else {}
    tick(1, PARTS, "read")

    cover = drawn[images.cover_name(recipe, columns)] if drawn else None
    added = file_metadata.entries(recipe, facts, columns, cover, numbers.date(records))
    said, removed = file_metadata.metadata(recipe, header, added)
    digests = file_metadata.write(header, output / f"{name}.safetensors", said)
    known = {f"{name}.safetensors": {"bytes": digests["bytes"], "sha256": digests["sha256"]}}
    tick(2, PARTS, f"{name}.safetensors")

    files = [f"{name}.safetensors", f"{name}.json", "README.md", "README.ja.md"]
    if columns:
        made = {
            column["name"]: a1111.parameters(recipe, column["name"], column["prompt"], facts, digests["model_hash"])
            for column in columns
        }
        files += images.write(recipe, columns, output, drawn, made)
    tick(3, PARTS, "pictures")

    (output / f"{name}.json").write_bytes(sidecars.webui(recipe, columns).encode())
    if recipe.release.civitai:
        files.append(f"{name}.civitai.info")
        (output / files[-1]).write_bytes(sidecars.civitai(recipe, columns, digests).encode())
    tick(4, PARTS, "sidecars")

    facts |= {"file": {**digests, "name": f"{name}.safetensors"}, "prompts": columns}
    lock = bundle.lock(records, request.get("lock"))
    plain = _plain_copy(recipe, output, header)
    files += [plain] if plain else []
    about: JSON = {"recipe": recipe, "facts": facts, "lock": lock, "removed": removed, "columns": columns, "plain": plain}
    widgets = [{"text": columns[0]["prompt"], "output": {"url": f"{name}.png"}}] if columns else []
    about["front_matter"] = card.front_matter([recipe], widgets)
    for template, target in (("recipe.en.md.j2", "README.md"), ("recipe.ja.md.j2", "README.ja.md")):
        text = card.render(template, about, recipe.release.templates, str(request.get("root", ".")))
        (output / target).write_bytes(text.encode())
    tick(5, PARTS, "card")

    block_stats.write(output, dict(request.get("folders") or {}), records)
    tick(6, PARTS, block_stats.BLOCKS)

    whole = recipe.model_dump(mode="json")
    manifest: JSON = {
        "kind": "recipe",
        "name": name,
        "files": bundle.digests(output, files, known),
        "facts": facts,
        "steps": bundle.steps(records),
        "recipe": scrub.paths(whole) if recipe.release.scrub else whole,
        "lock": lock,
        "licenses": {"lora": recipe.release.license, "base": recipe.base.license},
        "removed": removed,
    }
    bundle.write_manifest(output, manifest)
    bundle.write_sums(output, manifest["files"])
    tick(PARTS, PARTS, bundle.SUMS)


def _plain_copy(recipe: Recipe, output: Path, header: Header) -> str:
    """Write NAME-plain.safetensors, whose Tucker cores are folded, where the recipe asks for it; return its name or ""."""
    if not recipe.release.plain_copy or not any(name.endswith(".lora_mid.weight") for name in header.entries):
        return ""
    from orchestrator.weights.convert import convert  # noqa: PLC0415
    from orchestrator.weights.io.writer import edit_metadata  # noqa: PLC0415 - numpy, which no other part of a release needs

    target = output / f"{recipe.name}{bundle.PLAIN}"
    said = convert(output / f"{recipe.name}.safetensors", target, "plain", overwrite=True)
    edit_metadata(target, target, {"modelspec.hash_sha256": f"0x{said.hashes.model}"}, overwrite=True)
    return target.name
