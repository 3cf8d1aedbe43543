from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from safetensors import safe_open

import made_runs
from orchestrator.errors import RecipeError, StepFailed
from orchestrator.release import __main__ as release
from orchestrator.release import bundle, card, diff, facts, file_metadata, scrub, verify
from orchestrator.weights.checks import CheckStatus
from orchestrator.weights.io.safetensors_io import read_header

NAMES = ["krnk-lora3x3", "krnk-locon", "krnksf_tyankps-loha"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    made_runs.collection(root, NAMES)
    return root


def folder(runs: Path, name: str) -> Path:
    return next((runs / name).glob("release-*"))


def body(path: Path) -> bytes:
    data = path.read_bytes()
    return data[8 + int.from_bytes(data[:8], "little") :]


def said(path: Path) -> dict[str, str]:
    with safe_open(path, "np") as file:
        return dict(file.metadata())


# -- the file explains itself


def test_the_body_is_unchanged_and_the_hashes_are_true(runs: Path) -> None:
    made = folder(runs, "krnk-lora3x3") / "krnk-lora3x3.safetensors"
    before = next((runs / "krnk-lora3x3").glob("resize-*")) / made.name
    assert body(made) == body(before)
    metadata = said(made)
    assert metadata["sshs_model_hash"] == hashlib.sha256(body(made)).hexdigest()
    assert metadata["modelspec.hash_sha256"] == "0x" + metadata["sshs_model_hash"]


def test_the_legacy_hash_is_that_of_the_same_tensors_with_ss_metadata_only(tmp_path: Path) -> None:
    import numpy as np  # noqa: PLC0415
    from safetensors.numpy import save  # noqa: PLC0415

    tensors = {"lora_unet_a.lora_down.weight": np.random.default_rng(1).standard_normal((1200, 1200)).astype(np.float16)}
    source = tmp_path / "in.safetensors"
    source.write_bytes(save(tensors, {"ss_steps": "10", "ssmd_rating": "0"}))
    found = file_metadata.write(read_header(source), tmp_path / "out.safetensors", {"ss_steps": "10", "ssmd_tags": "x"})
    alone = save(tensors, {"ss_steps": "10"})
    assert found["legacy_hash"] == hashlib.sha256(alone[0x100000:0x110000]).hexdigest()[:8]
    assert found["sha256"] == hashlib.sha256((tmp_path / "out.safetensors").read_bytes()).hexdigest()
    assert found["bytes"] == (tmp_path / "out.safetensors").stat().st_size


def test_additional_networks_finds_all_it_shows(runs: Path) -> None:
    metadata = said(folder(runs, "krnk-locon") / "krnk-locon.safetensors")
    for key in ("display_name", "keywords", "description", "version", "source", "tags", "rating"):
        assert metadata[f"ssmd_{key}"]
    assert int(metadata["ssmd_rating"]) == 0
    assert metadata["ssmd_keywords"] == "krnk"
    assert "Example prompts:\n- krnk, simple background" in metadata["ssmd_description"]
    assert "プロンプト" in metadata["ssmd_description"]
    (cover,) = json.loads(metadata["ssmd_cover_images"])
    assert cover.startswith("iVBOR")  # a PNG in base64
    assert metadata["modelspec.thumbnail"].startswith("data:image/jpeg;base64,")
    assert metadata["modelspec.sai_model_spec"] == "1.0.1"
    assert metadata["modelspec.trigger_phrase"] == "krnk"


def test_a_group_says_what_each_region_takes(runs: Path) -> None:
    metadata = said(folder(runs, "krnksf_tyankps-loha") / "krnksf_tyankps-loha.safetensors")
    assert "left half: krnksf, krnk\nright half: tyankps, tyank" in metadata["modelspec.usage_hint"]


# -- what is not told


def test_folder_names_and_paths_are_gone_and_listed(runs: Path) -> None:
    path = folder(runs, "krnk-locon")
    metadata = said(path / "krnk-locon.safetensors")
    for value in metadata.values():
        assert "/home/someone" not in value
        assert "krnk character_f0128" not in value
    assert json.loads(metadata["ss_tag_frequency"]) == {"folder 1": {"krnk": 15, "white background": 15}}
    assert json.loads(metadata["ss_network_args"])["preset"] == "preset.toml"
    removed = json.loads((path / "manifest.json").read_text("utf-8"))["removed"]
    assert "ss_dataset_dirs: 1 folder name" in removed
    assert "ss_network_args: the preset's folder" in removed
    assert "ss_sd_model_name: a local path" in removed


def test_nothing_of_the_machine_stands_in_any_text_of_a_bundle(runs: Path) -> None:
    for name in [*NAMES, "krnk_tyank"]:
        for path in folder(runs, name).rglob("*"):
            if path.suffix in (".md", ".json", ".info") and path.name != "record.json":
                text = path.read_text("utf-8")
                assert "/home/" not in text, path
                assert "someones-machine" not in text, path


def test_folders_get_the_same_number_everywhere() -> None:
    before = {
        "ss_dataset_dirs": json.dumps({"b_f0128": {"img_count": 1}, "a_f0064": {"img_count": 2}}),
        "ss_tag_frequency": json.dumps({"a_f0064": {"x": 1}, "b_f0128": {"y": 1}}),
        "ss_datasets": json.dumps(
            [{"subsets": [{"image_dir": "a_f0064"}], "tag_frequency": {"b_f0128": {}}, "resolution": [64, 64]}]
        ),
        "ss_training_comment": "made in /home/someone/lora, twice",
        "ss_learning_rate": "0.0001",
    }
    kept, removed = scrub.metadata(before)
    dirs, tags = json.loads(kept["ss_dataset_dirs"]), json.loads(kept["ss_tag_frequency"])
    assert dirs == {"folder 1": {"img_count": 1}, "folder 2": {"img_count": 2}}
    assert tags == {"folder 2": {"x": 1}, "folder 1": {"y": 1}}
    (dataset,) = json.loads(kept["ss_datasets"])
    assert dataset == {"subsets": [{"image_dir": "folder 2"}], "tag_frequency": {"folder 1": {}}, "resolution": [64, 64]}
    assert kept["ss_training_comment"] == "made in lora, twice"
    assert kept["ss_learning_rate"] == "0.0001"
    assert len(removed) == 4


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("C:\\models\\base.ckpt", "base.ckpt"),
        ("/srv/base.safetensors", "base.safetensors"),
        ("~/models/x.pt", "x.pt"),
        ("models/x.pt", "models/x.pt"),
        ("https://github.com/a/b", "https://github.com/a/b"),
        ("stable-diffusion-v1/lora", "stable-diffusion-v1/lora"),
        ("1/2", "1/2"),
    ],
)
def test_only_local_paths_are_paths(text: str, kept: str) -> None:
    assert scrub.paths(text) == kept


