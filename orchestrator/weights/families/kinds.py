"""Recognize the kind of a LoRA module by its keys and shapes. No numpy."""

from __future__ import annotations

from enum import StrEnum
from math import prod
from typing import TYPE_CHECKING, assert_never

if TYPE_CHECKING:
    from collections.abc import Mapping


class ModuleKind(StrEnum):
    """Kind of a module's tensors.

    LoRA, plain LoCon and DyLoRA have the same keys and the same formula.
    """

    LORA = "lora"
    TUCKER = "locon tucker"
    LOHA = "loha"
    LOHA_TUCKER = "loha tucker"
    LOKR = "lokr"
    FULL = "full"
    NORM = "norm"
    BIAS = "bias"
    IA3 = "ia3"
    GLORA = "glora"
    DIAG_OFT = "diag-oft"
    BOFT = "boft"

    @property
    def low_rank(self) -> bool:
        """Return whether the delta is a product of thin factors in the file."""
        return self in (ModuleKind.LORA, ModuleKind.TUCKER, ModuleKind.LOHA, ModuleKind.LOHA_TUCKER, ModuleKind.LOKR)

    @property
    def needs_base(self) -> bool:
        """Return whether the delta depends on the weight of the base model."""
        return self in (ModuleKind.IA3, ModuleKind.GLORA, ModuleKind.DIAG_OFT, ModuleKind.BOFT)


_SHAPES: tuple[tuple[ModuleKind, frozenset[str], frozenset[str]], ...] = (
    (
        ModuleKind.TUCKER,
        frozenset({"lora_up.weight", "lora_down.weight", "lora_mid.weight"}),
        frozenset({"alpha", "dora_scale", "diff_b"}),
    ),
    (ModuleKind.LORA, frozenset({"lora_up.weight", "lora_down.weight"}), frozenset({"alpha", "dora_scale", "diff_b"})),
    (
        ModuleKind.LOHA_TUCKER,
        frozenset({"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2"}),
        frozenset({"alpha", "dora_scale", "diff_b"}),
    ),
    (
        ModuleKind.LOHA,
        frozenset({"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"}),
        frozenset({"alpha", "dora_scale", "diff_b"}),
    ),
    (ModuleKind.FULL, frozenset({"diff"}), frozenset({"diff_b"})),
    (ModuleKind.NORM, frozenset({"w_norm"}), frozenset({"b_norm"})),
    (ModuleKind.BIAS, frozenset({"diff_b"}), frozenset()),
    (ModuleKind.IA3, frozenset({"weight", "on_input"}), frozenset()),
    (ModuleKind.GLORA, frozenset({"a1.weight", "a2.weight", "b1.weight", "b2.weight"}), frozenset({"bm.weight", "alpha"})),
    (ModuleKind.BOFT, frozenset({"oft_blocks"}), frozenset({"rescale", "alpha"})),
)
_LOKR = frozenset(
    {"lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2", "alpha", "dora_scale", "diff_b"}
)


def recognize(shapes: Mapping[str, tuple[int, ...]]) -> ModuleKind | None:
    """Return the kind of a module by its parts. None: no complete set."""
    parts = frozenset(shapes)
    for kind, required, optional in _SHAPES:
        if required <= parts <= required | optional:
            return ModuleKind.DIAG_OFT if kind is ModuleKind.BOFT and len(shapes["oft_blocks"]) == 3 else kind
    first = "lokr_w1" in parts or {"lokr_w1_a", "lokr_w1_b"} <= parts
    second = "lokr_w2" in parts or {"lokr_w2_a", "lokr_w2_b"} <= parts
    return ModuleKind.LOKR if first and second and parts <= _LOKR else None


_RANK_PARTS = {
    ModuleKind.LORA: "lora_down.weight",
    ModuleKind.TUCKER: "lora_down.weight",
    ModuleKind.LOHA: "hada_w1_b",
    ModuleKind.LOHA_TUCKER: "hada_w1_b",
    ModuleKind.GLORA: "a2.weight",
}


def rank(kind: ModuleKind, shapes: Mapping[str, tuple[int, ...]]) -> int | None:
    """Return the rank (dim) of a module. None: its kind has no rank."""
    if kind is ModuleKind.LOKR:
        part = next((part for part in ("lokr_w1_b", "lokr_w2_b") if part in shapes), None)
        return shapes[part][0] if part else None
    part = _RANK_PARTS.get(kind)
    return shapes[part][0] if part else None


