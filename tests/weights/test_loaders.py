"""Who opens a file, from the table of measured loaders."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from orchestrator.recipe import Network, loader
from orchestrator.weights import loaders
from orchestrator.weights.families.adapter import adapter
from orchestrator.weights.io.safetensors_io import read_header
from orchestrator.weights.loaders import Reading
from weights_samples import LINEAR, OTHER, TE, diffusers_path, lora, modules, sample, tensors, write

if TYPE_CHECKING:
    from pathlib import Path

FORMS = {"dylora": "lora", "locon-tucker": "locon tucker", "loha-tucker": "loha tucker", "lokr-tucker": "lokr tucker"}
FORMS |= {"lokr-decomposed": "lokr", "lokr-whole": "lokr", "norm": "other", "ia3": "other"}


def test_every_row_has_a_result_for_every_program() -> None:
    for table in (loaders._KOHYA, loaders._DIFFUSERS):
        assert all(len(row) == len(loaders.PROGRAMS) and set(row) <= set(loaders._CODES) for row in table.values())
    programs = {program for program, _ in loaders.PROGRAMS}
    assert {program for _, program in loaders._NOTES} <= programs
    assert {form for form, _ in loaders._NOTES} <= {*loaders._KOHYA, "diffusers"}


@pytest.mark.parametrize("family", [*LINEAR, *OTHER])
def test_the_form_of_every_family_is_a_row(tmp_path: Path, family: str) -> None:
    forms = loaders.forms_of(adapter(read_header(lora(tmp_path / "x.safetensors", family))))
    assert FORMS.get(family, family) in forms


@pytest.mark.parametrize(
    ("shape", "form"),
    [((16, 1), "dora"), ((1, 8), "dora by input"), ((1, 1), "dora"), ((1,), "dora"), ((16,), "dora"), ((16, 1, 1, 1), "dora")],
)
def test_magnitudes_by_input_are_a_form_of_their_own(tmp_path: Path, shape: tuple[int, ...], form: str) -> None:
    parts = tensors("lora", (16, 8, None), 2, np.random.default_rng(0)) | {"dora_scale": np.ones(shape, np.float32)}
    if shape in {(1, 1), (1,)}:
        parts |= {"lora_up.weight": np.ones((1, 2), np.float32), "lora_down.weight": np.ones((2, 1), np.float32)}
    path = write(tmp_path / "x.safetensors", {TE: parts})
    assert loaders.forms_of(adapter(read_header(path))) == (form,)


@pytest.mark.parametrize(
    ("forms", "program", "reading"),
    [
        (("lora",), "Additional Networks", Reading.READS),
        (("lora", "conv_in"), "Additional Networks", Reading.REFUSES),
        (("lora", "locon tucker"), "Additional Networks", Reading.WRONG),
        (("lokr", "lokr tucker"), "Forge", Reading.REFUSES),
        (("lokr", "lokr tucker"), "ComfyUI", Reading.PARTLY),
        (("glora",), "A1111", Reading.REFUSES),
        (("diag-oft",), "Forge", Reading.REFUSES),
        (("dora",), "A1111", Reading.WRONG),
        (("dora by input",), "A1111", Reading.READS),
        (("other",), "A1111", Reading.UNSEEN),
    ],
)
def test_the_worst_module_decides(forms: tuple[str, ...], program: str, reading: Reading) -> None:
    (result,) = [reader for reader in loaders.readers(forms) if reader.program == program]
    assert result.reading is reading


def test_names_of_diffusers_are_read_by_diffusers_alone() -> None:
    names = loaders.readers(("lora",), "diffusers")
    assert [reader.title for reader in names if reader.reading is Reading.READS] == [
        "diffusers (0.32.1)",
        "diffusers (0.35.2)",
    ]
    lost = loaders.lost(loaders.readers(("lora",)), names)
    assert "A1111 (fork of 2025-11) (applies nothing: none of 350 modules is found)" in lost
    assert "ComfyUI (2025-10) (leaves out modules: 128 of 350 are found on SD1.5, 560 of 1052 on SDXL)" in lost
    assert loaders.lost(names, names) == []


def test_nothing_is_stated_for_files_that_were_not_tried() -> None:
    for results in (loaders.readers(("lora",), architecture="flux"), loaders.readers(("lora",), "original")):
        assert {reader.reading for reader in results} == {Reading.UNSEEN}
    (line,) = loaders.explain(loaders.readers(("lora",), architecture="flux"), "flux")
    assert "not tried for files of FLUX.1-dev" in line


def test_a_released_file_is_explained() -> None:
    lines = loaders.explain(loaders.of_path(sample("lora3x3")), "sd1")
    assert lines[0].startswith("opened by  A1111 (fork of 2025-11), ComfyUI (2025-10)")


def test_a_plan_names_the_programs_that_do_not_read_the_family(project: Path) -> None:
    recipes = {name: loader.recipe(project / "recipes", name).recipe for name in ("krnk-lora3x3", "krnk-loha")}
    assert loaders.fewer(recipes["krnk-lora3x3"].network, "sd1") == []
    assert "sd-scripts (v0.10.1) (applies nothing" in json.dumps(loaders.fewer(recipes["krnk-loha"].network, "sd1"))
    assert loaders.fewer(recipes["krnk-loha"].network, "flux") == []


def test_ranks_that_differ_are_a_form_of_their_own(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    parts = {f"lora_unet_down_blocks_{n}_attentions_0_proj_in": tensors("lora", (8, 8, 1), n + 1, rng) for n in range(2)}
    forms = loaders.forms_of(adapter(read_header(write(tmp_path / "x.safetensors", parts))))
    assert forms == ("lora", "mixed ranks")


def test_a_file_of_the_demo_opens_here_only(tmp_path: Path) -> None:
    path = lora(tmp_path / "small.safetensors", **{"modelspec.architecture": "krnk-small-base/lora"})
    (line,) = loaders.explain_file(adapter(read_header(path)))
    assert "krnk only" in line


def _readings(path: Path) -> set[Reading]:
    return {reader.reading for reader in loaders.of_path(path)}


def test_nothing_is_stated_of_files_unlike_those_that_were_tried(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    assert Reading.READS in _readings(lora(path, dtype="BF16"))
    untried = {Reading.UNSEEN}
    assert _readings(lora(path, dtype="F8_E4M3")) == _readings(lora(path, dtype="F64")) == untried
    whole = modules(lora(path))
    renamed = {name.replace("lora_te_", "lora_te1_"): parts for name, parts in whole.items()}
    assert _readings(write(path, renamed, entries={"ss_base_model_version": "sd_v1"})) == untried
    first, *rest = whole
    mixed = {diffusers_path(first, "sd1"): whole[first], **{name: whole[name] for name in rest}}
    assert _readings(write(path, mixed, entries={"ss_base_model_version": "sd_v1"})) == untried
    bias = {name: {**parts, "diff_b": np.ones(len(parts["lora_up.weight"]), np.float32)} for name, parts in whole.items()}
    assert _readings(write(path, bias)) == untried
    assert _readings(write(path, {**whole, "lora_unet_strange": whole[first]})) == untried


def test_every_type_that_was_tried_is_known_together_with_the_others(tmp_path: Path) -> None:
    header = read_header(lora(tmp_path / "x.safetensors"))
    types = itertools.cycle(("F16", "BF16", "F32"))
    entries = {
        name: replace(entry, dtype="I64" if name.endswith(".alpha") else next(types)) for name, entry in header.entries.items()
    }
    assert loaders._as_tried(adapter(replace(header, entries=entries)))


@pytest.mark.parametrize(
    ("args", "form"),
    [
        ({"dora_wd": True, "wd_on_out": False}, "dora by input"),
        ({"dora_wd": True, "wd_on_out": True}, "dora"),
        ({"dora_wd": True}, "dora"),
        ({"wd_on_out": False}, "lora"),
    ],
)
def test_the_side_of_the_magnitudes_is_a_form_of_a_network(args: dict[str, bool], form: str) -> None:
    assert loaders.of_network(Network(family="lora", dim=4, alpha=1.0, args=args)) == (form,)
