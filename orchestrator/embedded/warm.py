"""Imports all that the embedded programs need, and nothing else: for a process that imports once and forks for every step.

No tensor is made and no thread is started here; the programs' ``main`` functions do that after the fork.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.embedded import threads

threads.prepare()

from orchestrator.embedded import gen_img, heavy, sampling, train_network, training  # noqa: E402 - after the line above
from orchestrator.embedded.bake import Baked  # noqa: E402
from orchestrator.embedded.saving import Saver  # noqa: E402

if TYPE_CHECKING:
    from types import ModuleType

PROGRAMS: dict[str, ModuleType] = {
    "orchestrator.embedded.train_network": train_network,
    "orchestrator.embedded.gen_img": gen_img,
}
LOADED = (heavy, sampling, training, Baked, Saver)