def test_without_scrub_the_trainers_words_stay(tmp_path: Path) -> None:
    recipe = made_runs.loaded("krnk-locon").recipe
    open_ = recipe.model_copy(update={"release": recipe.release.model_copy(update={"scrub": False})})
    header = read_header(made_runs.lora(tmp_path / "x.safetensors", recipe))
    kept, removed = file_metadata.metadata(open_, header, {})
    assert kept["ss_sd_model_name"].startswith("/home/someone")
    assert removed == []


# -- beside the file


def test_sidecars_hold_what_web_uis_fill_in(runs: Path) -> None:
    path = folder(runs, "krnk-locon")
    ui = json.loads((path / "krnk-locon.json").read_text("utf-8"))
    assert ui["sd version"] == "SD1"
    assert ui["activation text"] == "krnk"
    assert ui["preferred weight"] == 1.0
    info = json.loads((path / "krnk-locon.civitai.info").read_text("utf-8"))
    whole = hashlib.sha256((path / "krnk-locon.safetensors").read_bytes()).hexdigest()
    hashes = info["files"][0]["hashes"]
    assert hashes["SHA256"].lower() == whole
    assert hashes["AutoV2"].lower() == whole[:10]
    assert hashes["AutoV3"].lower() == said(path / "krnk-locon.safetensors")["sshs_model_hash"][:12]


def test_the_preview_says_how_it_was_drawn(runs: Path) -> None:
    path = folder(runs, "krnk-locon")
    with Image.open(path / "krnk-locon.png") as picture:
        text = picture.info["parameters"]
        assert min(picture.size) >= 512
    lines = text.splitlines()
    assert lines[0].startswith("krnk, simple background")
    assert lines[0].endswith("<lora:krnk-locon:1>")
    assert lines[1] == "Negative prompt: worst quality, low quality"
    settings = dict(pair.split(": ", 1) for pair in re.split(r", (?=[A-Z])", lines[2]))
    assert settings["Steps"] == "28"
    assert settings["Sampler"] == "Euler a"
    assert settings["Seed"] == "31337"
    assert settings["Model"] == "Defmix-v2.0"


