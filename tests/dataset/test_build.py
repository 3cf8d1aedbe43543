"""The step's program: pixels, files, and doing nothing when nothing has changed."""

from __future__ import annotations

import hashlib
import io
import json
import random
import struct
import tomllib
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from orchestrator.dataset import image_headers, image_io
from orchestrator.dataset.__main__ import main
from orchestrator.dataset.build import build
from orchestrator.dataset.layout import make_layout
from orchestrator.dataset.problems import disk_bytes
from orchestrator.dataset.sd_scripts_toml import absolute_config
from orchestrator.dataset.sources import key_params
from orchestrator.errors import RecipeError, StepFailed
from orchestrator.recipe import Dataset

WHITE = "#ffffff"


def made(**table: Any) -> Dataset:
    return Dataset.model_validate_json(
        json.dumps({"name": "one", "bucket_no_upscale": True, "bucket_reso_steps": 8, "min_bucket_reso": 8, **table})
    )


def noise(width: int, height: int, channels: int = 3, seed: int = 0) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def silent(_done: int, _total: int, _note: str) -> None:
    """Report nothing."""


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_most_that_a_build_takes_is_known_before(project_folder: Path) -> None:
    said = disk_bytes(make_layout(made(**TABLE), project_folder))
    build(made(**TABLE), project_folder, project_folder / "out", silent)
    folders = [path for path in (project_folder / "out").rglob("*") if path.suffix in {".png", ".txt"}]
    pictures = sum(path.stat().st_size for path in folders if path.suffix == ".png")
    blocks = sum(-(-path.stat().st_size // 4096) * 4096 for path in folders)
    assert len(folders) == 2 * 3 * 3
    assert pictures < blocks <= said < 2 * pictures + len(folders) * 4096, "noise takes about what is said"


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
    entry = next(one for one in manifest["pictures"] if one["file"] == "1_krnk/krnk girl_f0048/f01.png")
    assert entry["source"] == "krnk/f01.png"
    assert (entry["bucket"], entry["caption"], entry["original_size"]) == ([48, 40], "krnk, upper body", [96, 80])
    assert str(project_folder) not in files["dataset.json"].decode() + files["dataset.toml"].decode()
    for one in tomllib.loads(absolute_config(out))["datasets"]:
        for subset in one["subsets"]:
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
    assert len(trees[0]) == 3 * 3 * 2 + 3  # pictures and captions; dataset.toml, dataset.json, contact.webp


def test_a_folder_of_charframework_is_another_one_when_its_repeats_change() -> None:
    """Its name states them: 4_krnk. Elsewhere the place of the pictures is no part of what was asked."""
    reading = {"reading": "charframework"}
    four, eight, elsewhere = (
        key_params(made(sources={"k": {"images": images, **reading}})) for images in ("a/4_krnk", "a/8_krnk", "b/4_krnk")
    )
    assert four == elsewhere != eight
    assert key_params(made(sources={"k": {"images": "a"}})) == key_params(made(sources={"k": {"images": "b"}}))


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
    (project_folder / "data/portrait.png").write_bytes((project_folder / "data/f00.png").read_bytes())
    request = project_folder / "request.json"
    asked = {
        "dataset": made(**TABLE).model_dump(mode="json"),
        "root": str(project_folder),
        "output": str(project_folder / "out"),
    }
    request.write_text(json.dumps(asked))
    assert main(["build", str(request)]) == RecipeError.exit_code
    assert "data/portrait.png" in capsys.readouterr().err
    assert not (project_folder / "out").exists()
    request.write_text("{")
    assert main(["build", str(request)]) == RecipeError.exit_code
    assert "is not a request" in capsys.readouterr().err
    assert main(["bild"]) == RecipeError.exit_code


def test_truncated_pictures_fail_together_by_name(project_folder: Path) -> None:
    for name in ("f00", "f04"):
        path = project_folder / "data" / f"{name}.png"
        path.write_bytes(path.read_bytes()[:-4000])
    with pytest.raises(StepFailed) as caught:
        build(made(**TABLE), project_folder, project_folder / "out", silent)
    assert [Path(problem.where).name for problem in caught.value.problems] == ["f00.png", "f04.png"]
    assert not (project_folder / "out" / "dataset.json").exists()


def loaded(
    image: Image.Image, tmp_path: Path, form: str = "PNG", background: str = WHITE, **options: Any
) -> np.ndarray[Any, Any]:
    path = tmp_path / f"picture.{form.lower()}"
    image.save(path, form, **options)
    return np.asarray(image_io.load(path, background))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    upright = noise(6, 4)
    back = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}[orientation]  # the transposition that undoes the tag
    stored = Image.fromarray(upright)
    stored = stored if back is None else stored.transpose(Image.Transpose(back))
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert np.array_equal(loaded(stored, tmp_path, exif=exif), upright)
    header = image_headers.read(tmp_path / "picture.png")
    assert (header.width, header.height) == (6, 4)


def test_alpha_shows_the_background(tmp_path: Path) -> None:
    image = Image.new("RGBA", (4, 4), (200, 100, 0, 0))
    image.putpixel((1, 1), (200, 100, 0, 255))
    image.putpixel((2, 2), (0, 0, 0, 128))
    for background, empty, half in ((WHITE, 255, 127), ("#000000", 0, 0)):
        seen = loaded(image, tmp_path, background=background)
        assert seen[0, 0].tolist() == [empty] * 3
        assert seen[1, 1].tolist() == [200, 100, 0]
        assert abs(int(seen[2, 2, 0]) - half) <= 1


def test_palettes_grey_and_sixteen_bits(tmp_path: Path) -> None:
    colors = Image.new("P", (2, 1))
    colors.putpalette([255, 0, 0, 0, 0, 255])
    colors.putpixel((1, 0), 1)
    assert loaded(colors, tmp_path).tolist() == [[[255, 0, 0], [0, 0, 255]]]
    assert loaded(colors, tmp_path, transparency=1, background="#00ff00").tolist() == [[[255, 0, 0], [0, 255, 0]]]
    deep = Image.fromarray(np.array([[0, 257, 32896, 65535]], np.uint16))
    assert loaded(deep, tmp_path)[0, :, 0].tolist() == [0, 1, 128, 255]
    assert image_headers.read(tmp_path / "picture.png").deep
    assert loaded(Image.new("L", (1, 1), 77), tmp_path).tolist() == [[[77, 77, 77]]]
    assert loaded(Image.new("1", (1, 1), 1), tmp_path).tolist() == [[[255, 255, 255]]]
    with pytest.raises(image_headers.UnreadableError, match="floating-point"):
        loaded(Image.new("F", (1, 1)), tmp_path, "TIFF")


def test_sixteen_bit_colour_is_not_copied(tmp_path: Path) -> None:
    """Pillow opens it as RGB; the trainer would, too, but other readers do not."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    row = b"\0" + struct.pack(">3H", 65535, 32896, 0)
    data = (
        chunk(b"IHDR", struct.pack(">2I5B", 1, 1, 16, 2, 0, 0, 0)) + chunk(b"IDAT", zlib.compress(row)) + chunk(b"IEND", b"")
    )
    path = tmp_path / "deep.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    header = image_headers.read(path)
    assert header.deep
    assert not header.plain
    assert np.asarray(image_io.load(path, WHITE)).tolist() == [[[255, 128, 0]]]


def test_icc_profiles_become_srgb(tmp_path: Path) -> None:
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert loaded(Image.new("RGB", (1, 1), (10, 200, 90)), tmp_path, icc_profile=lab).tolist() == [[[10, 200, 90]]]
    swapped = _with_red_and_green_swapped(lab)
    assert loaded(Image.new("RGB", (1, 1), (250, 0, 0)), tmp_path, icc_profile=swapped)[0, 0].tolist() == [0, 250, 0]
    alpha = Image.new("RGBA", (1, 1), (250, 0, 0, 255))
    assert loaded(alpha, tmp_path, icc_profile=swapped)[0, 0].tolist() == [0, 250, 0]
    assert loaded(Image.new("RGB", (1, 1), (10, 200, 90)), tmp_path, icc_profile=b"broken").tolist() == [[[10, 200, 90]]]
    assert not image_headers.read(tmp_path / "picture.png").plain


def _with_red_and_green_swapped(profile: bytes) -> bytes:
    """Return a profile in which what is called red is green: the two tags change names."""
    count = int.from_bytes(profile[128:132], "big")
    table = bytearray(profile)
    names = {b"rXYZ": b"gXYZ", b"gXYZ": b"rXYZ"}
    for index in range(count):
        at = 132 + 12 * index
        table[at : at + 4] = names.get(bytes(table[at : at + 4]), bytes(table[at : at + 4]))
    return bytes(table)


def test_cmyk_and_animations(tmp_path: Path) -> None:
    assert loaded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), tmp_path, "JPEG")[0, 0, 0] > 200
    first, second = Image.new("RGB", (4, 4), "red"), Image.new("RGB", (4, 4), "blue")
    seen = loaded(first, tmp_path, "WEBP", save_all=True, append_images=[second], lossless=True)
    assert seen[0, 0].tolist() == [255, 0, 0]
    assert image_headers.read(tmp_path / "picture.webp").animated


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 9), (7, 1), (33, 20), (96, 64)])
def test_a_picture_is_written_as_it_is(tmp_path: Path, width: int, height: int) -> None:
    image_io.save(Image.fromarray(noise(width, height)), tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        image.verify()
    with Image.open(tmp_path / "a.png") as image:
        assert (image.mode, image.info) == ("RGB", {})
        assert np.array_equal(np.asarray(image), noise(width, height))
    assert image_headers.read(tmp_path / "a.png").plain


@pytest.mark.parametrize("way", ["lanczos", "area"])
def test_downscaling_averages_and_does_not_pick(way: str) -> None:
    """A picture that drops pixels makes stripes out of a fine pattern; one that averages makes it even."""
    stripes = np.zeros((120, 120, 3), np.uint8)
    stripes[:, ::2] = 255
    small = np.asarray(image_io.resized(Image.fromarray(stripes), (40, 40), way)).astype(int)
    assert abs(small[:, 2:-2].mean() - 127.5) < 4
    assert small[:, 2:-2].std() < 45


def test_a_picture_too_large_to_be_true(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("1", (300, 300)).save(tmp_path / "f00.png")
    for most in (80_000, 40_000):  # a warning above the limit, an error above twice of it
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", most)
        (tmp_path / "f00.png").touch()
        image_headers._headers.clear()
        with pytest.raises(image_headers.UnreadableError, match="million pixels"):
            image_headers.read(tmp_path / "f00.png")


def test_digests_of_what_is_copied(project_folder: Path) -> None:
    """A JPEG becomes a PNG with exactly the pixels that Pillow decodes."""
    source = Image.fromarray(noise(96, 80, seed=5))
    data = io.BytesIO()
    source.save(data, "JPEG")
    (project_folder / "data/f02.jpg").write_bytes(data.getvalue())
    build(made(**TABLE), project_folder, project_folder / "out", silent)
    with Image.open(project_folder / "out/1_krnk/krnk girl_original/f02.png") as built, Image.open(data) as decoded:
        one, other = (hashlib.sha256(image.convert("RGB").tobytes()).hexdigest() for image in (built, decoded))
    assert one == other


def test_broken_pictures_give_one_kind_of_error(tmp_path: Path) -> None:
    """Random damage in headers and data: a picture is read, or it is said to be unreadable; nothing else is raised."""
    dice = random.Random(3)  # noqa: S311
    exif = Image.Exif()
    exif[0x0112] = 6
    whole: list[tuple[str, bytes]] = []
    for form, options in (
        ("PNG", {"exif": exif}),
        ("JPEG", {"exif": exif}),
        ("JPEG", {"progressive": True}),
        ("WEBP", {}),
        ("BMP", {}),
    ):
        data = io.BytesIO()
        Image.fromarray(noise(50, 40)).save(data, form, **options)
        whole.append((form, data.getvalue()))
    outcomes = set()
    for _ in range(600):
        form, data_of = dice.choice(whole)
        damaged = bytearray(data_of)
        for _ in range(dice.choice((1, 2, 8))):
            damaged[dice.randrange(min(len(damaged), dice.choice((64, 400, len(damaged)))))] = dice.randrange(256)
        if dice.random() < 0.3:
            del damaged[dice.randrange(1, len(damaged)) :]
        path = tmp_path / f"picture.{form.lower()}"
        path.write_bytes(damaged)
        image_headers._headers.clear()
        try:
            image_headers.read(path)
            with image_io.without_warnings():
                image_io.load(path, WHITE)
            outcomes.add("read")
        except image_headers.UnreadableError as error:
            outcomes.add(str(error).split()[0])
    assert {"read", "is", "cannot"} <= outcomes


def test_a_program_in_a_picture_is_not_run(tmp_path: Path) -> None:
    """Pillow hands EPS to Ghostscript, whatever the file is called."""
    path = tmp_path / "f00.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n")
    with Image.open(path) as image:
        assert image.format == "EPS"
    for read in (image_headers.read, lambda one: image_io.load(one, WHITE)):
        with pytest.raises(image_headers.UnreadableError):
            read(path)
