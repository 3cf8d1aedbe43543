"""Group a LoRA file's header into modules. No numpy."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from orchestrator.errors import Problem, RecipeError, grouped, near_miss
from orchestrator.models import blocks, conventions, names, registry
from orchestrator.models.recognition import Recognition, recognize
from orchestrator.weights.families import foreign, kinds
from orchestrator.weights.families.kinds import ModuleKind
from orchestrator.weights.io import metadata, peft

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.models.registry import ArchitectureName
    from orchestrator.weights.io.safetensors_io import Header

LARGEST = 1 << 28
"""Size of the largest weight that a module may expand to. The largest layer of SD1 and SDXL has 33,177,600 numbers."""

_SHOWN = 8
_MOST = 20


@dataclass(frozen=True, slots=True)
class AdapterModule:
    """An adapted layer: names in the file and by kohya, kind, tensors by part.

    Kohya has no name for a part of a joined layer: that is the layer's, a colon and the part's number.
    """

    name: str
    kohya: str
    block: str | None
    kind: ModuleKind
    keys: dict[str, str]
    shapes: dict[str, tuple[int, ...]]
    part: int | None = None
    """Number of the part, if the original joins the layer with others."""

    @property
    def parts(self) -> frozenset[str]:
        """Return the names of its tensors, without the module's."""
        return frozenset(self.keys)

    @property
    def rank(self) -> int | None:
        """Rank (dim). None: the kind has none."""
        return kinds.rank(self.kind, self.shapes)

    @property
    def dora(self) -> bool:
        """Return whether the weight's norm is stored separately (DoRA)."""
        return "dora_scale" in self.keys

    @property
    def magnitude(self) -> tuple[int, ...] | None:
        """Shape of its magnitudes in LyCORIS, (out, 1, …). None: they have it.

        PEFT has one magnitude per output, as (out,) or (1, out, 1, 1) (peft tuners/lora/dora.py get_weight_norm).
        """
        shape = self.shapes.get("dora_scale")
        if shape is None or ("lora_magnitude_vector" not in self.keys["dora_scale"] and len(shape) > 1):
            return None
        return prod(shape), *(1 for _ in self.shapes.get("lora_down.weight", shape + shape)[1:])

    @property
    def rankless(self) -> bool:
        """Return whether it is a LoKr of two whole matrices."""
        return self.kind is ModuleKind.LOKR and self.rank is None

    @property
    def needs_base(self) -> bool:
        """Return whether its delta depends on the base model's weight."""
        return self.kind.needs_base or self.dora

    @property
    def tucker(self) -> bool:
        """Return whether it has a core tensor (lora_mid, hada_t1, lokr_t2)."""
        return not {"lora_mid.weight", "hada_t1", "lokr_t2"}.isdisjoint(self.keys)

    @property
    def vector(self) -> bool:
        """Return whether it changes a norm or a bias alone, which has no rank."""
        if self.kind is ModuleKind.FULL:
            return len(self.shapes["diff"]) == 1
        return self.kind in (ModuleKind.NORM, ModuleKind.BIAS)

    @property
    def title(self) -> str:
        """Kind of the module for messages."""
        return f"{self.kind}{' with dora_scale' if self.dora else ''}"


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA file: header, recognized architecture, modules ordered by name."""

    header: Header
    recognition: Recognition
    modules: tuple[AdapterModule, ...]
    bundled: tuple[str, ...] = ()
    """Tensors of embeddings beside the LoRA (bundle_emb), which every verb keeps."""

    @property
    def architecture(self) -> ArchitectureName | None:
        """Base architecture. None: unknown."""
        return self.recognition.architecture

    def known_architecture(self, verb: str) -> ArchitectureName:
        """Return the architecture, to which every module belongs.

        Raises:
            RecipeError: it is unknown, or some modules belong to no layer of it.
        """
        if self.architecture is None or self.recognition.unknown:
            titles = ", ".join(entry.title for entry in registry.ARCHITECTURES.values())
            hint = f"{verb} needs to know every module ({titles}); inspect --json lists the unknown ones"
            raise RecipeError(Problem(str(self.header.path), self.recognition.explain(), hint))
        return self.architecture

    @property
    def flat(self) -> bool:
        """Return whether some modules are flat, with kernels known by name alone."""
        return any(module.kind in (ModuleKind.LOHA, ModuleKind.LOKR) for module in self.modules)

    @property
    def family(self) -> str:
        """Family of the file, as in recipes, or `mixed`.

        Keys decide. Where LoRA, LoCon and DyLoRA have the same keys, the metadata decide, and without metadata it is lora.
        """
        families = {str(module.kind).partition(" ")[0] for module in self.modules}
        if families - {"norm", "bias"}:
            families -= {"norm", "bias"}  # train_norm goes with every family
        if families <= {"lora", "locon"}:
            return "locon" if "locon" in families else _trained_family(self.header)
        return families.pop() if len(families) == 1 else "mixed"

    @property
    def needing_base(self) -> list[str]:
        """Return the titles of the modules whose delta depends on the base."""
        return sorted({module.title for module in self.modules if module.needs_base})

    @property
    def tucker(self) -> bool:
        """Return whether any convolution has a core tensor."""
        return any(module.tucker for module in self.modules)

    @property
    def dotted(self) -> bool:
        """Return whether any module has a dotted path for its name.

        All conventions have them, but those of trainers.
        """
        return any(names.naming_of(module.name) == "peft" for module in self.modules)

    @property
    def naming(self) -> conventions.Convention:
        """Convention of the most modules' names."""
        return next(iter(self.conventions))

    @property
    def conventions(self) -> dict[conventions.Convention, int]:
        """Return the number of modules by convention, most frequent first."""
        return conventions.conventions((module.name for module in self.modules), self.architecture)

    @property
    def dtypes(self) -> dict[str, int]:
        """Return the number of tensors of each type."""
        return dict(Counter(entry.dtype for entry in self.header.entries.values()))