# -- the card


def front(path: Path) -> tuple[dict[str, Any], str]:
    _, head, text = path.read_text("utf-8").split("---\n", 2)
    return yaml.safe_load(head), text


def test_the_card_has_the_shape_of_the_seed(runs: Path) -> None:
    head, text = front(folder(runs, "krnk_tyank") / "README.md")
    assert head["instance_prompt"] == "krnk"
    assert head["widget"][0]["output"]["url"] == "krnk-lora3x3.png"
    assert "lora" in head["tags"]
    for part in (
        "# 黒猫耳キャラと茶猫耳キャラのLora",
        "# 利用方法",
        "# 主な学習パラメータ",
        "# 出力例",
        "# English",
        "## How to use them",
    ):
        assert part in text
    assert "FACE:0,1,1,1,1,1,0,0,0,1,0,0,0,0,1,0,1,1,1,0,1,1,1,0,0,1" in text
    assert "sv_ratio=16" in text
    assert "![krnk_grid](./image/krnk_grid.webp)" in text
    assert "| 左半分 | `krnksf, krnk` |" in text
    assert "learning_rate: 1e-4" in text
    assert "text_encoder_lr: 4.4e-5" in text
    assert not re.search(r"^\|.*\n\n\|", text, re.MULTILINE)  # no table falls apart


@pytest.mark.parametrize("name", ["README.md", "README.ja.md"])
def test_every_number_of_a_card_comes_from_records(runs: Path, tmp_path: Path, name: str) -> None:
    """With other records, the same recipe gives other numbers; without any, none of them."""
    recipe = made_runs.loaded("krnk-lora3x3").recipe
    asked = made_runs.request(tmp_path, recipe)
    train = json.loads((Path(asked["folders"]["train"]) / "record.json").read_text("utf-8"))
    train["params"]["training"] |= {"steps": 777, "learning_rate": 3.25e-5, "seed": 4242}
    train["params"]["network"] |= {"dim": 96, "conv_dim": 48}
    resize = json.loads((Path(asked["folders"]["resize"]) / "record.json").read_text("utf-8"))
    resize["params"]["sv_ratio"] = 13.0
    asked["records"] = {"train": train, "resize": resize}
    assert made_runs.call(release, tmp_path / "request.json", asked) == 0
    text = (Path(asked["output"]) / name).read_text("utf-8")
    for number in ("777", "3.25e-5", "4242", "96 / 48", "sv_ratio=13"):
        assert number in text
    assert "1000" not in text
    asked["folders"], asked["records"], asked["output"] = {}, {}, str(tmp_path / "bare")
    assert made_runs.call(release, tmp_path / "request.json", asked) == 0
    bare = (tmp_path / "bare" / name).read_text("utf-8")
    for number in ("1000", "1e-4", "31337 |", "128 / 128", "sv_ratio"):
        assert number not in bare


def test_no_template_holds_a_number_of_a_release() -> None:
    for path in (Path(card.__file__).parent / "templates").glob("*.j2"):
        text = re.sub(r"\{%.*?%\}|\{\{.*?\}\}|\{#.*?#\}", "", path.read_text("utf-8"), flags=re.DOTALL)
        assert not re.findall(r"\b\d{2,}\b", re.sub(r"A1111|SHA-256", "", text)), path.name


def test_a_recipe_may_bring_its_own_template(tmp_path: Path) -> None:
    recipe = made_runs.loaded("krnk-locon").recipe
    asked = made_runs.request(tmp_path, recipe)
    own = tmp_path / "cards"
    own.mkdir()
    (own / "recipe.en.md.j2").write_text("mine: {{ facts.weights.modules }} of {{ recipe.name }}", "utf-8")
    asked |= {"root": str(tmp_path)}
    asked["recipe"]["release"]["templates"] = "cards"
    assert made_runs.call(release, tmp_path / "request.json", asked) == 0
    assert (Path(asked["output"]) / "README.md").read_text("utf-8") == "mine: 9 of krnk-locon\n"


def test_a_template_can_neither_run_programs_nor_invent_values(tmp_path: Path) -> None:
    for text in ("{{ ''.__class__.__mro__ }}", "{{ facts.nothing_of_the_kind }}", "{% include '../../x' %}", "{{"):
        (tmp_path / "recipe.en.md.j2").write_text(text, "utf-8")
        with pytest.raises(StepFailed, match=r"recipe\.en|templates"):
            card.render("recipe.en.md.j2", {"facts": {}}, str(tmp_path))


