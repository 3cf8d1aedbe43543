"""Run a script of sd-scripts with small models.

``python launch_small.py SCRIPT ARGUMENTS``. For sd-scripts' Python.

sd-scripts states the sizes of its models in its source. They are replaced while the modules are imported; the checkout and the
script stay as they are. Anything else than a script is run by Python itself.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import os
import runpy
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import CodeType

_FLUX = {
    "context_in_dim=4096": "context_in_dim=256",
    "hidden_size=3072": "hidden_size=256",
    "num_heads=24": "num_heads=2",
    "depth=19": "depth=2",
    "depth_single_blocks=38": "depth_single_blocks=2",
}
_CLIP = {"intermediate_size=3072": "intermediate_size=64", "num_hidden_layers=12": "num_hidden_layers=2"}
_CLIP |= {"intermediate_size=5120": "intermediate_size=64", "num_hidden_layers=32": "num_hidden_layers=2"}
SIZES: dict[str, dict[str, str]] = {
    "library.original_unet": {"= (320, 640, 1280, 1280)": "= (32, 64, 64, 64)"},
    "library.model_util": {"VAE_PARAMS_CH = 128": "VAE_PARAMS_CH = 32"},
    "library.sdxl_original_unet": {
        "MODEL_CHANNELS: int = 320": "MODEL_CHANNELS: int = 64",
        "TIME_EMBED_DIM = 320 * 4": "TIME_EMBED_DIM = 64 * 4",
        "num_transformer_layers=10": "num_transformer_layers=2",
    },
    "library.sdxl_model_util": {old: new for old, new in _CLIP.items() if old != "num_hidden_layers=12"},  # it reads the 11th
    "library.sd3_utils": _CLIP,
    "library.sd3_models": {"ch=128": "ch=32"},
    "library.strategy_sd3": {", 4096": ", 2048"},
    "library.flux_models": _FLUX | {" ch=128": " ch=32"},
    "library.chroma_models": _FLUX | {"approximator_hidden_size=5120": "approximator_hidden_size=256"},
    "library.flux_utils": {
        '"num_hidden_layers": 12': '"num_hidden_layers": 2',
        '"intermediate_size": 3072': '"intermediate_size": 64',
        '"d_ff": 10240': '"d_ff": 64',
        '"d_model": 4096': f'"d_model": {2048 if "sd3" in " ".join(sys.argv) else 256}',
        '"num_heads": 64': '"num_heads": 1',
        '"num_layers": 24': '"num_layers": 1',
    },
    "library.lumina_models": {
        "dim=2304": "dim=192",
        "n_layers=26": "n_layers=2",
        "n_heads=24": "n_heads=2",
        "n_kv_heads=8": "n_kv_heads=1",
    },
    "library.lumina_util": {
        '"hidden_size": 2304': '"hidden_size": 192',
        '"intermediate_size": 9216': '"intermediate_size": 64',
        '"num_hidden_layers": 26': '"num_hidden_layers": 2',
        '"vocab_size": 256000': '"vocab_size": 1000',
    },
    "library.hunyuan_image_models": {
        "hidden_size = 3584": "hidden_size = 256",
        "text_states_dim = 3584": "text_states_dim = 256",
        "heads_num = 28": "heads_num = 2",
        "depth = 20": "depth = 2",
        "depth = 40": "depth = 2",
    },
    "library.hunyuan_image_vae": {"(128, 256, 512, 512, 1024, 1024)": "(64, 64, 64, 64, 128, 128)"},
    "library.hunyuan_image_text_encoder": {
        '"d_ff": 3584': '"d_ff": 64',
        '"num_layers": 12': '"num_layers": 1',
        'hidden_size": 3584': 'hidden_size": 256',
        '"intermediate_size": 18944': '"intermediate_size": 64',
        '"intermediate_size": 3420': '"intermediate_size": 64',
        '"num_attention_heads": 28': '"num_attention_heads": 2',
        '"num_key_value_heads": 4': '"num_key_value_heads": 1',
        '"num_hidden_layers": 28': '"num_hidden_layers": 2',
        '"depth": 32': '"depth": 1',
    },
    "library.anima_utils": {
        '"model_channels": 2048': '"model_channels": 256',
        '"adaln_lora_dim": 256': '"adaln_lora_dim": 16',
        '"num_blocks": 28': '"num_blocks": 2',
        '"num_heads": 16': '"num_heads": 2',
    },
    "library.anima_models": {"num_layers=6": "num_layers=1"},
    "library.qwen_image_autoencoder_kl": {'"base_dim": 96': '"base_dim": 16'},
}
"""Text in the source of a module, and its replacement."""


class _SmallSource(importlib.machinery.SourceFileLoader):
    """Loader that replaces sizes and leaves no bytecode behind."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        text = self.get_data(path).decode("utf-8")
        for old, new in SIZES[fullname].items():
            if old not in text:
                raise ImportError(f"{path} lacks {old!r}: sd-scripts has changed")
            text = text.replace(old, new)
        return compile(text, path, "exec", dont_inherit=True)


class SmallFinder(importlib.abc.MetaPathFinder):
    def find_spec(self, name: str, path: Sequence[str] | None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if name not in SIZES:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is None or spec.origin is None:
            return None
        return importlib.util.spec_from_file_location(name, spec.origin, loader=_SmallSource(name, spec.origin))


if __name__ == "__main__":
    if not sys.argv[1].endswith(".py"):
        os.execv(sys.executable, [sys.executable, *sys.argv[1:]])  # noqa: S606
    del sys.argv[0]
    sys.path[0] = str(Path(sys.argv[0]).resolve().parent)
    sys.meta_path.insert(0, SmallFinder())
    runpy.run_path(sys.argv[0], run_name="__main__")
