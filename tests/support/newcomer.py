"""Files of a person who reads the documentation.

An old LoRA, and a demo profile that trains two steps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from weights_samples import DOWN, LAYERS, MID, TE, tensors, write

if TYPE_CHECKING:
    from pathlib import Path

_SMALLER = {"steps = 300": "steps = 2", "state_every_n_steps = 50": "", "steps = 20\nscale": "steps = 1\nscale"}


def write_smaller_demo(root: Path, project: Path) -> None:
    """Write a smaller demo profile.

    A part of a project replaces the one of the program.
    """
    profiles = root / "recipes" / "_profiles"
    profiles.mkdir(parents=True, exist_ok=True)
    demo = (project / "recipes" / "_profiles" / "demo.toml").read_text("utf-8")
    for old, new in _SMALLER.items():
        assert old in demo, f"the demo profile has changed: {old}"
        demo = demo.replace(old, new)
    (profiles / "demo.toml").write_text(demo, "utf-8")


def old_lora(path: Path, *, grown: float = 1.0, **entries: str) -> None:
    """Write a LoRA file of three blocks with the metadata of a training, and small singular values.

    Its up factors are multiplied by ``grown``, as by further steps.
    """
    rng = np.random.default_rng(1)
    modules = {name: tensors("lora", LAYERS[name], 2, rng) for name in (TE, DOWN, MID)}
    for parts in modules.values():
        parts["lora_up.weight"][:, 1] *= 0.01
        parts["lora_up.weight"] *= grown
    training = {"ss_max_train_steps": "10", "ss_learning_rate": "0.0001", "ss_seed": "1"}
    network = {"ss_network_module": "networks.lora", "ss_network_dim": "2", "ss_network_alpha": "1"}
    write(path, modules, "F16", network | training | entries)