@pytest.mark.parametrize(
    ("licence", "head"),
    [
        ("MIT", {"license": "mit"}),
        ("CharFramework terms", {"license": "other", "license_name": "CharFramework terms"}),
        ("", {}),
    ],
)
def test_licences_are_stated_as_the_hub_knows_them(licence: str, head: dict[str, str]) -> None:
    recipe = made_runs.loaded("krnk-locon").recipe
    recipe = recipe.model_copy(
        update={
            "release": recipe.release.model_copy(update={"license": licence}),
            "base": recipe.base.model_copy(update={"url": "hf:someone/base/file.safetensors"}),
        }
    )
    found = yaml.safe_load(card.front_matter([recipe], []).strip("-\n"))
    assert {key: value for key, value in found.items() if key.startswith("license")} == head
    assert found["base_model"] == "someone/base"


@pytest.mark.parametrize(("value", "text"), [(1e-4, "1e-4"), (4.4e-5, "4.4e-5"), (0.001, "0.001"), (0.0, "0")])
def test_rates(value: float, text: str) -> None:
    assert card.rate(value) == text


# -- the bundle


def test_a_bundle_verifies_as_folder_and_as_zip(runs: Path) -> None:
    made = folder(runs, "krnk_tyank")
    for path in (made, made / "krnk_tyank.zip", folder(runs, "krnk-locon")):
        checks = verify.verify_bundle(path)
        assert [check for check in checks if check.status is not CheckStatus.PASS] == []
        assert len(checks) > 15
    done = subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=made, check=False, capture_output=True)
    assert done.returncode == 0, done.stderr


def test_the_same_content_gives_the_same_zip(runs: Path, tmp_path: Path) -> None:
    made_runs.collection(tmp_path, NAMES)
    one, two = folder(runs, "krnk_tyank"), folder(tmp_path, "krnk_tyank")
    assert (one / "krnk_tyank.zip").read_bytes() == (two / "krnk_tyank.zip").read_bytes()
    differing = [check for check in diff.differences(one, two) if check.status is not CheckStatus.PASS]
    assert differing == []
    with zipfile.ZipFile(one / "krnk_tyank.zip") as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}


def copied(runs: Path, tmp_path: Path, name: str = "krnk_tyank") -> Path:
    target = tmp_path / "copy"
    shutil.copytree(folder(runs, name), target)
    return target


def failures(path: Path) -> list[str]:
    return [check.what for check in verify.verify_bundle(path) if check.status is CheckStatus.FAIL]


def test_one_changed_byte_is_found(runs: Path, tmp_path: Path) -> None:
    made = copied(runs, tmp_path)
    path = made / "krnk-locon.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert "krnk-locon.safetensors" in failures(made)
    assert "krnk-locon.safetensors: model hash" in failures(made)


def test_a_file_that_was_added_or_taken_away_is_found(runs: Path, tmp_path: Path) -> None:
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


