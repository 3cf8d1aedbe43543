"""The release of one recipe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.release import a1111, block_stats, bundle, card, file_metadata, images, scrub, sidecars
from orchestrator.release import facts as numbers
from orchestrator.release.request import read_recipe
from orchestrator.run.paths import SUMS
from orchestrator.weights.convert import convert
from orchestrator.weights.io.safetensors_io import read_header
from orchestrator.weights.io.writer import edit_metadata

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.recipe import Recipe
    from orchestrator.weights.io.safetensors_io import Header

JSON = dict[str, Any]

PARTS = 7


def release(request: JSON, tick: Callable[[int, int, str], None]) -> None:
    """Write the release of one recipe into ``request["output"]``.

    Args:
        request: kind "recipe", output, recipe (merged, as JSON), lora, images and columns (None and [] without images),
            folders or records of its steps, and optionally lock and root (for release.templates).
        tick: called with (parts done, all parts, name of the part).

    Raises:
        OrchestratorError: missing or broken files. The output is then incomplete, without SHA256SUMS.
    """
    recipe = read_recipe(request["recipe"], "request: recipe")
    output = Path(request["output"])
    output.mkdir(parents=True, exist_ok=True)
    (output / SUMS).unlink(missing_ok=True)
    name = recipe.name
    records = numbers.read_records(request)
    header = read_header(Path(request["lora"]))
    facts = numbers.facts(recipe, header, records, numbers.dataset_manifest(request))
    columns = list(request.get("columns") or recipe.columns()) if request.get("images") else []
    rendered = images.load(Path(request["images"]), columns) if columns else {}
    tick(1, PARTS, "read")

    cover = rendered[images.cover_name(recipe, columns)] if rendered else None
    added = file_metadata.entries(recipe, facts, columns, cover, numbers.date(records))
    metadata, removed = file_metadata.metadata(recipe, header, added)
    digests = file_metadata.write(header, output / f"{name}.safetensors", metadata)
    computed = {f"{name}.safetensors": {"bytes": digests["bytes"], "sha256": digests["sha256"]}}
    tick(2, PARTS, f"{name}.safetensors")

    files = [f"{name}.safetensors", f"{name}.json", "README.md", "README.ja.md"]
    if columns:
        parameters = {
            prompt: a1111.parameters(recipe, drawn, facts, digests["model_hash"])
            for prompt, drawn in recipe.drawn_prompts().items()
        }
        files += images.write(recipe, columns, output, rendered, parameters)
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
    context: JSON = {"recipe": recipe, "facts": facts, "lock": lock, "removed": removed, "columns": columns, "plain": plain}
    widgets = [{"text": columns[0]["prompt"], "output": {"url": f"{name}.png"}}] if columns else []
    context["front_matter"] = card.front_matter([recipe], widgets)
    for template, target in (("recipe.en.md.j2", "README.md"), ("recipe.ja.md.j2", "README.ja.md")):
        text = card.render(template, context, recipe.release.templates, str(request.get("root", ".")))
        (output / target).write_bytes(text.encode())
    tick(5, PARTS, "card")

    block_stats.write(output, dict(request.get("folders") or {}), records)
    tick(6, PARTS, bundle.BLOCKS)

    whole = recipe.model_dump(mode="json")
    manifest: JSON = {
        "kind": "recipe",
        "name": name,
        "files": bundle.digests(output, files, computed),
        "facts": facts,
        "steps": bundle.steps(records),
        "recipe": scrub.paths(whole) if recipe.release.scrub else whole,
        "lock": lock,
        "licenses": {"lora": recipe.release.license, "base": recipe.base.license},
        "removed": removed,
    }
    bundle.write_manifest(output, manifest)
    bundle.write_sums(output, manifest["files"])
    tick(PARTS, PARTS, SUMS)


def _plain_copy(recipe: Recipe, output: Path, header: Header) -> str:
    """Write the plain copy for release.plain_copy, and return its name or ""."""
    if not recipe.release.plain_copy or not any(name.endswith(".lora_mid.weight") for name in header.entries):
        return ""
    target = output / f"{recipe.name}{bundle.PLAIN}"
    report = convert(output / f"{recipe.name}.safetensors", target, "plain", overwrite=True)
    edit_metadata(target, target, {"modelspec.hash_sha256": f"0x{report.hashes.model}"}, overwrite=True)
    return target.name
