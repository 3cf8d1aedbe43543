"""Small random models of all architectures.

A Python of their own runs sd-scripts with their sizes.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.models.registry import ARCHITECTURES
from orchestrator.system import settings

if TYPE_CHECKING:
    from orchestrator.models.architecture import Architecture
    from orchestrator.models.file_kinds import FileKind

_CLIP = {"num_hidden_layers": 2, "intermediate_size": 64}
_T5 = {"num_layers": 1, "d_ff": 64, "num_heads": 1}
_LEVELS = {"block_out_channels": (32, 64, 64, 64)}
_STREAMS = {"width": 256, "double": 2, "single": 2}
_DECODER = {"intermediate_size": 64, "num_hidden_layers": 2}
# The sizes of launch_small.py and make_small.py: of the denoising network, then of each text encoder.
SIZES: dict[str, tuple[dict[str, Any], ...]] = {
    "sd1": (_LEVELS, _CLIP),
    "sd2": (_LEVELS, _CLIP),
    "sdxl": (
        {"block_out_channels": (64, 128, 256), "transformer_layers_per_block": (0, 2, 2)},
        {"intermediate_size": 64},
        _CLIP,
    ),
    "sd3-medium": ({"depth": 2}, _CLIP, _CLIP, _T5 | {"d_model": 2048}),
    "sd3.5-medium": ({"depth": 2, "double_attention": 1}, _CLIP, _CLIP, _T5 | {"d_model": 2048}),
    "sd3.5-large": ({"depth": 2}, _CLIP, _CLIP, _T5 | {"d_model": 2048}),
    "flux-schnell": (_STREAMS, _CLIP, _T5 | {"d_model": 256}),
    "flux": (_STREAMS, _CLIP, _T5 | {"d_model": 256}),
    "chroma": (_STREAMS,),
    "lumina": ({"width": 192, "qkv": 384, "inner": 768, "time": 192, "layers": 2}, _DECODER | {"hidden_size": 192}),
    "hunyuan-image": (_STREAMS,),
    "anima": (
        {"width": 256, "modulation": 16, "blocks": 2, "adapter_blocks": 1},
        {"intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32},
    ),
}
# Blocks that a checkpoint of two blocks lacks.
NAMES = {
    "sd3-medium": (r"joint_blocks\.0\.",),
    "sd3.5-medium": (r"joint_blocks\.0\.", r"\.x_block\.attn2\."),
    "sd3.5-large": (r"\A(?![\s\S]*\.attn2\.)", r"\.ln_k\."),
}

HERE = Path(__file__).parent.parent / "sd_scripts"


def kept(folder: Path) -> Path:
    """Return the folder of all models: $KRNK_TEST_SMALL if set."""
    return Path(os.environ.get("KRNK_TEST_SMALL") or folder)


def python(folder: Path) -> Path:
    """Return a Python that runs scripts of sd-scripts by ``launch_small.py``.

    It is the value of $SD_SCRIPTS_PYTHON.

    It stands in a virtual environment of its own, with the packages of the real one.
    """
    real = settings.sd_scripts_python()
    path = folder / "venv" / "bin" / "python"
    if not path.is_file():
        path.parent.mkdir(parents=True)
        for name in ("pyvenv.cfg", "lib"):
            (folder / "venv" / name).symlink_to(real.parent.parent / name)
        path.write_text(f'#!/bin/sh\nexec {shlex.join([str(real), str(HERE / "launch_small.py")])} "$@"\n', "utf-8")
        path.chmod(0o755)
    return path


def model(folder: Path, architecture: str) -> Path:
    """Return the folder of an architecture's files, written if it is missing.

    The checkpoint is ``dit.safetensors``, for SD1 and SD2 the folder ``dit``. Other files have the names of their options.
    "tokenizers" is a folder for --tokenizer_cache_dir and HF_HOME.
    """
    target = folder / architecture
    if not target.is_dir():
        tokenizers = target if architecture == "tokenizers" else model(folder, "tokenizers")
        folder.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(dir=folder, prefix=f".{architecture}-")) / architecture
        argv = [str(settings.sd_scripts_python()), str(HERE / "launch_small.py"), str(HERE / "make_small.py"), architecture]
        environment = {**os.environ, "PYTHONPATH": str(settings.sd_scripts()), "HF_HUB_OFFLINE": "1"}
        environment |= {"HF_HOME": str(tokenizers)}
        made = subprocess.run([*argv, str(draft)], env=environment, capture_output=True, text=True, timeout=600, check=False)
        assert made.returncode == 0, made.stderr[-3000:]
        draft.rename(target)
        shutil.rmtree(draft.parent)
    return target


def small(architecture: Architecture) -> Architecture:
    """Return an architecture with the sizes of its small model."""
    unet, *texts = SIZES[architecture.name]
    made = architecture.model
    encoders = tuple(
        replace(encoder, config={**encoder.config, **sizes}) for encoder, sizes in zip(made.text_encoders, texts, strict=True)
    )
    names = NAMES.get(architecture.name, architecture.checkpoint_names)
    files = tuple(replace(file, kind=_of_any_size(file.kind)) for file in architecture.files)
    return replace(
        architecture,
        checkpoint_names=names,
        model=replace(made, unet={**made.unet, **unet}, text_encoders=encoders),
        files=files,
        vae=architecture.vae and _of_any_size(architecture.vae),
    )


def _of_any_size(kind: FileKind) -> FileKind:
    """Return a kind that a small file fits too."""
    return replace(kind, tensors=tuple((pattern, axis, 0) for pattern, axis, _ in kind.tensors))


def use() -> None:
    """Give every architecture of this process the sizes of its small model."""
    for name, entry in ARCHITECTURES.items():
        ARCHITECTURES[name] = small(entry)