def sealed(made: Path, **files: bytes) -> Path:
    """Write files of a bundle, and its lists of digests anew: what stands in them is all that can give them away."""
    for name, content in files.items():
        (made / name).write_bytes(content)
    manifest = json.loads((made / "manifest.json").read_text("utf-8"))
    for name in manifest["files"]:
        manifest["files"][name] = bundle.digest(made / name)
    (made / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    names = sorted(verify.read_sums(made))
    lines = (f"{hashlib.sha256((made / name).read_bytes()).hexdigest()}  {name}\n" for name in names)
    (made / "SHA256SUMS").write_text("".join(lines), "utf-8")
    return made


def with_header(path: Path, change: dict[str, str]) -> bytes:
    """Return a safetensors file with other metadata."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] |= change
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


LORA = "krnk-locon.safetensors"


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
def test_what_is_wrong_in_a_header_is_found_one_by_one(
    runs: Path, tmp_path: Path, change: dict[str, str], expected: str
) -> None:
    made = copied(runs, tmp_path, "krnk-locon")
    assert failures(sealed(made)) == []
    assert failures(sealed(made, **{LORA: with_header(made / LORA, change)})) == [expected]


def test_a_wrong_size_a_lost_link_and_cores_in_a_plain_copy_are_found(runs: Path, tmp_path: Path) -> None:
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


def test_a_zip_with_other_files_than_its_folder_is_found(runs: Path, tmp_path: Path) -> None:
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
    "said",
    [
        {"kind": "collection", "members": ["x"]},
        {"kind": "collection", "members": {"krnk-locon": ["x"]}, "name": ["a"]},
        {"facts": ["x"]},
        {"facts": {"triggers": [1], "weights": [], "file": []}},
        {"facts": {"triggers": 7}, "recipe": []},
        {"facts": {"x": 1}, "recipe": {"release": None}, "lock": 3},
    ],
)
def test_a_strangers_manifest_is_judged_not_believed(runs: Path, tmp_path: Path, said: dict[str, Any]) -> None:
    made = copied(runs, tmp_path, "krnk-locon")
    manifest = json.loads((made / "manifest.json").read_text("utf-8")) | said
    sealed(made, **{"manifest.json": json.dumps(manifest).encode()})
    assert len(verify.verify_bundle(made)) > 5
    diff.differences(made, made)


def spoiled(path: Path, method: int, what: str) -> Path:
    """Write a zip whose stream is broken: bytes changed in it, fewer than its directory says, or said to be encrypted."""
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


def test_a_link_that_leaves_the_folder_is_found(runs: Path, tmp_path: Path) -> None:
    made = copied(runs, tmp_path, "krnk-locon")
    (made / "krnk-locon.json").rename(tmp_path / "elsewhere")
    (made / "krnk-locon.json").symlink_to(tmp_path / "elsewhere")
    assert failures(made) == ["krnk-locon.json"]


def test_one_recipes_release_has_no_zip_beside_it(runs: Path, tmp_path: Path) -> None:
    made = copied(runs, tmp_path, "krnk-locon")
    (made / "krnk-locon.zip").write_bytes(b"x")
    assert failures(made) == ["SHA256SUMS lists every file"]


@pytest.mark.parametrize("said", [{}, {"scrub": True}, {"scrub": False}])
def test_privacy_is_promised_unless_the_recipe_says_otherwise(runs: Path, tmp_path: Path, said: dict[str, bool]) -> None:
    made = copied(runs, tmp_path, "krnk-locon")
    manifest = json.loads((made / "manifest.json").read_text("utf-8"))
    manifest["recipe"]["release"] = said
    told = {LORA: with_header(made / LORA, {"ss_training_comment": "/home/mimi/secret"})}
    found = failures(sealed(made, **told, **{"manifest.json": json.dumps(manifest).encode()}))
    assert found == ([f"{LORA}: no local path in the metadata"] if said.get("scrub", True) else [])


def test_names_that_no_file_system_takes_are_missing(runs: Path, tmp_path: Path) -> None:
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
def test_metadata_of_any_depth_are_gone_through(runs: Path, tmp_path: Path, depth: int) -> None:
    made = copied(runs, tmp_path, "krnk-locon")
    deep = dict.fromkeys(("ss_datasets", "ss_network_args", "ss_x"), "[" * depth + '"/home/mimi/x"' + "]" * depth)
    found = failures(sealed(made, **{LORA: with_header(made / LORA, deep)}))
    assert f"{LORA}: no local path in the metadata" in found


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


def test_a_rebuild_is_compared_cause_first(runs: Path, tmp_path: Path) -> None:
    asked = made_runs.request(tmp_path, made_runs.loaded("krnk-locon").recipe)
    asked["recipe"]["training"]["seed"] = 7
    asked["lock"] = {"engine": "sd-scripts 0000"}
    made_runs.lora(Path(asked["lora"]), made_runs.loaded("krnk-locon").recipe, rank=8)
    assert made_runs.call(release, tmp_path / "request.json", asked) == 0
    checks = diff.differences(folder(runs, "krnk-locon"), Path(asked["output"]))
    assert checks[0].what == "krnk-locon: same recipe"
    assert checks[0].detail == "training.seed: 31337 -> 7"
    assert "engine" in checks[1].detail
    assert checks[2].status is CheckStatus.UNKNOWN
    assert all(check.status.ok for check in checks)


def test_a_member_that_changed_after_its_release_stops_the_collection(tmp_path: Path) -> None:
    made = made_runs.released(tmp_path, "krnk-locon")
    with (made / "krnk-locon.json").open("a") as file:
        file.write(" ")
    members = [{"recipe": made_runs.loaded("krnk-locon").recipe.model_dump(mode="json"), "folder": str(made)}]
    asked = {"kind": "collection", "output": str(tmp_path / "out"), "name": "all", "members": members, "grids": []}
    assert made_runs.call(release, tmp_path / "request.json", asked) == 1
    assert not (tmp_path / "out" / "SHA256SUMS").exists()
    assert not (tmp_path / "out" / "all.zip").exists()


def test_what_is_missing_is_named_and_nothing_looks_complete(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = made_runs.released(tmp_path, "krnk-locon")
    (made / "krnk-locon.safetensors").unlink()
    members = [{"recipe": made_runs.loaded("krnk-locon").recipe.model_dump(mode="json"), "folder": str(made)}]
    asked = {
        "kind": "collection",
        "output": str(tmp_path / "out"),
        "name": "all",
        "members": members,
        "grids": [str(tmp_path / "none")],
    }
    assert made_runs.call(release, tmp_path / "request.json", asked) == 1
    err = capsys.readouterr().err
    assert "krnk-locon.safetensors" in err
    assert "holds no grid" in err
    assert not (tmp_path / "out" / "SHA256SUMS").exists()


@pytest.mark.parametrize("broken", [{"kind": "other"}, {"lora": ""}, {"recipe": {"name": "x"}}])
def test_a_broken_request_is_refused(tmp_path: Path, broken: dict[str, Any]) -> None:
    asked = {"kind": "recipe", "output": str(tmp_path / "out"), "recipe": {"name": "x"}, "lora": "x.safetensors"} | broken
    assert made_runs.call(release, tmp_path / "request.json", asked) == 2


def test_a_recipe_without_pictures_is_released_all_the_same(tmp_path: Path) -> None:
    asked = made_runs.request(tmp_path, made_runs.loaded("krnk-loha").recipe) | {"images": None, "columns": []}
    assert made_runs.call(release, tmp_path / "request.json", asked) == 0
    made = Path(asked["output"])
    assert not (made / "krnk-loha.png").exists()
    assert failures(made) == []
    assert "ssmd_cover_images" not in said(made / "krnk-loha.safetensors")


def test_a_plain_copy_of_a_tucker_locon_does_the_same(tmp_path: Path) -> None:
    from orchestrator.weights.compare import compare  # noqa: PLC0415

    asked = made_runs.request(tmp_path, made_runs.loaded("krnk-locon").recipe)
    asked["recipe"]["release"]["plain_copy"] = True
    assert made_runs.call(release, tmp_path / "request.json", asked) == 0
    made = Path(asked["output"])
    plain = made / "krnk-locon-plain.safetensors"
    assert not [name for name in read_header(plain).entries if "lora_mid" in name]
    assert compare(made / "krnk-locon.safetensors", plain).cosine == pytest.approx(1, abs=1e-5)
    assert failures(made) == []
    assert said(plain)["modelspec.hash_sha256"] == "0x" + said(plain)["sshs_model_hash"]
    assert "`krnk-locon-plain.safetensors` is an exact plain copy" in (made / "README.md").read_text("utf-8")
    members = [{"recipe": asked["recipe"], "folder": str(made)}]
    together = {"kind": "collection", "output": str(tmp_path / "out"), "name": "all", "members": members, "grids": []}
    assert made_runs.call(release, tmp_path / "request.json", together) == 0
    assert failures(tmp_path / "out") == []


def test_without_a_vae_the_card_is_whole(tmp_path: Path) -> None:
    asked = made_runs.request(tmp_path, made_runs.loaded("krnk-locon").recipe)
    asked["recipe"]["base"]["vae"] = ""
    assert made_runs.call(release, tmp_path / "request.json", asked) == 0
    assert "with the VAE" not in (Path(asked["output"]) / "README.md").read_text("utf-8")


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


def test_progress_is_printed_for_the_orchestrator(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made_runs.released(tmp_path, "krnk-locon")
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("PROGRESS ")]
    last = json.loads(lines[-1].removeprefix("PROGRESS "))
    assert last["done"] == last["total"] == len(lines)


def test_sizes_and_ranks_are_read_from_the_header(tmp_path: Path) -> None:
    recipe = made_runs.loaded("krnk-locon").recipe
    found = facts.weights(read_header(made_runs.lora(tmp_path / "x.safetensors", recipe, rank=3)))
    assert found["ranks"] == {"min": 3, "max": 3, "median": 3, "distinct": 1}
    assert found["tucker"] is True
    assert found["dtype"] == "F16"


def test_the_lock_says_what_a_rebuild_must_hold_still(runs: Path) -> None:
    lock = bundle.read_manifest(folder(runs, "krnk-locon"))["lock"]
    assert lock["engine"].startswith("sd-scripts ae72efb9")
    assert lock["sources"]["checkpoint"] == "a" * 64
    assert lock["packages"]["pillow"]
    assert "node" not in lock["host"]
