"""Programs that open LoRA files, and the result for each form of a file.

Every cell was seen: the program's own loader ran on files of SD1.5 (linear layers, 1x1 and 3x3 convolutions, text encoder)
that LyCORIS 3.4.0 and this program wrote, and its weights were compared with the exact ones. Names of SDXL were compared too.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from orchestrator.models.registry import ARCHITECTURES, SMALL_BASE
from orchestrator.weights.families.adapter import adapter
from orchestrator.weights.families.kinds import ModuleKind
from orchestrator.weights.io.safetensors_io import read_header

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from orchestrator.models.registry import ArchitectureName
    from orchestrator.recipe import Network
    from orchestrator.weights.families.adapter import Adapter, AdapterModule


class Reading(StrEnum):
    """The result of a file in a program, from best to worst."""

    READS = "reads"
    UNSEEN = "not tried"
    PARTLY = "leaves out modules"
    WRONG = "applies it wrongly"
    IGNORES = "applies nothing"
    REFUSES = "refuses"


@dataclass(frozen=True, slots=True)
class Reader:
    """A program, the version in which it was seen, and its result for a file."""

    program: str
    version: str
    reading: Reading
    note: str = ""

    @property
    def title(self) -> str:
        """Program and version."""
        return f"{self.program} ({self.version})" if self.version else self.program

    def to_json(self) -> dict[str, str]:
        """Return the reader as plain JSON."""
        return {"program": self.program, "version": self.version, "reading": str(self.reading), "note": self.note}


PROGRAMS = (
    ("A1111", "fork of 2025-11"),
    ("ComfyUI", "2025-10"),
    ("Forge", "2025-06"),
    ("Additional Networks", ""),
    ("a1111-sd-webui-locon", ""),
    ("a1111-sd-webui-lycoris", "2024-02"),
    ("diffusers", "0.32.1"),
    ("diffusers", "0.35.2"),
    ("LyCORIS", "3.4.0"),
    ("sd-scripts", "v0.10.1"),
    ("stable-diffusion.cpp", "names only"),
)
"""Programs and the versions in which they were seen."""
SEEN: tuple[ArchitectureName, ...] = ("sd1", "sdxl")
"""Architectures of the files that were tried."""
_TYPES = {"F16", "BF16", "F32"}
_ROOTS, _ENDINGS = ("unet.", "text_encoder"), (".lora_A.weight", ".lora_B.weight")
"""Beginnings and ends of keys in the files with diffusers' names."""
_CODES = {
    "+": Reading.READS, "?": Reading.UNSEEN, "~": Reading.PARTLY,
    "!": Reading.WRONG, "0": Reading.IGNORES, "x": Reading.REFUSES,
}  # fmt: skip
# One letter for each program, in the order of PROGRAMS.
_KOHYA = {
    "lora":          "+++++++++++",
    "mixed ranks":   "++++++!++++",
    "conv_in":       "+++x++~~+~~",
    "locon tucker":  "+++!++xx+!+",
    "loha":          "+++0+?x?+0+",
    "loha tucker":   "+++0++x?+0+",
    "lokr":          "+++0++x?+0+",
    "lokr tucker":   "+~x0!+??x?~",
    "glora":         "x++0x0x?+00",
    "full":          "+++0x+x??0+",
    "diag-oft":      "++x0x0??+??",
    "boft":          "++x0x0x?+00",
    "dora":          "!!!!x!!!+!?",
    "dora by input": "+++!x?!!x!?",
    "oft rescaled":  "+!x0x0??+??",
    "other":         "???????????",
}  # fmt: skip
_DIFFUSERS = {
    "lora":          "0~0x??++?0?",
    "mixed ranks":   "0~0x??!!?0?",
}  # fmt: skip
_NOTES = {
    ("lokr tucker", "ComfyUI"): "its 3x3 convolutions",
    ("lokr tucker", "Forge"): "an error",
    ("lokr tucker", "LyCORIS"): "an error",
    ("glora", "A1111"): "an error in every module",
    ("conv_in", "Additional Networks"): "for conv_in",
    ("conv_in", "diffusers"): "conv_in",
    ("conv_in", "sd-scripts"): "conv_in",
    ("conv_in", "stable-diffusion.cpp"): "conv_in",
    ("locon tucker", "sd-scripts"): "in silence",
    ("dora", "Additional Networks"): "in silence",
    ("diffusers", "ComfyUI"): "128 of 350 are found on SD1.5, 560 of 1052 on SDXL",
    ("diffusers", "A1111"): "none of 350 modules is found",
    ("diffusers", "Forge"): "none of 350 modules is found",
}
CORES = ("lora_mid.weight", "hada_t1", "lokr_t2")
"""Tensors of Tucker convolutions."""


def readers(forms: Iterable[str], naming: str = "kohya", architecture: ArchitectureName | None = "sd1") -> tuple[Reader, ...]:
    """Return the result of every program for a file.

    Args:
        forms: forms of its modules, as :func:`forms_of` returns them.
        naming: convention of its names: kohya or diffusers. For others nothing was tried.
        architecture: of its base model. Only SD1.5 and SDXL were tried.
    """
    tables = {"kohya": _KOHYA, "diffusers": _DIFFUSERS}
    table = tables.get(naming, {}) if architecture in SEEN else {}
    return tuple(_reader(number, list(forms), table) for number in range(len(PROGRAMS)))