_Axes = tuple[tuple[str, int], ...]


def _hada(number: str, *, tucker: bool) -> tuple[_Axes, ...]:
    first, second, core = (f"hada_w{number}_a", f"hada_w{number}_b", f"hada_t{number}")
    return (((core, 0), (first, 0)), ((core, 1), (second, 0))) if tucker else (((first, 1), (second, 0)),)


_EQUAL: dict[ModuleKind, tuple[_Axes, ...]] = {
    ModuleKind.LORA: ((("lora_up.weight", 1), ("lora_down.weight", 0)),),
    ModuleKind.TUCKER: ((("lora_up.weight", 1), ("lora_mid.weight", 0), ("lora_mid.weight", 1), ("lora_down.weight", 0)),),
    ModuleKind.LOHA: (
        *_hada("1", tucker=False), *_hada("2", tucker=False),
        (("hada_w1_a", 0), ("hada_w2_a", 0)), (("hada_w1_b", 1), ("hada_w2_b", 1)),
    ),
    ModuleKind.LOHA_TUCKER: (
        *_hada("1", tucker=True), *_hada("2", tucker=True),
        (("hada_w1_a", 1), ("hada_w2_a", 1)), (("hada_w1_b", 1), ("hada_w2_b", 1)),
        (("hada_t1", 2), ("hada_t2", 2)), (("hada_t1", 3), ("hada_t2", 3)),
    ),
    ModuleKind.LOKR: (
        (("lokr_w1_a", 1), ("lokr_w1_b", 0)),
        (("lokr_t2", 0), ("lokr_w2_a", 0)), (("lokr_t2", 1), ("lokr_w2_b", 0)),
    ),
    ModuleKind.GLORA: (
        (("a1.weight", 1), ("a2.weight", 0)), (("a1.weight", 0), ("a2.weight", 1)),
        (("b1.weight", 1), ("bm.weight", 0)), (("bm.weight", 1), ("b2.weight", 0)),
    ),
    ModuleKind.DIAG_OFT: ((("oft_blocks", 1), ("oft_blocks", 2)),),
    ModuleKind.BOFT: ((("oft_blocks", 2), ("oft_blocks", 3)),),
}  # fmt: skip
_AXES: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"), (2,)),
    **dict.fromkeys(("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2_a"), (2,)),
    **dict.fromkeys(("lora_mid.weight", "bm.weight", "hada_t1", "hada_t2", "lokr_t2"), (4,)),
    **dict.fromkeys(("lora_up.weight", "lora_down.weight", "lokr_w2", "lokr_w2_b"), (2, 3, 4, 5)),
    **dict.fromkeys(("a1.weight", "a2.weight", "b1.weight", "b2.weight"), (2, 3, 4, 5)),
    "oft_blocks": (3, 4), "diff": (1, 2, 3, 4, 5), "w_norm": (1,), "b_norm": (1,), "diff_b": (1,),
}  # fmt: skip
"""Allowed numbers of axes of a tensor. Tensors that are not listed may have any."""

_POINTS = ("lora_up.weight", "a1.weight", "a2.weight", "b1.weight")
"""Tensors that are linear or 1x1 convolutions."""


