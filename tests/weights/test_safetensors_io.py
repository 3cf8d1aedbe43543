"""Headers as untrusted input, hashes by the trainer's rule, and outputs that appear whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
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
from safetensors import safe_open

from orchestrator.errors import OrchestratorError, RecipeError
from orchestrator.weights.compare import compare
from orchestrator.weights.convert import convert
from orchestrator.weights.inspect import inspect
from orchestrator.weights.io import dtypes, metadata, safetensors_io, writer
from orchestrator.weights.io.safetensors_io import Entry, canonical, encode_header, read_header
from orchestrator.weights.io.writer import edit_metadata
from orchestrator.weights.merge import merge
from orchestrator.weights.options import MergeOptions, ResizeOptions
from orchestrator.weights.resize import resize
from weights_samples import LAYERS, LINEAR, OTHER, TE, lora, raw, read, sample, tensors, write


def _made(path: Path, header: bytes | dict[str, Any], body: bytes = b"", length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + body)
    return path


def _tensor(begin: int, end: int, shape: list[Any] | None = None, dtype: str = "F16") -> dict[str, Any]:
    return {"dtype": dtype, "shape": [(end - begin) // 2] if shape is None else shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("header", "body", "length", "said"),
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
def test_a_broken_header_is_an_error_that_says_what(
    tmp_path: Path, header: bytes | dict[str, Any], body: bytes, length: int | None, said: str
) -> None:
    path = _made(tmp_path / "a.safetensors", header, body, length)
    with pytest.raises(RecipeError, match=said):
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
def test_no_damage_to_a_header_ends_in_anything_but_an_error_or_a_sound_file(tmp_path: Path, data: st.DataObject) -> None:
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
def test_random_bytes_are_no_file(tmp_path: Path, raw_: bytes) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(raw_)
    try:
        header = read_header(path)
    except RecipeError:
        return
    assert header.body + sum(entry.size for entry in header.entries.values()) == len(raw_)


def test_headers_are_written_as_safetensors_writes_them(tmp_path: Path) -> None:
    rng = random.Random(3)  # noqa: S311
    kinds = [np.float16, np.float32, np.float64, np.int64, np.int32, np.uint8, np.int16, np.bool_, np.uint64]
    arrays = {f"t{rng.random()}": np.ones((rng.randint(0, 3), 2), rng.choice(kinds)) for _ in range(40)}
    entries = {"a": 'é\x7f\u2028"\\\n\x01\x08/', "ss_x": "1"}
    for chosen in (entries, {}):
        path = tmp_path / "a.safetensors"
        safetensors.numpy.save_file(arrays, path, chosen)
        header = read_header(path)
        order = list(header.entries.values())
        assert canonical(rng.sample(order, len(order))) == order
        encoded = encode_header(order, header.metadata)
        assert len(encoded) == header.body  # a dictionary's order is not promised there
        assert json.loads(encoded[8:]) == json.loads(path.read_bytes()[8 : header.body])


def test_what_is_written_can_be_read_by_safetensors(tmp_path: Path) -> None:
    path = lora(tmp_path / "a.safetensors", dtype="F16", title="黒猫")
    with safe_open(str(path), "np") as found:
        assert found.metadata()["title"] == "黒猫"
        for key, values in read(path).items():
            np.testing.assert_array_equal(found.get_tensor(key).astype(np.float32), values)


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_tables_scale_every_one_of_the_65536_values(dtype: str) -> None:
    every = np.arange(65536, dtype=np.uint32).astype(np.uint16)
    values = dtypes.decode(every.tobytes(), dtype)
    for weight in (0.5, -1.0, 0.3, 1e-4):
        table = dtypes.scale_table(dtype, weight)
        assert table is not None
        found = dtypes.decode(table.tobytes(), dtype)
        with np.errstate(all="ignore"):
            exact = values * np.float32(weight)
        expected = dtypes.decode(dtypes.encode(exact, dtype, "x"), dtype)
        np.testing.assert_array_equal(found, expected)


def test_bfloat16_rounds_as_torch_does() -> None:
    torch = pytest.importorskip("torch")
    values = np.concatenate([np.random.default_rng(0).standard_normal(5000) * 10.0**k for k in range(-40, 38, 6)]).astype(
        np.float32
    )
    ours = dtypes.decode(dtypes.encode(values, "BF16", "x"), "BF16")
    np.testing.assert_array_equal(ours, torch.from_numpy(values).to(torch.bfloat16).float().numpy())
    halves = np.arange(65536, dtype=np.uint32).astype(np.uint16)
    np.testing.assert_array_equal(dtypes.decode(halves.tobytes(), "F16"), halves.view(np.float16).astype(np.float32))


def test_hashes_are_those_of_the_real_trainer() -> None:
    found = writer.hashes(read_header(sample("lora3x3")))
    assert (found.model, found.legacy) == (found.stated_model, found.stated_legacy)
    theirs = writer.hashes(read_header(sample("locon")))
    assert theirs.stated_model is not None
    assert theirs.stated_model.startswith("0x")
    assert theirs.model_agrees is None


def test_hashes_do_not_depend_on_the_order_of_the_body(tmp_path: Path) -> None:
    path = lora(tmp_path / "a.safetensors", dtype="F16", ss_a="b")
    header, values = read_header(path), read(path)
    known = writer.hashes(header)
    chunks, begin, table = [], 0, {}
    for key in sorted(values, reverse=True):
        data = values[key].astype(np.float16).tobytes()
        table[key] = {"dtype": "F16", "shape": list(values[key].shape), "data_offsets": [begin, begin + len(data)]}
        begin += len(data)
        chunks.append(data)
    other = _made(tmp_path / "b.safetensors", {"__metadata__": header.metadata, **table}, b"".join(chunks))
    again = writer.hashes(read_header(other))
    assert (again.model, again.legacy) == (known.model, known.legacy)
    assert hashlib.sha256(raw(path)).hexdigest() == known.model


def test_the_legacy_hash_is_of_a_window_behind_the_header(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    safetensors_torch = pytest.importorskip("safetensors.torch")
    tensors = {f"{TE}.{side}": torch.randn(700, 600).half() for side in ("lora_up.weight", "lora_down.weight")}
    path = tmp_path / "a.safetensors"
    safetensors_torch.save_file(tensors, path, {"ss_a": "b" * 5000, "other": "c" * 3000})
    whole = safetensors_torch.save(tensors, {"ss_a": "b" * 5000})
    expected = hashlib.sha256(whole[0x100000:0x110000]).hexdigest()[:8]
    assert len(whole) > 0x110000
    assert writer.hashes(read_header(path)).legacy == expected


def test_metadata_are_edited_without_touching_the_body(tmp_path: Path) -> None:
    source, output = lora(tmp_path / "a.safetensors", ss_old="1", drop="x"), tmp_path / "b.safetensors"
    hashes = edit_metadata(source, output, {"ss_new": "黒", "drop": None, "ssmd_rating": "5"})
    assert raw(output) == raw(source)
    header = read_header(output)
    assert header.metadata.items() >= {"ss_old": "1", "ss_new": "黒", "ssmd_rating": "5"}.items()
    assert "drop" not in header.metadata
    found = writer.hashes(header)
    assert (found.model_agrees, found.legacy_agrees, found.model) == (True, True, hashes.model)


def test_the_input_is_never_the_output_unless_asked(tmp_path: Path) -> None:
    source = lora(tmp_path / "a.safetensors")
    before = source.read_bytes()
    (tmp_path / "link.safetensors").symlink_to(source)
    for output in (source, tmp_path / "link.safetensors"):
        for act in (merge, resize, convert, edit_metadata):
            arguments = {merge: (MergeOptions("FACE"),), resize: (ResizeOptions(),), edit_metadata: ({},)}.get(act, ())
            with pytest.raises(RecipeError, match="input itself"):
                act(source, output, *arguments)
    assert source.read_bytes() == before
    merge(source, source, MergeOptions([0.5] * 26), overwrite=True)
    assert source.read_bytes() != before


@pytest.mark.parametrize(("name", "said"), [("a.ckpt", "not a name"), ("no/where.safetensors", "does not exist")])
def test_an_output_that_cannot_be_is_refused_first(tmp_path: Path, name: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        merge(lora(tmp_path / "a.safetensors"), tmp_path / name, MergeOptions("FACE"))


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path) -> None:
    def broken() -> list[bytes]:
        raise RecipeError([])

    pieces = [writer.raw("a.alpha", "F32", (), bytes(4)), writer.Piece(Entry("b.alpha", "F32", ()), broken)]
    with pytest.raises(RecipeError):
        writer.write_safetensors(tmp_path / "a.safetensors", pieces, {})
    short = [writer.raw("a.alpha", "F32", (2,), bytes(4))]
    with pytest.raises(RecipeError, match="4 bytes where"):
        writer.write_safetensors(tmp_path / "a.safetensors", short, {})
    assert not list(tmp_path.iterdir())


def test_provenance_that_is_none_counts_as_nothing() -> None:
    for text in ("[1, 2]", "nonsense", '{"a": 1}', "[" * 100000):
        assert metadata.provenance({metadata.PROVENANCE: text}) == []


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), family=st.sampled_from([*LINEAR, *OTHER]))
def test_shapes_that_do_not_fit_are_problems_not_crashes(tmp_path: Path, data: st.DataObject, family: str) -> None:
    parts = tensors(family, data.draw(st.sampled_from(list(LAYERS.values()))), 2, np.random.default_rng(0))
    part = data.draw(st.sampled_from(sorted(parts)))
    shape = tuple(data.draw(st.lists(st.integers(0, 4), max_size=4)))
    path = write(tmp_path / "a.safetensors", {"lora_unet_conv_in": {**parts, part: np.ones(shape, np.float32)}})
    out = tmp_path / "out.safetensors"
    for act in (
        inspect,
        lambda file: compare(file, file),
        lambda file: merge(file, out, MergeOptions([0.5] * 26)),
        lambda file: resize(file, out, ResizeOptions()),
        lambda file: convert(file, out, "full"),
        lambda file: convert(file, out, "lora", rank=2),
        lambda file: convert(file, out, "diffusers"),
    ):
        with contextlib.suppress(OrchestratorError):
            act(path)


@pytest.mark.parametrize("begin", [b"PK\x03\x04", b"\x80\x02}q\x00"])
def test_a_pickle_with_another_name_is_called_one(tmp_path: Path, begin: bytes) -> None:
    path = tmp_path / "renamed.safetensors"
    path.write_bytes(begin + bytes(64))
    with pytest.raises(RecipeError, match="is a pickle of torch, despite its name"):
        read_header(path)


@pytest.mark.parametrize(
    "parts",
    [
        {"lora_up.weight": (40000, 1), "lora_down.weight": (1, 40000)},
        {"lokr_w1": (400, 400), "lokr_w2": (400, 400)},
        {"lokr_w1_a": (400, 1), "lokr_w1_b": (1, 400), "lokr_w2_a": (400, 1), "lokr_w2_b": (1, 400)},
        {"hada_w1_a": (40000, 1), "hada_w1_b": (1, 40000), "hada_w2_a": (40000, 1), "hada_w2_b": (1, 40000)},
    ],
)
def test_small_factors_of_an_enormous_weight_are_refused(tmp_path: Path, parts: dict[str, tuple[int, ...]]) -> None:
    module = {name: np.zeros(shape, np.float16) for name, shape in parts.items()}
    path = write(tmp_path / "bomb.safetensors", {"lora_unet_conv_in": module})
    for act in (inspect, lambda file: convert(file, tmp_path / "out.safetensors", "full")):
        with pytest.raises(RecipeError, match="expands to a weight of"):
            act(path)


@pytest.mark.parametrize("length", [0x0280, 0x030280])
def test_a_header_whose_length_looks_like_a_pickle_is_read(tmp_path: Path, length: int) -> None:
    header = json.dumps({"__metadata__": {"note": ""}}).encode()
    path = _made(tmp_path / "sound.safetensors", header + b" " * (length - len(header)))
    assert path.read_bytes()[:2] == b"\x80\x02"
    assert read_header(path).metadata == {"note": ""}


@pytest.mark.parametrize(("kind", "bits"), [("F64", 0xFFF << 52), ("F32", 0x7F800000), ("F16", 0x7E00), ("BF16", 0xFF80)])
def test_infinities_and_nan_in_the_weights_are_found(tmp_path: Path, kind: str, bits: int) -> None:
    width = safetensors_io.WIDTHS[kind]
    numbers = [0, 1, 2, bits]
    data = b"".join(number.to_bytes(width, "little") for number in numbers)
    file = tmp_path / "x.safetensors"
    for count, found in ((3, 0), (4, 1)):
        table = {"a": {"dtype": kind, "shape": [count], "data_offsets": [0, count * width]}}
        header = json.dumps(table).encode()
        file.write_bytes(struct.pack("<Q", len(header)) + header + data[: count * width])
        assert len(safetensors_io.non_finite_tensors(file)) == found


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@given(data=st.data())
def test_non_finite_numbers_are_those_that_numpy_names(dtype: type[np.floating[Any]], data: st.DataObject) -> None:
    values = data.draw(arrays(dtype, st.integers(1, 40)))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "x.safetensors"
        content = {"long": np.zeros(20_000, dtype), "x": np.concatenate([np.zeros(9_000, dtype), values])}
        safetensors.numpy.save_file(content, file)
        assert safetensors_io.non_finite_tensors(file) == (() if np.isfinite(values).all() else ("x",))
