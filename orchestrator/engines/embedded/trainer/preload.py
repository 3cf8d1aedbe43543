"""Imports all that the embedded programs need, and nothing else: for a process that imports once and forks for every step.

No tensor is made and no thread is started here; the programs' ``main`` functions do that after the fork.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.engines.embedded.trainer import threads

threads.prepare()

from orchestrator.engines.embedded.trainer import gen_img, loop, lycoris_network, sampling, train_network  # noqa: E402 - after the line above
from orchestrator.engines.embedded.trainer.checkpoints import Saver  # noqa: E402
from orchestrator.engines.embedded.trainer.lora_baking import Baked  # noqa: E402

if TYPE_CHECKING:
    from types import ModuleType

PROGRAMS: dict[str, ModuleType] = {
    "orchestrator.engines.embedded.trainer.train_network": train_network,
    "orchestrator.engines.embedded.trainer.gen_img": gen_img,
}
LOADED = (lycoris_network, sampling, loop, Baked, Saver)