def _trained_family(header: Header) -> str:
    if header.metadata.get("ss_network_module") != "lycoris.kohya":
        return "lora"
    try:
        algo = str(json.loads(header.metadata.get("ss_network_args", "{}")).get("algo", "lora")).lower()
    except (ValueError, AttributeError, RecursionError):
        algo = "lora"
    return "dylora" if algo == "dylora" else "locon"


def _oversized(kind: ModuleKind, shapes: dict[str, tuple[int, ...]]) -> Iterator[str]:
    """Yield a problem for small factors whose product would fill the memory."""
    size = kinds.extent(kind, shapes)
    if size and size[0] * size[1] > LARGEST:
        yield f"expands to a weight of {size[0]:,} x {size[1]:,}; no layer has more than {LARGEST:,} numbers"


def _quantized(header: Header, name: str, keys: dict[str, str]) -> Iterator[Problem]:
    """Yield a problem for integer factors without their quantization scale."""
    types = {header.entries[key].dtype for part, key in keys.items() if part not in {"alpha", "on_input"}}
    if integers := sorted(dtype for dtype in types if dtype.startswith(("I", "U", "BOOL"))):
        hint = "save it in fp16 with the program that made it"
        yield Problem(name, f"holds integers ({', '.join(integers)}), which are quantized numbers without their scale", hint)


def _unknown(header: Header, keys: list[str], *, alone: bool) -> Problem:
    """Return the problem of keys of no family."""
    endings = sorted({key.rpartition(".")[2] for key in keys})
    shown = ", ".join(keys[:_SHOWN]) + (f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else "")
    hint = near_miss(endings[0], {part.removesuffix(".weight") for part in names.PARTS} - {"weight", *endings}).removeprefix(
        "; "
    )
    if alone and {"weight", "bias"} & {*endings}:
        hint = "is it a LoRA? a checkpoint has such keys"
    return Problem(str(header.path), f"has keys of no family: {shown}", hint)


def _groups(header: Header, keys: list[str]) -> tuple[dict[str, dict[str, str]], list[Problem]]:
    """Return the key of each part by module, and problems of keys."""
    groups: dict[str, dict[str, str]] = {}
    problems: list[Problem] = []
    unknown: list[str] = []
    for key in keys:
        if (split := names.split(key)) is None:
            unknown.append(key)
            continue
        name, part = split
        if part in groups.setdefault(name, {}):
            problems.append(Problem(name, f"has {part} twice: {groups[name][part]}, {key}"))
        else:
            groups[name][part] = key
    return groups, problems + ([_unknown(header, unknown, alone=not groups)] if unknown else [])


def adapter(header: Header) -> Adapter:
    """Group the tensors of a header into modules.

    Raises:
        RecipeError: keys of no family, or modules whose tensors are incomplete. That includes files that are not LoRAs, such
            as checkpoints.
    """
    if (other := foreign.describe(header)) is not None:
        raise RecipeError(other)
    header = peft.with_config(header)
    bundled = tuple(key for key in header.entries if foreign.bundled(key))
    groups, problems = _groups(header, [key for key in header.entries if key not in bundled])
    complete: dict[str, tuple[ModuleKind, dict[str, tuple[int, ...]]]] = {}
    for name, keys in sorted(groups.items()):
        shapes = {part: header.entries[key].shape for part, key in keys.items()}
        kind = kinds.recognize(shapes)
        if kind is None:
            problems.append(Problem(name, f"has {', '.join(sorted(keys))}: not the complete set of any family"))
            continue
        wrong = kinds.misshapen(kind, shapes) or list(_oversized(kind, shapes))
        problems += [Problem(name, what) for what in wrong]
        problems += _quantized(header, name, keys)
        complete[name] = kind, shapes
        if groups[name].get("diff_b", "").endswith(".bias"):
            rank = kinds.rank(kind, shapes)
            if peft.stated_alpha(header.metadata, name, rank) not in (None, rank):
                problems.append(Problem(name, "has a bias that PEFT multiplies by alpha / rank", peft.MERGE))
    if not problems and not complete:
        hint = "name a LoRA file" if header.entries else "it has metadata alone, and no tensor"
        problems.append(Problem(str(header.path), "holds no LoRA module", hint))
    if problems:
        problems = grouped(problems)
        raise RecipeError(
            problems[:_MOST] + ([Problem("…", f"{len(problems) - _MOST} more problems")] if len(problems) > _MOST else [])
        )
    sizes = {name: size for name, (kind, shapes) in complete.items() if (size := kinds.extent(kind, shapes))}
    before = metadata.architecture(header.metadata)
    recognition = recognize(complete, sizes=sizes, metadata=header.metadata, before=before)
    architecture, modules = recognition.architecture, []
    for name, (kind, shapes) in complete.items():
        layer, number = names.layer_and_part(name, architecture)
        block = blocks.block_of(layer, architecture)
        kohya = layer if number is None else f"{layer}:{number}"
        modules.append(AdapterModule(name, kohya, block, kind, groups[name], shapes, number))
    return Adapter(header, recognition, tuple(modules), bundled)
