"""Metadata of a released file.

Hashes, entries of Additional Networks, regions.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

import made_runs
from bundles import body, folder, metadata_of
from orchestrator.recipe import loader
from orchestrator.release import file_metadata
from orchestrator.weights.io.safetensors_io import read_header


def test_the_body_is_unchanged_and_the_hashes_are_true(runs: Path) -> None:
    made = folder(runs, "krnk-lora3x3") / "krnk-lora3x3.safetensors"
    before = next((runs / "krnk-lora3x3").glob("resize-*")) / made.name
    assert body(made) == body(before)
    metadata = metadata_of(made)
    assert metadata["sshs_model_hash"] == hashlib.sha256(body(made)).hexdigest()
    assert metadata["modelspec.hash_sha256"] == "0x" + metadata["sshs_model_hash"]


def test_the_legacy_hash_is_that_of_the_same_tensors_with_ss_metadata_only(tmp_path: Path) -> None:
    import numpy as np  # noqa: PLC0415
    from safetensors.numpy import save  # noqa: PLC0415

    tensors = {"lora_unet_a.lora_down.weight": np.random.default_rng(1).standard_normal((1200, 1200)).astype(np.float16)}
    source = tmp_path / "in.safetensors"
    source.write_bytes(save(tensors, {"ss_steps": "10", "ssmd_rating": "0"}))
    result = file_metadata.write(read_header(source), tmp_path / "out.safetensors", {"ss_steps": "10", "ssmd_tags": "x"})
    alone = save(tensors, {"ss_steps": "10"})
    assert result["legacy_hash"] == hashlib.sha256(alone[0x100000:0x110000]).hexdigest()[:8]
    assert result["sha256"] == hashlib.sha256((tmp_path / "out.safetensors").read_bytes()).hexdigest()
    assert result["bytes"] == (tmp_path / "out.safetensors").stat().st_size


def test_additional_networks_reads_every_entry(runs: Path) -> None:
    metadata = metadata_of(folder(runs, "krnk-locon") / "krnk-locon.safetensors")
    for key in ("display_name", "keywords", "description", "version", "source", "tags", "rating"):
        assert metadata[f"ssmd_{key}"]
    assert int(metadata["ssmd_rating"]) == 0
    assert metadata["ssmd_keywords"] == "krnk"
    assert "Example prompts:\n- krnk, simple background" in metadata["ssmd_description"]
    assert "プロンプト" in metadata["ssmd_description"]
    (cover,) = json.loads(metadata["ssmd_cover_images"])
    assert cover.startswith("iVBOR")  # a PNG in base64
    assert metadata["modelspec.thumbnail"].startswith("data:image/jpeg;base64,")
    assert metadata["modelspec.sai_model_spec"] == "1.0.1"
    assert metadata["modelspec.trigger_phrase"] == "krnk"


def test_a_group_lists_the_prompt_of_each_region(runs: Path) -> None:
    metadata = metadata_of(folder(runs, "krnksf_tyankps-loha") / "krnksf_tyankps-loha.safetensors")
    assert "left half: krnksf, krnk\nright half: tyankps, tyank" in metadata["modelspec.usage_hint"]


def test_without_scrub_the_trainers_metadata_stay(tmp_path: Path) -> None:
    recipe = made_runs.loaded("krnk-locon").recipe
    open_ = recipe.model_copy(update={"release": recipe.release.model_copy(update={"scrub": False})})
    header = read_header(made_runs.lora(tmp_path / "x.safetensors", recipe))
    kept, removed = file_metadata.metadata(open_, header, {})
    assert kept["ss_sd_model_name"].startswith("/home/someone")
    assert removed == []


@pytest.mark.parametrize(
    ("recipe", "architecture", "prediction"),
    [
        ("krnk-locon", "stable-diffusion-v1/lora", "epsilon"),
        ("examples/krnk-sdxl", "stable-diffusion-xl-v1-base/lora", "epsilon"),
        ("examples/krnk-flux", "flux-1-dev/lora", None),
        ("examples/krnk-anima", "anima-preview/lora", None),
    ],
)
def test_the_base_model_has_its_name_of_the_specification(recipe: str, architecture: str, prediction: str | None) -> None:
    root = Path(__file__).resolve().parents[2] / "recipes"
    loaded = loader.recipe(root, recipe if "/" not in recipe else str(root / f"{recipe}.toml")).recipe
    entries = file_metadata.entries(loaded, {}, [], None, "")
    assert entries["modelspec.architecture"] == architecture
    assert entries.get("modelspec.prediction_type") == prediction
