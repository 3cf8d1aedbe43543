"""Commands of sd-scripts' programs, and their tokenizers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from orchestrator.engines.sdscripts import launch
from orchestrator.models.registry import ARCHITECTURES
from orchestrator.system import settings

if TYPE_CHECKING:
    from pathlib import Path

CLIP_L, CLIP_G, T5 = "openai_clip-vit-large-patch14", "laion_CLIP-ViT-bigG-14-laion2B-39B-b160k", "google_t5-v1_1-xxl"


def test_a_program_runs_offline_with_all_its_tokenizers(tmp_path: Path) -> None:
    offline = {"HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"}
    assert not offline & launch.environment(tmp_path).keys()
    (tmp_path / CLIP_L).mkdir()
    assert offline <= launch.environment(tmp_path).keys()
    assert not offline & launch.environment(tmp_path, (CLIP_L, T5)).keys()
    gemma = ("models--google--gemma-2-2b",)
    assert launch.environment(tmp_path, gemma)["HF_HUB_CACHE"] == str(tmp_path)
    assert "HF_HUB_CACHE" not in launch.environment(tmp_path, (CLIP_L, T5))


def test_a_command_runs_in_its_folder_with_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SD_SCRIPTS_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    made = launch.command("gen_img.py", ["--x", "1"], (tmp_path / "w").relative_to(tmp_path), {"a": "b"})
    assert made.argv == (str(settings.sd_scripts_python()), str(tmp_path / "gen_img.py"), "--x", "1")
    assert (made.cwd, made.files) == (tmp_path / "w", {"a": "b"})
    assert made.env["PYTHONPATH"] == str(tmp_path)


@pytest.mark.parametrize(
    ("program", "argv", "names"),
    [
        ("train_network.py", [], (CLIP_L,)),
        ("train_network.py", ["--v2"], ("stabilityai_stable-diffusion-2",)),
        ("gen_img.py", ["--v1"], (CLIP_L,)),
        ("gen_img.py", ["--v2"], ("stabilityai_stable-diffusion-2",)),
        ("gen_img.py", ["--sdxl"], (CLIP_L, CLIP_G)),
        ("sdxl_train_network.py", [], (CLIP_L, CLIP_G)),
        ("flux_train_network.py", [], (CLIP_L, T5)),
        ("sd3_train_network.py", [], (CLIP_L, CLIP_G, T5)),
        ("lumina_train_network.py", [], ("models--google--gemma-2-2b",)),
        ("anima_train_network.py", [], ()),
        ("networks/resize_lora.py", [], (CLIP_L,)),
    ],
)
def test_a_program_needs_the_tokenizers_of_its_base_model(program: str, argv: list[str], names: tuple[str, ...]) -> None:
    assert tuple(launch._tokenizers(program, argv)) == names


def test_chroma_needs_the_tokenizers_of_chroma() -> None:
    argv = [*ARCHITECTURES["chroma"].trainer_switches, "--x"]
    assert tuple(launch._tokenizers("flux_train_network.py", argv)) == ARCHITECTURES["chroma"].tokenizers
