"""Verification of a release.

Every changed, added, missing or forged part is named.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import zipfile
from typing import TYPE_CHECKING, Any

import pytest

from bundles import LORA, copied, failures, folder, sealed, with_header
from orchestrator.errors import RecipeError
from orchestrator.release import diff, verify
from orchestrator.weights.checks import CheckStatus

if TYPE_CHECKING:
    from pathlib import Path


def test_a_bundle_verifies_as_folder_and_as_zip(runs: Path) -> None:
    made = folder(runs, "krnk_tyank")
    for path in (made, made / "krnk_tyank.zip", folder(runs, "krnk-locon")):
        checks = verify.verify_bundle(path)
        assert [check for check in checks if check.status is not CheckStatus.PASS] == []
        assert len(checks) > 15
    done = subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=made, check=False, capture_output=True)
    assert done.returncode == 0, done.stderr


def test_one_changed_byte_is_detected(runs: Path, tmp_path: Path) -> None:
    made = copied(runs, tmp_path)
    path = made / "krnk-locon.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert "krnk-locon.safetensors" in failures(made)
    assert "krnk-locon.safetensors: model hash" in failures(made)


def test_an_added_or_removed_file_is_detected(runs: Path, tmp_path: Path) -> None:
    made = copied(runs, tmp_path)
    (made / "extra.bin").write_bytes(b"x")
    (made / "image" / "krnk_grid.webp").unlink()
    assert failures(made) == ["SHA256SUMS lists every file", "image/krnk_grid.webp"]


def test_a_forged_checksum_list_does_not_help(runs: Path, tmp_path: Path) -> None:
    made = copied(runs, tmp_path, "krnk-locon")
    path = made / "krnk-locon.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    sums = made / "SHA256SUMS"
    new = hashlib.sha256(data).hexdigest()
    sums.write_text(re.sub(r"[0-9a-f]{64}(?=  krnk-locon\.safetensors)", new, sums.read_text("utf-8")), "utf-8")
    assert failures(made) == ["manifest.json and SHA256SUMS agree", "krnk-locon.safetensors: model hash"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"ssmd_keywords": "cat"}, f"{LORA}: trigger words"),
        ({"ssmd_rating": ""}, f"{LORA}: opens in Additional Networks"),
        ({"ss_training_comment": "/home/mimi/secret/pictures"}, f"{LORA}: no local path in the metadata"),
        ({"sshs_model_hash": "0" * 64}, f"{LORA}: model hash"),
        ({"sshs_legacy_hash": "00000000"}, f"{LORA}: legacy hash"),
    ],
)
def test_every_fault_of_a_header_is_named(runs: Path, tmp_path: Path, change: dict[str, str], expected: str) -> None:
    made = copied(runs, tmp_path, "krnk-locon")
    assert failures(sealed(made)) == []
    assert failures(sealed(made, **{LORA: with_header(made / LORA, change)})) == [expected]


def test_a_wrong_size_a_lost_link_and_cores_in_a_plain_copy_are_detected(runs: Path, tmp_path: Path) -> None:
    made = copied(runs, tmp_path, "krnk-locon")
    manifest = json.loads((made / "manifest.json").read_text("utf-8"))
    manifest["facts"]["weights"]["tensor_bytes"] += 1
    assert failures(sealed(made, **{"manifest.json": json.dumps(manifest).encode()})) == [f"{LORA}: tensor bytes"]
    manifest["facts"]["weights"]["tensor_bytes"] -= 1
    card_ = (made / "README.md").read_bytes()
    files = {"manifest.json": json.dumps(manifest).encode(), "README.md": card_ + b"\n[the other](other.safetensors)\n"}
    assert failures(sealed(made, **files)) == ["README.md: all links lead somewhere"]
    plain = LORA.replace(".safetensors", "-plain.safetensors")
    manifest["files"][plain] = {}
    (made / "SHA256SUMS").write_text((made / "SHA256SUMS").read_text("utf-8") + f"{'0' * 64}  {plain}\n", "utf-8")
    files = {"manifest.json": json.dumps(manifest).encode(), "README.md": card_, plain: (made / LORA).read_bytes()}
    assert failures(sealed(made, **files)) == [f"{plain}: no Tucker cores"]


def test_a_zip_with_other_files_than_its_folder_is_detected(runs: Path, tmp_path: Path) -> None:
    made = copied(runs, tmp_path)
    (made / "other.zip").write_bytes(b"x")
    assert failures(made) == ["SHA256SUMS lists every file"], "only the collection's own zip need not be listed"
    (made / "other.zip").unlink()
    twin = made / "krnk_tyank.zip"
    with zipfile.ZipFile(twin) as archive:
        held = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    first = "krnk_tyank/README.md"
    for spoiled in (
        {name: data for name, data in held.items() if name != first},
        {**held, first: b"another card"},
        {**held, "krnk_tyank/SHA256SUMS": b"other"},
        {**held, "krnk_tyank/more.txt": b"x"},
    ):
        with zipfile.ZipFile(twin, "w") as archive:
            for name, data in spoiled.items():
                archive.writestr(name, data)
        assert failures(made) == ["krnk_tyank.zip holds the same files"]
    twin.write_bytes(b"no zip")
    assert failures(made) == ["krnk_tyank.zip"]


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "collection", "members": ["x"]},
        {"kind": "collection", "members": {"krnk-locon": ["x"]}, "name": ["a"]},
        {"facts": ["x"]},
        {"facts": {"triggers": [1], "weights": [], "file": []}},
        {"facts": {"triggers": 7}, "recipe": []},
        {"facts": {"x": 1}, "recipe": {"release": None}, "lock": 3},
    ],
)
def test_an_untrusted_manifest_fails_without_an_exception(runs: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    made = copied(runs, tmp_path, "krnk-locon")
    manifest = json.loads((made / "manifest.json").read_text("utf-8")) | changes
    sealed(made, **{"manifest.json": json.dumps(manifest).encode()})
    assert len(verify.verify_bundle(made)) > 5
    diff.differences(made, made)


def spoiled(path: Path, method: int, what: str) -> Path:
    """Write a zip with a broken stream: changed bytes, missing bytes, or a false mark of encryption."""
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("krnk_tyank/SHA256SUMS", "0123456789 abc\n" * 500)
    data = bytearray(path.read_bytes())
    entry = data.find(b"PK\1\2")
    match what:
        case "changed":
            data[60:70] = bytes(byte ^ 0x5A for byte in data[60:70])
        case "cut":
            data[entry + 20 : entry + 28] = (999_999).to_bytes(4, "little") * 2
        case "encrypted":
            data[6] |= 1
            data[entry + 8] |= 1
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("method", "what"),
    [
        *((method, "changed") for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)),
        (zipfile.ZIP_STORED, "cut"),
        (zipfile.ZIP_STORED, "encrypted"),
    ],
)
def test_a_zip_with_a_broken_stream_is_refused_and_fails_beside_its_folder(
    runs: Path, tmp_path: Path, method: int, what: str
) -> None:
    with pytest.raises(RecipeError, match="cannot be unpacked"):
        verify.verify_bundle(spoiled(tmp_path / "x.zip", method, what))
    made = copied(runs, tmp_path)
    spoiled(made / "krnk_tyank.zip", method, what)
    assert failures(made) == ["krnk_tyank.zip"]


def test_a_link_that_leaves_the_folder_is_detected(runs: Path, tmp_path: Path) -> None:
    made = copied(runs, tmp_path, "krnk-locon")
    (made / "krnk-locon.json").rename(tmp_path / "elsewhere")
    (made / "krnk-locon.json").symlink_to(tmp_path / "elsewhere")
    assert failures(made) == ["krnk-locon.json"]


def test_one_recipes_release_has_no_zip_beside_it(runs: Path, tmp_path: Path) -> None:
    made = copied(runs, tmp_path, "krnk-locon")
    (made / "krnk-locon.zip").write_bytes(b"x")
    assert failures(made) == ["SHA256SUMS lists every file"]


@pytest.mark.parametrize("changes", [{}, {"scrub": True}, {"scrub": False}])
def test_local_paths_fail_unless_the_recipe_allows_them(runs: Path, tmp_path: Path, changes: dict[str, bool]) -> None:
    made = copied(runs, tmp_path, "krnk-locon")
    manifest = json.loads((made / "manifest.json").read_text("utf-8"))
    manifest["recipe"]["release"] = changes
    forged = {LORA: with_header(made / LORA, {"ss_training_comment": "/home/mimi/secret"})}
    result = failures(sealed(made, **forged, **{"manifest.json": json.dumps(manifest).encode()}))
    assert result == ([f"{LORA}: no local path in the metadata"] if changes.get("scrub", True) else [])


def test_names_that_are_invalid_for_the_file_system_are_missing(runs: Path, tmp_path: Path) -> None:
    made = copied(runs, tmp_path, "krnk-locon")
    names = [f"{'a' * 300}{ending}" for ending in ("", ".md", ".safetensors")]
    with (made / "SHA256SUMS").open("a", encoding="utf-8") as sums:
        sums.writelines(f"{'0' * 64}  {name}\n" for name in names)
    assert set(failures(made)) == {*names, "manifest.json and SHA256SUMS agree"}


def test_a_zip_whose_checksum_list_is_a_folder_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("b/SHA256SUMS/", "")
    with pytest.raises(RecipeError, match="holds no SHA256SUMS"):
        verify.verify_bundle(tmp_path / "x.zip")


@pytest.mark.parametrize("depth", [200, 900, 100_000])
def test_metadata_of_any_depth_are_checked(runs: Path, tmp_path: Path, depth: int) -> None:
    made = copied(runs, tmp_path, "krnk-locon")
    deep = dict.fromkeys(("ss_datasets", "ss_network_args", "ss_x"), "[" * depth + '"/home/mimi/x"' + "]" * depth)
    result = failures(sealed(made, **{LORA: with_header(made / LORA, deep)}))
    assert f"{LORA}: no local path in the metadata" in result


def test_a_zip_that_leaves_its_folder_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("../out.txt", "x")
    with pytest.raises(RecipeError, match="leaves its folder"):
        verify.verify_bundle(tmp_path / "x.zip")


@pytest.mark.parametrize("text", ["nothing", "0" * 64 + "  /etc/passwd\n", "0" * 64 + "  ../x\n"])
def test_broken_checksum_lists_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "SHA256SUMS").write_text(text, "utf-8")
    with pytest.raises(RecipeError):
        verify.verify_bundle(tmp_path)


def test_verify_bundle_on_the_command_line(runs: Path, tmp_path: Path) -> None:
    import typer  # noqa: PLC0415
    from typer.testing import CliRunner  # noqa: PLC0415

    from orchestrator.cli import results  # noqa: PLC0415

    app = typer.Typer()
    results.register(app)
    one = folder(runs, "krnk-locon")
    done = CliRunner().invoke(app, ["verify-bundle", str(one), "--against", str(one), "--json"])
    assert done.exit_code == 0
    assert json.loads(done.stdout)["verdict"] == "PASS"
    made = copied(runs, tmp_path, "krnk-locon")
    (made / "krnk-locon.json").unlink()
    done = CliRunner().invoke(app, ["verify-bundle", str(made)])
    assert done.exit_code == 1
    assert "FAIL     krnk-locon.json  is missing" in done.stdout
