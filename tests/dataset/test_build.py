"""The build: files, digests, and a second build without changes."""

from __future__ import annotations

import hashlib
import io
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dataset_cases import noise, silent
from orchestrator.dataset import image_headers, image_io
from orchestrator.dataset.__main__ import main
from orchestrator.dataset.build import build
from orchestrator.dataset.layout import make_layout
from orchestrator.dataset.problems import disk_bytes
from orchestrator.dataset.sd_scripts_toml import absolute_config
from orchestrator.errors import RecipeError, StepFailed
from orchestrator.recipe import Dataset


def made(**table: Any) -> Dataset:
    return Dataset.model_validate_json(
        json.dumps({"name": "one", "bucket_no_upscale": True, "bucket_reso_steps": 8, "min_bucket_reso": 8, **table})
    )


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_disk_bytes_is_an_upper_bound(project_folder: Path) -> None:
    bound = disk_bytes(make_layout(made(**TABLE), project_folder))
    build(made(**TABLE), project_folder, project_folder / "out", silent)
    folders = [path for path in (project_folder / "out").rglob("*") if path.suffix in {".png", ".txt"}]
    images = sum(path.stat().st_size for path in folders if path.suffix == ".png")
    blocks = sum(-(-path.stat().st_size // 4096) * 4096 for path in folders)
    assert len(folders) == 2 * 3 * 3
    assert images < blocks <= bound < 2 * images + len(folders) * 4096, "noise takes about the bound"


@pytest.fixture
def project_folder(tmp_path: Path) -> Path:
    data = tmp_path / "data"
    data.mkdir()
    for index, name in enumerate(("f00", "f01", "f04")):
        Image.fromarray(noise(96, 80, seed=index)).save(data / f"{name}.png")
    return tmp_path


TABLE: dict[str, Any] = {
    "sources": {"krnk": {"images": "data", "trigger": "krnk", "class_tokens": "krnk girl"}},
    "sizes": [32, 48],
    "resolution_classes": [64, 96],
    "vocabulary": {"framing": {"f": "upper body"}},
}


def test_the_program_writes_folders_captions_config_and_manifest(
    project_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    request = project_folder / "request.json"
    out = project_folder / "out"
    request.write_text(
        json.dumps({"dataset": made(**TABLE).model_dump(mode="json"), "root": str(project_folder), "output": str(out)})
    )
    assert main(["build", str(request)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith("PROGRESS {") for line in lines)
    assert json.loads(lines[-1].removeprefix("PROGRESS ")).items() >= {"done": 9, "total": 9}.items()
    files = tree(out)
    assert files["1_krnk/krnk girl_f0032/f00.txt"] == b"krnk, upper body\n"
    assert (out / "1_krnk/krnk girl_original/f01.png").read_bytes() == (project_folder / "data/f01.png").read_bytes()
    with Image.open(out / "1_krnk/krnk girl_f0048/f01.png") as image:
        assert (image.mode, image.size, image.info) == ("RGB", (48, 40), {})
    manifest = json.loads(files["dataset.json"])
    assert manifest["files"] == {name: len(data) for name, data in files.items() if name != "dataset.json"}
    entry = next(picture for picture in manifest["pictures"] if picture["file"] == "1_krnk/krnk girl_f0048/f01.png")
    assert entry["source"] == "krnk/f01.png"
    assert (entry["bucket"], entry["caption"], entry["original_size"]) == ([48, 40], "krnk, upper body", [96, 80])
    assert str(project_folder) not in files["dataset.json"].decode() + files["dataset.toml"].decode()
    for dataset in tomllib.loads(absolute_config(out))["datasets"]:
        for subset in dataset["subsets"]:
            assert list(Path(subset["image_dir"]).glob("*.png"))


def test_identical_input_gives_identical_bytes_and_originals_stay(
    project_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    before = tree(project_folder / "data")
    build(made(**TABLE), project_folder, project_folder / "a", silent)
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "data").mkdir()
    for name, data in before.items():
        (elsewhere / "data" / name).write_bytes(data)
    build(made(**TABLE), elsewhere, elsewhere / "b", silent)
    assert tree(project_folder / "a") == tree(elsewhere / "b")
    assert tree(project_folder / "data") == before


def test_the_number_of_cores_and_the_name_of_the_folder_change_no_byte(
    project_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project_folder / "data").rename(project_folder / "moved")
    trees = []
    for cores, name in ((1, "data"), (2, "deep/er"), (7, "data")):
        monkeypatch.setattr(image_io, "thread_count", lambda cores=cores: cores)
        (project_folder / name).parent.mkdir(exist_ok=True)
        last = next(
            path for path in (project_folder / "moved", project_folder / "data", project_folder / "deep/er") if path.exists()
        )
        last.rename(project_folder / name)
        image_headers._headers.clear()
        table = made(**{**TABLE, "sources": {"krnk": {**TABLE["sources"]["krnk"], "images": name}}})
        build(table, project_folder, project_folder / f"out{cores}", silent)
        trees.append(tree(project_folder / f"out{cores}"))
    assert trees[0] == trees[1] == trees[2]
    assert len(trees[0]) == 3 * 3 * 2 + 3  # images and captions; dataset.toml, dataset.json, contact.webp


def test_nothing_is_written_when_nothing_has_changed(project_folder: Path) -> None:
    out = project_folder / "out"
    assert not build(made(**TABLE), project_folder, out, silent).unchanged
    stamps = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert build(made(**TABLE), project_folder, out, silent).unchanged
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == stamps
    (out / "1_krnk/krnk girl_f0032/f00.txt").write_text("edited by hand")
    assert not build(made(**TABLE), project_folder, out, silent).unchanged
    assert (out / "1_krnk/krnk girl_f0032/f00.txt").read_text() == "krnk, upper body\n"
    Image.fromarray(noise(96, 80, seed=9)).save(project_folder / "data/f00.png")
    (project_folder / "data/f04.png").unlink()
    assert not build(made(**TABLE), project_folder, out, silent).unchanged
    assert not list(out.rglob("f04.*"))
    fresh = project_folder / "fresh"
    build(made(**TABLE), project_folder, fresh, silent)
    assert tree(out) == tree(fresh)


def test_an_interrupted_build_is_not_taken_for_done(project_folder: Path) -> None:
    out = project_folder / "out"
    build(made(**TABLE), project_folder, out, silent)
    whole = tree(out)

    class StoppedError(Exception):
        pass

    def stop(_done: int, _total: int, note: str) -> None:
        raise StoppedError(note)

    changed = made(**{**TABLE, "sizes": [40]})
    with pytest.raises(StoppedError):
        build(changed, project_folder, out, stop)
    assert not (out / "dataset.json").exists()
    assert not build(made(**TABLE), project_folder, out, silent).unchanged
    assert tree(out) == whole


def test_a_layout_with_problems_writes_nothing(project_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project_folder / "data/portrait.png").write_bytes(b"not an image")
    request = project_folder / "request.json"
    values = {
        "dataset": made(**TABLE).model_dump(mode="json"),
        "root": str(project_folder),
        "output": str(project_folder / "out"),
    }
    request.write_text(json.dumps(values))
    assert main(["build", str(request)]) == RecipeError.exit_code
    assert "data/portrait.png" in capsys.readouterr().err
    assert not (project_folder / "out").exists()
    request.write_text("{")
    assert main(["build", str(request)]) == RecipeError.exit_code
    assert "is not a request" in capsys.readouterr().err
    assert main(["bild"]) == RecipeError.exit_code


def test_every_truncated_image_is_reported(project_folder: Path) -> None:
    for name in ("f00", "f04"):
        path = project_folder / "data" / f"{name}.png"
        path.write_bytes(path.read_bytes()[:-4000])
    with pytest.raises(StepFailed) as caught:
        build(made(**TABLE), project_folder, project_folder / "out", silent)
    assert [Path(problem.where).name for problem in caught.value.problems] == ["f00.png", "f04.png"]
    assert not (project_folder / "out" / "dataset.json").exists()


def test_digests_of_copied_images(project_folder: Path) -> None:
    """A JPEG becomes a PNG with exactly the pixels that Pillow decodes."""
    source = Image.fromarray(noise(96, 80, seed=5))
    data = io.BytesIO()
    source.save(data, "JPEG")
    (project_folder / "data/f02.jpg").write_bytes(data.getvalue())
    build(made(**TABLE), project_folder, project_folder / "out", silent)
    with Image.open(project_folder / "out/1_krnk/krnk girl_original/f02.png") as built, Image.open(data) as decoded:
        copied, expected = (hashlib.sha256(image.convert("RGB").tobytes()).hexdigest() for image in (built, decoded))
    assert copied == expected