def _reader(number: int, forms: list[str], table: dict[str, str]) -> Reader:
    program, version = PROGRAMS[number]
    worst, note = Reading.READS if forms else Reading.UNSEEN, ""
    for form in forms:
        reading = _CODES[table[form][number]] if form in table else Reading.UNSEEN
        if list(Reading).index(reading) > list(Reading).index(worst):
            key = form if table is _KOHYA else "diffusers"
            several = form if len(forms) > 1 else ""
            worst, note = reading, _NOTES.get((key, program), several if table is _KOHYA else "names of diffusers")
    if worst in (Reading.READS, Reading.UNSEEN):
        note = ""
    return Reader(program, version, worst, note)


def forms_of(lora: Adapter) -> tuple[str, ...]:
    """Return the forms of a file's modules, by which programs differ."""
    forms = {_form(module) for module in lora.modules}
    forms |= {"conv_in" for module in lora.modules if module.kohya in ("lora_unet_conv_in", "lora_unet_input_blocks_0_0")}
    if len({module.rank for module in lora.modules if module.rank is not None}) > 1:
        forms.add("mixed ranks")
    return tuple(form for form in _KOHYA if form in forms)


def _form(module: AdapterModule) -> str:
    """Return the form of a module: a row of the table."""
    if module.dora:
        shape = module.shapes["dora_scale"]
        return "dora by input" if len(shape) > 1 and shape[0] == 1 and shape[1] != 1 else "dora"
    if module.kind is ModuleKind.LOKR and module.tucker:
        return "lokr tucker"
    if "rescale" in module.parts:
        return "oft rescaled"
    if module.kind.low_rank and "diff_b" in module.parts:
        return "other"
    kind = "full" if module.kind in (ModuleKind.FULL, ModuleKind.BIAS) else str(module.kind)
    return kind if kind in _KOHYA else "other"


def of_network(network: Network) -> tuple[str, ...]:
    """Return the forms of the file that a recipe's network trains."""
    if network.args.get("dora_wd"):
        return ("dora by input",) if network.args.get("wd_on_out") is False else ("dora",)
    tucker = network.tucker and network.family in ("locon", "loha", "lokr")
    form = f"{network.family} tucker" if tucker else network.family
    return (form if form in _KOHYA else "lora",)


def of_file(lora: Adapter) -> tuple[Reader, ...]:
    """Return the result of every program for a file.

    Nothing was tried for names or types other than those of the files that were.
    """
    return readers(forms_of(lora), lora.naming, lora.architecture if _as_tried(lora) else None)


def _as_tried(lora: Adapter) -> bool:
    """Return whether names and types are those of the files that were tried."""
    if not lora.dtypes.keys() <= _TYPES | {"I64"} or len(lora.conventions) != 1 or lora.recognition.unknown or lora.bundled:
        return False
    if lora.naming == "kohya":
        return all(module.name == module.kohya for module in lora.modules)
    keys = (key for module in lora.modules for key in module.keys.values())
    return all(key.startswith(_ROOTS) and key.endswith(_ENDINGS) for key in keys)


def of_path(path: Path) -> tuple[Reader, ...]:
    """Return the result of every program for a file, by its header.

    Raises:
        RecipeError: it is not a sound LoRA file.
    """
    return of_file(adapter(read_header(path)))


def explain_file(lora: Adapter) -> list[str]:
    """Return who opens a file, in lines. Those of the demo open here only."""
    if lora.header.metadata.get("modelspec.architecture", "").startswith(SMALL_BASE):
        return ["opened by  krnk only: it is of the demo's small base model"]
    return explain(of_file(lora), lora.architecture)


def explain(results: Iterable[Reader], architecture: ArchitectureName | None) -> list[str]:
    """Return who opens a file, in lines."""
    results = list(results)
    if all(reader.reading is Reading.UNSEEN for reader in results):
        title = ARCHITECTURES[architecture].title if architecture else "an unknown architecture"
        return [f"opened by  not tried for files of {title} with these forms, names and types"]
    return [f"{label:<10} {text}" for label, text in _grouped(results)]


def _grouped(results: list[Reader]) -> Iterator[tuple[str, str]]:
    for reading in Reading:
        chosen = [reader for reader in results if reader.reading is reading]
        label = "opened by" if reading is Reading.READS else ""
        if chosen and reading is not Reading.READS:
            shown = ", ".join(f"{one.title}{f': {one.note}' if one.note else ''}" for one in chosen)
            yield label, f"{reading}: {shown}"
        elif chosen:
            yield label, ", ".join(one.title for one in chosen)


def lost(before: Iterable[Reader], after: Iterable[Reader]) -> list[str]:
    """Return the programs that read one form of a file and not another."""
    return [
        f"{new.title} ({new.reading}{f': {new.note}' if new.note else ''})"
        for old, new in zip(before, after, strict=True)
        if old.reading is Reading.READS and new.reading not in (Reading.READS, Reading.UNSEEN)
    ]


def fewer(network: Network, architecture: ArchitectureName) -> list[str]:
    """Return the programs that read a plain LoRA and not a recipe's family."""
    plain, own = (readers(forms, architecture=architecture) for forms in (("lora",), of_network(network)))
    return lost(plain, own)


def to_json(results: Iterable[Reader]) -> list[dict[str, Any]]:
    """Return readers as plain JSON."""
    return [reader.to_json() for reader in results]
