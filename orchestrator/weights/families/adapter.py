"""What a header alone says of a LoRA file: its modules, their kinds, ranks and blocks."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.errors import Problem, RecipeError, near_miss
from orchestrator.models import blocks, names
from orchestrator.weights.families import kinds
from orchestrator.weights.io import peft

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.weights.families.kinds import ModuleKind
    from orchestrator.weights.io.safetensors_io import Header

LARGEST = 1 << 28
"""Numbers of the largest weight that a module may stand for; the largest layer of SD1 and SDXL has 33,177,600."""

_SHOWN = 8
_MOST = 20


@dataclass(frozen=True, slots=True)
class AdapterModule:
    """One adapted layer: its name in the file and in kohya's naming, its kind, and its tensors by part."""

    name: str
    kohya: str
    block: str | None
    kind: ModuleKind
    keys: dict[str, str]
    shapes: dict[str, tuple[int, ...]]

    @property
    def parts(self) -> frozenset[str]:
        """The names of its tensors, without the module's."""
        return frozenset(self.keys)

    @property
    def rank(self) -> int | None:
        """Rank (dim); None where the kind has none."""
        return kinds.rank(self.kind, self.shapes)

    @property
    def dora(self) -> bool:
        """Whether the weight's norm is stored apart (DoRA)."""
        return "dora_scale" in self.keys

    @property
    def needs_base(self) -> bool:
        """Whether its change of the weight depends on the base model's."""
        return self.kind.needs_base or self.dora

    @property
    def title(self) -> str:
        """What the module is, in words."""
        return f"{self.kind}{' with dora_scale' if self.dora else ''}"


@dataclass(frozen=True, slots=True)
class Adapter:
    """A whole LoRA file: header, base architecture, modules in the order of their names."""

    header: Header
    architecture: blocks.Architecture
    modules: tuple[AdapterModule, ...]

    @property
    def family(self) -> str:
        """What the file is: lora, locon, loha, lokr, dylora, glora, full, norm, ia3, diag-oft, boft, or `mixed`.

        Keys decide; where LoRA, LoCon and DyLoRA have the same keys, the metadata do, and lora is what it is without any.
        """
        found = {str(module.kind).partition(" ")[0] for module in self.modules}
        if "norm" in found and len(found) > 1:
            found.discard("norm")  # train_norm stands beside every family
        if found <= {"lora", "locon"}:
            return "locon" if "locon" in found else _trained_as(self.header)
        return found.pop() if len(found) == 1 else "mixed"

    @property
    def tucker(self) -> bool:
        """Whether any convolution has a core of its own (lora_mid, hada_t1, lokr_t2)."""
        return any(not {"lora_mid.weight", "hada_t1", "lokr_t2"}.isdisjoint(module.keys) for module in self.modules)

    @property
    def naming(self) -> names.Naming:
        """Whose names the file uses: kohya's, or PEFT's where any module has them."""
        return "peft" if any(names.naming_of(module.name) == "peft" for module in self.modules) else "kohya"

    @property
    def dtypes(self) -> dict[str, int]:
        """How many tensors there are of each type."""
        return dict(Counter(entry.dtype for entry in self.header.entries.values()))


def _trained_as(header: Header) -> str:
    if header.metadata.get("ss_network_module") != "lycoris.kohya":
        return "lora"
    try:
        algo = str(json.loads(header.metadata.get("ss_network_args", "{}")).get("algo", "lora")).lower()
    except (ValueError, AttributeError, RecursionError):
        algo = "lora"
    return "dylora" if algo == "dylora" else "locon"


def _enormous(kind: ModuleKind, shapes: dict[str, tuple[int, ...]]) -> Iterator[str]:
    """Yield a problem for factors that are small and whose product would fill the memory."""
    size = kinds.extent(kind, shapes)
    if size and size[0] * size[1] > LARGEST:
        yield f"stands for a weight of {size[0]:,} x {size[1]:,}; no layer has more than {LARGEST:,} numbers"


def adapter(header: Header) -> Adapter:
    """Group the tensors of a header into modules.

    Raises RecipeError naming every key that no family has and every module whose tensors are incomplete; a file that is no
    LoRA at all (a checkpoint, say) is refused this way.
    """
    groups: dict[str, dict[str, str]] = {}
    problems, unknown = [], []
    for key in header.entries:
        found = names.split(key)
        if found is None:
            unknown.append(key)
        elif found[1] in groups.setdefault(found[0], {}):
            problems.append(Problem(found[0], f"has {found[1]} twice: {groups[found[0]][found[1]]}, {key}"))
        else:
            groups[found[0]][found[1]] = key
    architecture = blocks.architecture_of(groups)
    modules = []
    for name, keys in sorted(groups.items()):
        shapes = {part: header.entries[key].shape for part, key in keys.items()}
        kind = kinds.recognize(shapes)
        if kind is None:
            problems.append(Problem(name, f"has {', '.join(sorted(keys))}: no family's complete set"))
            continue
        wrong = kinds.misshapen(kind, shapes) or list(_enormous(kind, shapes))
        problems += [Problem(name, what) for what in wrong]
        kohya = names.kohya(name, architecture)
        modules.append(AdapterModule(name, kohya, blocks.block_of(kohya, architecture), kind, keys, shapes))
    if unknown:
        endings = sorted({key.rpartition(".")[2] for key in unknown})
        shown = ", ".join(unknown[:_SHOWN]) + (f" and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else "")
        hint = (
            "is it a LoRA? a checkpoint has such keys" if not groups else near_miss(endings[0], names.PARTS).removeprefix("; ")
        )
        problems.append(Problem(str(header.path), f"keys of no known family: {shown}", hint))
    if not problems and not modules:
        problems.append(Problem(str(header.path), "holds no LoRA module at all"))
    if problems:
        raise RecipeError(
            problems[:20] + ([Problem("…", f"{len(problems) - 20} more problems")] if len(problems) > 20 else [])
        )
    return Adapter(peft.with_config(header, groups), architecture, tuple(modules))
