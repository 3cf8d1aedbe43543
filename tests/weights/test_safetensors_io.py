"""Headers as untrusted input, and non-finite numbers."""

from __future__ import annotations

import contextlib
import json
import struct
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from orchestrator.errors import OrchestratorError, RecipeError
from orchestrator.weights.inspect import inspect
from orchestrator.weights.io import non_finite, safetensors_io
from orchestrator.weights.io.safetensors_io import read_header
from orchestrator.weights.io.scan import ScannedBody
from orchestrator.weights.merge import merge
from orchestrator.weights.options import MergeOptions
from weights_samples import lora


def _made(path: Path, header: bytes | dict[str, Any], body: bytes = b"", length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + body)
    return path


def _tensor(begin: int, end: int, shape: list[Any] | None = None, dtype: str = "F16") -> dict[str, Any]:
    return {"dtype": dtype, "shape": [(end - begin) // 2] if shape is None else shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("header", "body", "length", "message"),
    [
        ({}, b"", 2**63, "states a header of"),
        ({}, b"", 2**40, "states a header of"),
        (b"not json", b"", None, "not JSON"),
        (b"\xff\xfe", b"", None, "not JSON"),
        (b"[" * 60000, b"", None, "not JSON"),
        (b'{"a":' * 60000, b"", None, "not JSON"),
        (b"[]", b"", None, "not a table"),
        (
            b'{"a":{"dtype":"F16","shape":[1],"data_offsets":[0,2]},"a":{"dtype":"F16","shape":[1],"data_offsets":[0,2]}}',
            b"12",
            None,
            "twice",
        ),
        ({"a": _tensor(0, 4), "b": _tensor(2, 6)}, b"123456", None, "'b' starts at 2"),
        ({"a": _tensor(0, 2), "b": _tensor(4, 6)}, b"123456", None, "'b' starts at 4"),
        ({"a": _tensor(0, 4)}, b"12", None, "accounts for 4"),
        ({"a": _tensor(0, 2)}, b"1234", None, "accounts for 2"),
        ({"a": _tensor(0, 2, dtype="F99")}, b"12", None, "unknown type 'F99'"),
        ({"a": _tensor(0, 2, shape=[-1])}, b"12", None, "impossible shape"),
        ({"a": _tensor(0, 2, shape=[True])}, b"12", None, "impossible shape"),
        ({"a": _tensor(0, 2, shape=[1.0])}, b"12", None, "impossible shape"),
        ({"a": _tensor(0, 2, shape=[2**62, 2**62])}, b"12", None, "needs"),
        ({"a": _tensor(0, 2, shape=[1] * 99)}, b"12", None, "impossible shape"),
        ({"a": {"dtype": "F16", "shape": [1], "data_offsets": [2, 0]}}, b"12", None, "bytes; its shape"),
        ({"a": {"dtype": "F16", "shape": [1], "data_offsets": [0]}}, b"12", None, "impossible offsets"),
        ({"a": {"dtype": "F16", "shape": [1]}}, b"12", None, "not described"),
        ({"a": 3}, b"", None, "not described"),
        ({"__metadata__": {"a": 1}}, b"", None, "not text"),
        ({"__metadata__": []}, b"", None, "not text"),
    ],
)
def test_a_broken_header_is_an_error_with_its_reason(
    tmp_path: Path, header: bytes | dict[str, Any], body: bytes, length: int | None, message: str
) -> None:
    path = _made(tmp_path / "a.safetensors", header, body, length)
    with pytest.raises(RecipeError, match=message):
        read_header(path)


def test_a_header_beyond_the_limit_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    with path.open("wb") as file:
        file.write((safetensors_io.MAX_HEADER + 1).to_bytes(8, "little"))
        file.truncate(safetensors_io.MAX_HEADER + 100)  # sparse
    with pytest.raises(RecipeError, match="at most"):
        read_header(path)


@pytest.mark.parametrize("size", range(12))
def test_short_files_are_errors(tmp_path: Path, size: int) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(lora(tmp_path / "whole.safetensors").read_bytes()[:size])
    with pytest.raises(RecipeError):
        read_header(path)


@pytest.mark.parametrize("suffix", ["ckpt", "pt", "pth", "bin"])
def test_pickles_are_refused_with_the_reason(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(b"\x80\x02.")
    with pytest.raises(RecipeError, match="pickle can run any program"):
        read_header(path)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_header_is_an_error_or_a_sound_file(tmp_path: Path, data: st.DataObject) -> None:
    whole = lora(tmp_path / "whole.safetensors", ss_network_dim="4").read_bytes()
    length = 8 + int.from_bytes(whole[:8], "little")
    changed = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 6))):
        changed[data.draw(st.integers(0, length - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "changed.safetensors"
    path.write_bytes(bytes(changed[: data.draw(st.sampled_from([len(changed), length, length - 1]))]))
    for act in (read_header, inspect, lambda file: merge(file, tmp_path / "out.safetensors", MergeOptions("FACE"))):
        with contextlib.suppress(OrchestratorError):
            act(path)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(raw_=st.binary(max_size=200))
def test_random_bytes_are_not_a_file(tmp_path: Path, raw_: bytes) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(raw_)
    try:
        header = read_header(path)
    except RecipeError:
        return
    assert header.body + sum(entry.size for entry in header.entries.values()) == len(raw_)


@pytest.mark.parametrize("begin", [b"PK\x03\x04", b"\x80\x02}q\x00"])
def test_a_renamed_pickle_is_recognized(tmp_path: Path, begin: bytes) -> None:
    path = tmp_path / "renamed.safetensors"
    path.write_bytes(begin + bytes(64))
    with pytest.raises(RecipeError, match="is a pickle of torch, despite its name"):
        read_header(path)


@pytest.mark.parametrize("length", [0x0280, 0x030280])
def test_a_header_whose_length_looks_like_a_pickle_is_read(tmp_path: Path, length: int) -> None:
    header = json.dumps({"__metadata__": {"note": ""}}).encode()
    path = _made(tmp_path / "sound.safetensors", header + b" " * (length - len(header)))
    assert path.read_bytes()[:2] == b"\x80\x02"
    assert read_header(path).metadata == {"note": ""}


@pytest.mark.parametrize(("kind", "bits"), [("F64", 0xFFF << 52), ("F32", 0x7F800000), ("F16", 0x7E00), ("BF16", 0xFF80)])
def test_infinities_and_nan_are_detected(tmp_path: Path, kind: str, bits: int) -> None:
    width = safetensors_io.WIDTHS[kind]
    numbers = [0, 1, 2, bits]
    data = b"".join(number.to_bytes(width, "little") for number in numbers)
    file = tmp_path / "x.safetensors"
    for count, affected in ((3, 0), (4, 1)):
        table = {"a": {"dtype": kind, "shape": [count], "data_offsets": [0, count * width]}}
        header = json.dumps(table).encode()
        file.write_bytes(struct.pack("<Q", len(header)) + header + data[: count * width])
        assert len(non_finite.non_finite_tensors(file)) == affected
        with ScannedBody(read_header(file)) as body:
            assert len(body.non_finite()) == affected


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@given(data=st.data())
def test_non_finite_numbers_are_those_of_numpy(dtype: type[np.floating[Any]], data: st.DataObject) -> None:
    values = data.draw(arrays(dtype, st.integers(1, 40)))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "x.safetensors"
        content = {"long": np.zeros(20_000, dtype), "x": np.concatenate([np.zeros(9_000, dtype), values])}
        safetensors.numpy.save_file(content, file)
        affected = () if np.isfinite(values).all() else ("x",)
        assert non_finite.non_finite_tensors(file) == affected
        with ScannedBody(read_header(file)) as body:
            assert b"".join(body.chunks("x", 1 << 10)) == content["x"].tobytes()
            assert body.non_finite() == affected


def test_a_report_names_three_of_the_tensors_that_are_not_finite() -> None:
    assert non_finite.explain_non_finite([]) == []
    assert non_finite.explain_non_finite(["a", "b", "c"]) == [
        "NaN or infinity in 3 tensors: a, b, c; an earlier checkpoint may be sound"
    ]
    assert non_finite.explain_non_finite(["a", "b", "c", "d"])[0].startswith("NaN or infinity in 4 tensors: a, b, c …;")