def misshapen(kind: ModuleKind, shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Return the problems of a module's shapes: mismatched sizes, or zeros."""
    axes_of = {**_AXES, **({"lokr_w2_b": (2,)} if "lokr_t2" in shapes else {})}
    problems = [
        f"{part} has the shape {shape}"
        for part, shape in shapes.items()
        if 0 in shape or len(shape) not in axes_of.get(part, (len(shape),))
    ]
    equal = list(_EQUAL.get(kind, ()))
    if kind is ModuleKind.LOKR and "lokr_t2" not in shapes:
        equal.append((("lokr_w2_a", 1), ("lokr_w2_b", 0)))
    if kind is ModuleKind.GLORA and "bm.weight" not in shapes:
        equal.append((("b1.weight", 1), ("b2.weight", 0)))
    for axes in equal:
        present = [(part, axis) for part, axis in axes if part in shapes]
        short = any(len(shapes[part]) <= axis for part, axis in present)  # reported above
        if not short and len({shapes[part][axis] for part, axis in present}) > 1:
            problems.append("ranks differ: " + ", ".join(f"{part} {shapes[part]}" for part, _ in present))
    points = (
        *_POINTS,
        *(("lora_down.weight",) if kind is ModuleKind.TUCKER else ()),
        *(("b2.weight",) if "bm.weight" in shapes else ()),
    )
    problems += [
        f"{part} has the shape {shapes[part]}, which is not a 1x1 convolution"
        for part in points
        if set(shapes.get(part, ())[2:]) - {1}
    ]
    problems += _magnitudes(kind, shapes) if not problems else []
    alpha = shapes.get("alpha", ())
    return problems if alpha in ((), (1,)) else [*problems, f"alpha has the shape {alpha}"]


def _magnitudes(kind: ModuleKind, shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Return the problem of DoRA magnitudes by neither output nor input.

    LyCORIS 3.4.0 has (out, 1, …) or, by input, (1, in, …); PEFT has (out,) or (1, out, 1, 1).
    """
    shape, size = shapes.get("dora_scale"), extent(kind, shapes)
    if shape is None or size is None:
        return []
    count = prod(shape)
    by_input = shape[:1] == (1,) and len(shape) > 1 and count > 0 and size[1] % count == 0
    if shape and (count == size[0] or by_input):
        return []
    return [f"dora_scale has the shape {shape}, where the layer has {size[0]} outputs"]


def extent(kind: ModuleKind, shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, int] | None:
    """Return (out, in*k*k) of a module's weight. None: only the base has it."""

    def flat(part: str) -> int:
        return prod(shapes[part][1:])

    match kind:
        case ModuleKind.LORA:
            return shapes["lora_up.weight"][0], flat("lora_down.weight")
        case ModuleKind.TUCKER:
            return shapes["lora_up.weight"][0], shapes["lora_down.weight"][1] * prod(shapes["lora_mid.weight"][2:])
        case ModuleKind.LOHA:
            return shapes["hada_w1_a"][0], flat("hada_w1_b")
        case ModuleKind.LOHA_TUCKER:
            return shapes["hada_w1_a"][1], shapes["hada_w1_b"][1] * prod(shapes["hada_t1"][2:])
        case ModuleKind.LOKR:
            first = shapes.get("lokr_w1") or (shapes["lokr_w1_a"][0], shapes["lokr_w1_b"][1])
            if "lokr_t2" in shapes:
                rows, columns = shapes["lokr_w2_a"][1], shapes["lokr_w2_b"][1] * prod(shapes["lokr_t2"][2:])
            elif "lokr_w2" in shapes:
                rows, columns = shapes["lokr_w2"][0], flat("lokr_w2")
            else:
                rows, columns = shapes["lokr_w2_a"][0], flat("lokr_w2_b")
            return first[0] * rows, first[1] * columns
        case ModuleKind.FULL if len(shapes["diff"]) > 1:
            return shapes["diff"][0], flat("diff")
        case ModuleKind.FULL | ModuleKind.NORM | ModuleKind.BIAS:
            return None
        case ModuleKind.IA3 | ModuleKind.GLORA | ModuleKind.DIAG_OFT | ModuleKind.BOFT:
            return None
    assert_never(kind)


def kernel(shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    """Return the kernel in a module's tensors, () for linear and flat ones."""
    parts = ("lora_mid.weight", "hada_t1", "lokr_t2", "lora_down.weight", "lokr_w2", "lokr_w2_b")
    return next((shapes[part][2:] for part in parts if part in shapes), ())


def scaled_parts(kind: ModuleKind, parts: frozenset[str]) -> tuple[str, ...] | None:
    """Return the tensors to multiply by w to multiply the delta by w.

    None: no tensor does that (rotations, and all kinds with dora_scale, which normalizes the sum).
    """
    if "dora_scale" in parts:
        return None
    bias = ("diff_b",) if "diff_b" in parts else ()
    match kind:
        case ModuleKind.LORA | ModuleKind.TUCKER:
            return ("lora_up.weight", *bias)
        case ModuleKind.LOHA | ModuleKind.LOHA_TUCKER:
            return ("hada_w1_a", *bias)
        case ModuleKind.LOKR:
            return ("lokr_w1" if "lokr_w1" in parts else "lokr_w1_a", *bias)
        case ModuleKind.FULL | ModuleKind.NORM | ModuleKind.BIAS:
            return tuple(sorted(parts))
        case ModuleKind.IA3:
            return ("weight",)
        case ModuleKind.GLORA:
            # two terms, W·a and b: one factor of each
            return ("a1.weight", "b1.weight")
        case ModuleKind.DIAG_OFT | ModuleKind.BOFT:
            return None
    assert_never(kind)
