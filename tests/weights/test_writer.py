"""Files appear whole or not at all, with hashes by the trainer's rule."""

from __future__ import annotations

import hashlib
import json
import os
import random
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import safetensors.numpy
from safetensors import safe_open

from orchestrator.errors import RecipeError
from orchestrator.weights.convert import convert
from orchestrator.weights.io import writer
from orchestrator.weights.io.safetensors_io import Entry, canonical, encode_header, read_header
from orchestrator.weights.io.writer import edit_metadata
from orchestrator.weights.merge import merge
from orchestrator.weights.options import MergeOptions, ResizeOptions
from orchestrator.weights.resize import resize
from weights_samples import TE, lora, raw, read, sample

if TYPE_CHECKING:
    from pathlib import Path


def _made(path: Path, header: bytes | dict[str, Any], body: bytes = b"", length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + body)
    return path


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


def test_written_files_can_be_read_by_safetensors(tmp_path: Path) -> None:
    path = lora(tmp_path / "a.safetensors", dtype="F16", title="黒猫")
    with safe_open(str(path), "np") as written:
        assert written.metadata()["title"] == "黒猫"
        for key, values in read(path).items():
            np.testing.assert_array_equal(written.get_tensor(key).astype(np.float32), values)


def test_hashes_are_those_of_the_real_trainer() -> None:
    written = writer.hashes(read_header(sample("lora3x3")))
    assert (written.model, written.legacy) == (written.stated_model, written.stated_legacy)
    theirs = writer.hashes(read_header(sample("locon")))
    assert theirs.stated_model is not None
    assert theirs.stated_model.startswith("0x")
    assert theirs.model_agrees is None


def test_hashes_do_not_depend_on_the_order_of_the_body(tmp_path: Path) -> None:
    path = lora(tmp_path / "a.safetensors", dtype="F16", ss_a="b")
    header, values = read_header(path), read(path)
    before = writer.hashes(header)
    chunks, begin, table = [], 0, {}
    for key in sorted(values, reverse=True):
        data = values[key].astype(np.float16).tobytes()
        table[key] = {"dtype": "F16", "shape": list(values[key].shape), "data_offsets": [begin, begin + len(data)]}
        begin += len(data)
        chunks.append(data)
    other = _made(tmp_path / "b.safetensors", {"__metadata__": header.metadata, **table}, b"".join(chunks))
    again = writer.hashes(read_header(other))
    assert (again.model, again.legacy) == (before.model, before.legacy)
    assert hashlib.sha256(raw(path)).hexdigest() == before.model


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
    written = writer.hashes(header)
    assert (written.model_agrees, written.legacy_agrees, written.model) == (True, True, hashes.model)


def test_the_output_is_the_input_only_with_overwrite(tmp_path: Path) -> None:
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


@pytest.mark.parametrize(("name", "message"), [("a.ckpt", "not a name"), ("no/where.safetensors", "does not exist")])
def test_an_impossible_output_is_refused_first(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        merge(lora(tmp_path / "a.safetensors"), tmp_path / name, MergeOptions("FACE"))


def test_a_failed_write_leaves_no_file(tmp_path: Path) -> None:
    def broken() -> list[bytes]:
        raise RecipeError([])

    pieces = [writer.raw("a.alpha", "F32", (), bytes(4)), writer.Piece(Entry("b.alpha", "F32", ()), broken)]
    with pytest.raises(RecipeError):
        writer.write_safetensors(tmp_path / "a.safetensors", pieces, {})
    short = [writer.raw("a.alpha", "F32", (2,), bytes(4))]
    with pytest.raises(RecipeError, match="4 bytes where"):
        writer.write_safetensors(tmp_path / "a.safetensors", short, {})
    assert not list(tmp_path.iterdir())


def test_the_draft_of_a_killed_writer_is_overwritten(tmp_path: Path) -> None:
    source, output = lora(tmp_path / "in.safetensors"), tmp_path / "out.safetensors"
    left = tmp_path / f".{output.name}.{os.getpid()}-{threading.get_ident()}.part"  # of a process with the same id
    for write_output in (lambda: merge(source, output, MergeOptions([0.5] * 26)), lambda: edit_metadata(source, output, {})):
        left.write_bytes(bytes(1_000_000))
        write_output()
        assert read_header(output).entries.keys() == read_header(source).entries.keys()
        assert not left.exists()


def test_a_file_in_a_given_order_has_these_metadata_only(tmp_path: Path) -> None:
    pieces = [writer.raw("b", "F32", (1,), bytes(4)), writer.raw("a", "F16", (2,), b"1234"), writer.raw("c", "U8", (0,), b"")]
    writer.write_in_order(tmp_path / "a.safetensors", pieces, {"x": "y"})
    header = read_header(tmp_path / "a.safetensors")
    assert (list(header.entries), header.metadata) == (["b", "a", "c"], {"x": "y"})
    assert raw(tmp_path / "a.safetensors") == b"\0\0\0\x001234"


def test_a_copy_has_the_same_body_and_its_own_digest(tmp_path: Path) -> None:
    source, output = lora(tmp_path / "in.safetensors", ss_old="1"), tmp_path / "out.safetensors"
    digest, count = writer.write_copy(read_header(source), output, {"title": "黒猫"})
    assert (raw(output), read_header(output).metadata) == (raw(source), {"title": "黒猫"})
    assert (digest, count) == (hashlib.sha256(output.read_bytes()).hexdigest(), output.stat().st_size)
