"""Every rule of ``dataset check``, tokens, the contact sheet, import, the tagger and the verbs."""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
import tomllib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import typer
from PIL import Image, ImageDraw, ImageOps
from typer.testing import CliRunner

from orchestrator.cli import dataset
from orchestrator.dataset import contact_sheet, lint, tagger
from orchestrator.dataset.buckets import predict_batches
from orchestrator.dataset.build import build
from orchestrator.dataset.layout import make_layout
from orchestrator.dataset.lint import clip_tokens, console, image_hash
from orchestrator.dataset.lint.findings import Level
from orchestrator.dataset.problems import dataset_problems
from orchestrator.errors import NotReady, RecipeError
from orchestrator.importers import picture_folders
from orchestrator.recipe import Dataset, Training, loader

if TYPE_CHECKING:
    from pathlib import Path

PLAIN: dict[str, Any] = {
    "name": "one",
    "bucket_no_upscale": True,
    "bucket_reso_steps": 8,
    "min_bucket_reso": 8,
    "resolution_classes": [64, 256],
}
VIEWS = {"height": {"0": "", "1": "from above", "2": "from below"}, "framing": {"f": "upper body", "b": "full body"}}


def made(**table: Any) -> Dataset:
    return Dataset.model_validate_json(json.dumps({**PLAIN, **table}))


def face(seed: int, side: int = 96) -> Image.Image:
    """Draw a symmetric face whose colours and shapes follow from ``seed``."""
    dice = random.Random(seed)  # noqa: S311
    image = Image.new("RGB", (side, side), tuple(dice.randrange(120, 256) for _ in range(3)))
    draw = ImageDraw.Draw(image)
    for _ in range(12):
        x, y, size = dice.randrange(side // 2), dice.randrange(side), dice.randrange(4, side // 4)
        color = tuple(dice.randrange(256) for _ in range(3))
        draw.ellipse((x, y, x + size, y + size), color)
    half = image.crop((0, 0, side // 2, side))
    image.paste(ImageOps.mirror(half), (side - side // 2, 0))
    return image


@pytest.fixture
def good(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    for index, name in enumerate(("f00", "f01", "f10")):
        face(index).save(tmp_path / "data" / f"{name}.png")
    return tmp_path


SOURCE: dict[str, Any] = {"images": "data", "trigger": "krnk", "class_tokens": "krnk girl"}


def said(report: lint.LintReport, level: Level = Level.WARNING) -> list[str]:
    return [f"{one.where}: {one.what}" for one in report.findings if one.level is level]


def check(root: Path, **table: Any) -> lint.LintReport:
    source = {**SOURCE, **table.pop("source", {})}
    return lint.check(made(sources={"krnk": source}, vocabulary=VIEWS, **table), root)


def test_a_good_dataset_has_no_warning(good: Path) -> None:
    report = check(good, flip_aug=True)
    assert [one for one in report.findings if one.level is not Level.NOTE] == []
    assert report.errors() == []
    assert report.tags() == {"krnk": 3, "upper body": 3, "from above": 1}


def test_the_release_has_no_warning(project: Path) -> None:
    recipe = loader.recipe(project / "recipes", "krnk-loha").recipe
    report = lint.check(recipe.dataset, project, recipe.training)
    assert [one for one in report.findings if one.level is not Level.NOTE] == []
    seen = report.as_json()
    assert (seen["images_x_repeats"], seen["batches_per_epoch"], seen["epochs"], seen["steps"]) == (360, 210, 5, 1000)


@pytest.mark.parametrize(
    ("name", "form", "expected"),
    [
        ("f02.png", "JPEG", "is JPEG inside"),
        ("f02.jpg", "CMYK", "has CMYK colours"),
        ("f02.webp", "animated", "is animated"),
        ("f02.gif", "GIF", "is ignored: not an image by its ending"),
        ("f02.png", "truncated", "cannot be decoded"),
    ],
)
def test_odd_files(good: Path, name: str, form: str, expected: str) -> None:
    path, image = good / "data" / name, face(9)
    match form:
        case "CMYK":
            image.convert("CMYK").save(path, "JPEG")
        case "animated":
            image.save(path, "WEBP", save_all=True, append_images=[face(10)])
        case "truncated":
            noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
            Image.fromarray(noise).save(path)
            path.write_bytes(path.read_bytes()[:-3000])
        case _:
            image.save(path, form)
    level = Level.ERROR if form == "truncated" else Level.WARNING
    found = [text for text in said(check(good), level) if text.startswith(f"data/{name}")]
    assert len(found) == 1
    assert expected in found[0]


def test_what_lies_beside_the_pictures_is_named(good: Path) -> None:
    (good / "data" / "more").mkdir()
    face(40).save(good / "data" / "more" / "f02.png")
    (good / "data" / "f03.png").write_bytes(b"")
    sheer = face(41).convert("RGBA")
    sheer.putalpha(128)
    sheer.save(good / "data" / "f04.png")
    report = check(good, sizes=[48, 128, 256], source={"background_color": "#000000"})
    assert "data/more: is ignored, a subfolder with 1 image" in said(report)
    assert "data/f03.png: is empty: 0 bytes" in said(report, Level.ERROR)
    notes = said(report, Level.NOTE)
    assert "data/f04.png: is transparent; its background becomes #000000" in notes
    assert "data/f00.png: is 96 wide, too small to be trained at 128, 256: nothing is enlarged" in notes
    folders = good / "kohya"
    for name in ("2_cat", "0_off"):
        (folders / name).mkdir(parents=True)
        face(42).save(folders / name / "a.png")
    face(43).save(folders / "b.png")
    found = said(check(good, source={"images": "kohya", "reading": "kohya", "captions": "files"}))
    assert "kohya/0_off: is ignored, as by sd-scripts: its name has 0 repeats" in found
    assert "kohya/b.png: is ignored: it is beside the folders of images" in found


def test_what_many_pictures_share_is_said_once(good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("f02", "f03", "f04"):
        face(50 + int(name[1:])).convert("CMYK").save(good / "data" / f"{name}.jpg")
    report = check(good)
    assert len([text for text in said(report) if "CMYK" in text]) == 3
    console.show(report)
    lines = [line for line in capsys.readouterr().out.splitlines() if "CMYK" in line]
    assert lines == ["warning data/f02.jpg and 2 more  has CMYK colours, made for print; they become sRGB"]


def test_one_name_at_several_sizes_is_no_copy_in_folders_read_as_they_are(tmp_path: Path) -> None:
    for width in (64, 128, 256):
        folder = tmp_path / "4_krnk" / f"krnk girl_f{width:04d}"
        folder.mkdir(parents=True)
        face(1, 256).resize((width, width), Image.Resampling.LANCZOS).save(folder / "f00.png")
    copied = tmp_path / "4_krnk" / "krnk girl_f0256" / "f01.png"
    copied.write_bytes(copied.with_name("f00.png").read_bytes())
    found = said(check(tmp_path, source={"images": "4_krnk", "reading": "charframework"}))
    assert [text for text in found if "nearly the same" in text] == [
        "4_krnk/krnk girl_f0256/f01.png: looks nearly the same as 4_krnk/krnk girl_f0064/f00.png and 2 more"
    ]


def test_endings_that_sd_scripts_would_not_see(good: Path) -> None:
    face(9).save(good / "data" / "f02.Png", "PNG")
    report = check(good)
    assert "data/f02.Png: ends in .Png, which sd-scripts ignores; the build makes a PNG of it" in said(report, Level.NOTE)


def test_captions(good: Path) -> None:
    texts = {"f00": "krnk, a cat", "f01": "a dog", "f10": "krnk, " + "word, " * 40}
    for name, text in texts.items():
        (good / "data" / f"{name}.txt").write_text(f"{text}\nsecond line\n" if name == "f00" else text)
    (good / "data" / "f07.txt").write_text("nobody")
    found = said(check(good, source={"captions": "files"}))
    assert 'data/f01.png: its caption lacks the trigger word "krnk"' in found
    assert "data/f00.txt: has several lines; only the first is trained" in found
    assert "data/f07.txt: is a caption without an image of that name" in found
    assert [text for text in found if "data/f10.png" in text] == [
        f"data/f10.png: its caption has {2 + 80 + 1} tokens; those after the 75th are cut off"
    ]
    (good / "data" / "f01.txt").write_text("")
    broken = check(good, source={"captions": "files"})
    assert "data/f01.txt: has an empty first line, the only one that is read" in said(broken, Level.ERROR)
    assert [text for text in said(broken) if "without an image" in text] == [
        "data/f07.txt: is a caption without an image of that name"
    ]
    empty = check(good, source={"captions": "fixed", "trigger": "", "class_tokens": "girl"})
    assert said(empty, Level.ERROR) == [f"data/{name}.png: has an empty caption" for name in ("f00", "f01", "f10")]


def test_kohya_pictures_without_captions_are_named(tmp_path: Path) -> None:
    (tmp_path / "data" / "2_sks girl").mkdir(parents=True)
    face(1).save(tmp_path / "data" / "2_sks girl" / "a.png")
    found = said(check(tmp_path, source={"reading": "kohya", "captions": "files", "class_tokens": "", "trigger": ""}))
    assert 'data/2_sks girl/a.png: has no caption; the trainer uses "sks girl"' in found


def test_latent_caches_of_pictures_that_changed(good: Path) -> None:
    table, out = made(sources={"krnk": SOURCE}, vocabulary=VIEWS), good / "out"
    build(table, good, out, lambda *_: None)
    folder = out / "1_krnk" / "krnk girl_original"
    for name in ("f00_0096x0096_sd.npz", "f01.npz", "f10_other.npz"):
        (folder / name).write_bytes(b"latents")
    assert said(lint.check(table, good, built=out)) == []
    os.utime(folder / "f00_0096x0096_sd.npz", ns=(0, 0))
    cache = "out/1_krnk/krnk girl_original/f00_0096x0096_sd.npz"
    stale = f"{cache}: is a latent cache older than its image; the trainer would use it"
    assert said(lint.check(table, good, built=out)) == [stale]
    face(60).save(good / "data" / "f00.png")
    build(table, good, out, lambda *_: None)
    assert sorted(path.name for path in folder.glob("*.npz")) == ["f10_other.npz"]


def test_near_duplicates_are_found_and_others_are_not(good: Path) -> None:
    original = Image.open(good / "data" / "f00.png")
    original.resize((80, 80), Image.Resampling.LANCZOS).save(good / "data" / "f00_copy.jpg", quality=85)
    for index in range(20, 40):
        face(index).save(good / "data" / f"f2{index % 8}_{index}.png")
    found = [text for text in said(check(good)) if "looks nearly the same" in text]
    assert found == ["data/f00_copy.jpg: looks nearly the same as data/f00.png"]


def test_flips_of_a_character_that_is_not_symmetric(good: Path) -> None:
    for name in ("f00", "f10"):
        image = Image.open(good / "data" / f"{name}.png").convert("RGB")
        ImageDraw.Draw(image).rectangle((0, 20, 40, 90), (255, 0, 0))
        image.save(good / "data" / f"{name}.png")
    found = [text for text in said(check(good, flip_aug=True)) if "flips are on" in text]
    assert len(found) == 1
    assert found[0].startswith("dataset.sources.krnk: flips are on, and its front views differ by ")
    assert not [text for text in said(check(good, flip_aug=False)) if "flips" in text]


def test_shapes_and_sizes(good: Path) -> None:
    face(4).resize((250, 60)).save(good / "data" / "f02.png")
    face(5).resize((100, 70)).save(good / "data" / "f03.png")
    found = said(check(good, bucket_no_upscale=False, min_bucket_reso=64, max_bucket_reso=256, bucket_reso_steps=64))
    assert any(text.startswith("data/f02.png: 250x60 is an extreme shape") for text in found)
    assert any(text.startswith("data/f03.png: is too small for its class: enlarged ") for text in found)
    cut = said(check(good, bucket_reso_steps=48))
    assert any(text.startswith("data/f03.png: loses 34% of its area at its edges") for text in cut)
    batches = said(check(good, batch_size={"default": 4}, bucket_reso_steps=48), Level.NOTE)
    assert any("with repeats in 1 batches of 4: the last lacks" in text for text in batches)


def test_coverage_counts_flips_as_views(good: Path) -> None:
    with_flips, without = (check(good, flip_aug=flips).inspected.coverage[0] for flips in (True, False))
    assert with_flips.counts == {("0", "0"): 1, ("0", "1"): 1, ("1", "0"): 1}
    assert set(without.missing()) - set(with_flips.missing()) == {"f07"}
    assert len(without.missing()) == 24 - 3
    assert with_flips.as_json()["heights_x_directions"][0] == [1, 1, 0, 0, 0, 0, 0, 0]


def test_regularization_pictures_that_are_never_reached(good: Path) -> None:
    (good / "reg").mkdir()
    for index in range(5):
        face(50 + index).save(good / "reg" / f"{index}.png")
    table = {"krnk": SOURCE, "reg": {"images": "reg", "captions": "fixed", "tags": ["girl"], "regularization": True}}
    report = lint.check(made(sources=table, vocabulary=VIEWS), good)
    assert said(report) == ["class 256x256: 5 regularization images with repeats for 3 of the subject: the rest is never used"]


def test_trigger_words_that_collide_or_mean_something(good: Path) -> None:
    table = {"a": {**SOURCE, "trigger": "cat"}, "b": {**SOURCE, "images": "more", "trigger": "catkin girl"}}
    (good / "more").mkdir()
    face(30).save(good / "more" / "f00.png")
    report = lint.check(made(sources=table, vocabulary=VIEWS), good)
    assert any(text.startswith('dataset.sources.a.trigger: "cat" is a single token of CLIP') for text in said(report))
    notes = said(report, Level.NOTE)
    assert any('"cat" (cat) is the beginning of "catkin girl"' in text for text in notes)
    assert any('"catkin girl" reads cat|kin|girl and ends in the common word "girl"' in text for text in notes)


@pytest.mark.parametrize(
    ("trigger", "level", "expected"),
    [
        ("krnk", None, ""),
        ("shortcat", Level.NOTE, '"shortcat" reads short|cat and ends in the common word "cat", after "short"'),
        ("catkrnk", Level.NOTE, '"catkrnk" reads cat|kr|nk and contains the common word "cat"'),
        ("黒猫", Level.NOTE, '"黒猫" is 6 tokens of single bytes: the base model cannot read its letters'),
        ("sks", Level.WARNING, '"sks" is a single token of CLIP: the base model may know it'),
        ("Krnk, krnk", Level.WARNING, '"Krnk" and "krnk" are the same to CLIP, which ignores capitals'),
    ],
)
def test_what_a_trigger_is_to_the_text_encoder(good: Path, trigger: str, level: Level | None, expected: str) -> None:
    report = check(good, source={"trigger": trigger})
    about = [one for one in report.findings if one.where == "dataset.sources.krnk.trigger"]
    assert [(one.level, one.what) for one in about][:1] == ([(level, expected)] if level else [])


def test_the_recipes_own_token_limit_counts(good: Path) -> None:
    for length, most in ((100, 150), (160, 225), (230, None)):
        table = made(sources={"krnk": {**SOURCE, "captions": "fixed", "tags": ["a"] * (length // 2)}}, vocabulary=VIEWS)
        for own in (75, 150, 225):
            training = Training(steps=1, optimizer="AdamW", seed=1, options={"max_token_length": own})
            found = [one for one in lint.check(table, good, training).findings if "tokens" in one.what]
            assert bool(found) == (length + 1 > own)
            hint = f"training.options.max_token_length = {most} is long enough" if most else "225 is the limit"
            assert {one.hint for one in found} <= {hint}


def test_tokens_are_those_of_the_tokenizer_that_trains() -> None:
    """The Rust tokenizers library, set up as transformers sets up CLIP's."""
    rust = pytest.importorskip("tokenizers")
    merges = list(clip_tokens._ranks())
    alphabet = list(clip_tokens.byte_characters().values())
    pieces = [*alphabet, *(f"{one}</w>" for one in alphabet), *("".join(pair) for pair in merges)]
    vocabulary = {piece: index for index, piece in enumerate([*pieces, "<|startoftext|>", "<|endoftext|>"])}
    assert len(vocabulary) == 49408
    theirs = rust.Tokenizer(rust.models.BPE(vocabulary, merges, end_of_word_suffix="</w>", unk_token="<|endoftext|>"))  # noqa: S106
    normal = rust.normalizers
    theirs.normalizer = normal.Sequence([normal.NFC(), normal.Replace(rust.Regex(r"\s+"), " "), normal.Lowercase()])
    words = rust.Regex(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+")
    before = rust.pre_tokenizers
    theirs.pre_tokenizer = before.Sequence(
        [before.Split(words, "removed", invert=True), before.ByteLevel(add_prefix_space=False)]
    )
    dice = random.Random(7)  # noqa: S311
    texts = ["krnk, simple background, white background, from above, upper body, smile", "it's 2026!", "", "a" * 60, "½①ß_é"]
    letters = "abcdefgh ijklmno pqrstuvwxyz ABC 0123,.!?'-_#()&é½ß"
    texts += ["".join(dice.choices(letters, k=dice.randrange(40))) for _ in range(500)]
    for text in texts:
        assert clip_tokens.split(text) == theirs.encode(text).tokens, text
    assert [clip_tokens.limit(length) for length in (75, 76, 225, 226)] == [75, 150, 225, None]


def test_a_second_check_decodes_nothing(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = lint.hash_cache(good)
    table = made(sources={"krnk": SOURCE}, vocabulary=VIEWS)
    first = lint.check(table, good, cache=cache).as_json()
    seen: list[str] = []
    real = image_hash.hash_image

    def spy(path: Path) -> image_hash.ImageHash:
        seen.append(path.name)
        return real(path)

    monkeypatch.setattr(image_hash, "hash_image", spy)
    assert lint.check(table, good, cache=cache).as_json() == first
    assert seen == []
    face(70).save(good / "data" / "f01.png")
    lint.check(table, good, cache=cache)
    assert seen == ["f01.png"]
    cache.put({"broken": [1, 2, 3, 4, 5]})
    assert lint.check(table, good, cache=cache).errors() == []
    assert len(seen) == 4


def test_the_contact_sheet_shows_what_the_trainer_sees(good: Path) -> None:
    report = check(good, sizes=[64], batch_size={"default": 2}, flip_aug=True)
    page = contact_sheet.page(report)
    assert page.count("<li title=") == page.count('<i role="img"') == 6
    assert "64x64 <small>class 64x64: 3 with repeats, 2 batches of 2, the last lacks 1.</small>" in page
    assert "krnk, from above, upper body" in page
    assert str(good) not in page
    assert "http" not in page


def test_import_reads_what_people_have(good: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.mktemp("root")
    table = made(sources={"krnk": {**SOURCE, "repeats": 4}}, vocabulary=VIEWS, sizes=[64])
    build(table, good, root / "tree", lambda *_: None)
    plain = make_layout(table, good)
    text = picture_folders.describe(root / "tree" / "4_krnk", root)
    read = tomllib.loads(text)["dataset"]
    assert read == {
        "name": "krnk",
        "sources": {"krnk": {"images": "tree/4_krnk", "reading": "charframework", "captions": "files"}},
    }
    again = make_layout(made(**read), root)
    assert again.problems == ()
    assert predict_batches(again, made(**read)).images_x_repeats == predict_batches(plain, table).images_x_repeats
    captions = [{one.name: one.caption for one in folder.images} for folder in again.folders]
    assert captions == [{one.name: one.caption for one in folder.images} for folder in plain.folders]
    kohya = root / "kohya"
    (kohya / "10_sks girl").mkdir(parents=True)
    (kohya / "rest").mkdir()
    face(1).save(kohya / "10_sks girl" / "a.png")
    face(2).save(kohya / "rest" / "b.png")
    (kohya / "10_sks girl" / "a.caption").write_text("sks girl")
    text = picture_folders.describe(kohya, root, "mine")
    assert tomllib.loads(text)["dataset"] == {
        "name": "mine",
        "sources": {
            "mine": {
                "images": "kohya",
                "reading": "kohya",
                "captions": "files",
                "caption_files": ".caption",
                "trigger": "sks",
                "class_tokens": "sks girl",
            }
        },
    }
    assert (
        tomllib.loads(picture_folders.describe(good / "data", root))["dataset"]["sources"]["data"]["images"]
        == (good / "data").as_posix()
    )
    gui = root / "gui"
    for part, name in (("img", "10_sks girl"), ("img", "5_sks girl smile"), ("img", "loose"), ("reg", "1_girl")):
        (gui / part / name).mkdir(parents=True)
        face(3).save(gui / part / name / "a.png")
    text = picture_folders.describe(gui, root)
    assert "# loose is not read: it has no number of repeats; move it away, or name it 1_loose" in text
    read = tomllib.loads(text)["dataset"]
    assert read["sources"] == {
        "sks": {"images": "gui/img", "reading": "kohya", "captions": "files", "trigger": "sks"},
        "reg": {
            "images": "gui/reg",
            "reading": "kohya",
            "captions": "files",
            "regularization": True,
            "class_tokens": "girl",
        },
    }
    (gui / "img" / "loose" / "a.png").unlink()
    plan = make_layout(made(**read), root)
    assert plan.problems == ()
    seen = [(folder.class_tokens, folder.repeats, folder.regularization) for folder in plan.folders]
    assert seen == [("sks girl", 10, False), ("sks girl smile", 5, False), ("girl", 1, True)]
    loose = root / "loose"
    for name in ("mimi", "momo"):
        (loose / name).mkdir(parents=True)
        face(4).save(loose / name / "f00.png")
    assert tomllib.loads(picture_folders.describe(loose, root))["dataset"]["sources"] == {
        name: {"images": f"loose/{name}", "trigger": name, "class_tokens": name} for name in ("mimi", "momo")
    }
    (root / "nothing").mkdir()
    for wrong in (root / "nothing", root / "nowhere"):
        with pytest.raises(RecipeError):
            picture_folders.describe(wrong, root)


def field(number: int, *values: bytes | int | str) -> bytes:
    """Return one field of a protobuf message, once for each value: a number as varint, anything else by length."""

    def varint(value: int) -> bytes:
        head = [value >> shift & 127 | 128 for shift in range(0, max(1, value.bit_length()), 7)]
        return bytes([*head[:-1], head[-1] & 127])

    encoded = b""
    for value in values:
        if isinstance(value, int):
            encoded += varint(number << 3) + varint(value)
        else:
            data = value.encode() if isinstance(value, str) else value
            encoded += varint(number << 3 | 2) + varint(len(data)) + data
    return encoded


def tagger_model(folder: Path) -> None:
    """Write a tagger of six tags, 16 x 16 pixels: the scores follow from the picture's mean blue, green and red."""
    weights = np.zeros((3, 6), np.float32)
    weights[2, 0] = weights[2, 3] = 1 / 255  # red -> "red_hair" and a character
    weights[0, 1] = 1 / 255  # blue -> "blue_sky"
    weights[1, 2] = 1 / 255  # green -> "^_^"
    weights[2, 4] = 0.5 / 255  # half of red -> "red_dress"
    weights[2, 5] = 0.9 / 255  # -> "banned_tag"

    def tensor(name: str, kind: int, array: np.ndarray[Any, Any]) -> bytes:
        return field(1, *array.shape) + field(2, kind) + field(8, name) + field(9, array.tobytes())

    def value(name: str, *shape: int | str) -> bytes:
        sides = b"".join(field(1, field(1 if isinstance(side, int) else 2, side)) for side in shape)
        return field(1, name) + field(2, field(1, field(1, 1) + field(2, sides)))

    keepdims = field(1, "keepdims") + field(3, 0) + field(20, 2)
    nodes = [
        field(1, "picture", "axes") + field(2, "mean") + field(4, "ReduceMean") + field(5, keepdims),
        field(1, "mean", "weights") + field(2, "scores") + field(4, "MatMul"),
    ]
    tensors = [tensor("weights", 1, weights), tensor("axes", 7, np.array([1, 2], np.int64))]
    graph = field(1, *nodes) + field(2, "tagger") + field(5, *tensors)
    graph += field(11, value("picture", "n", 16, 16, 3)) + field(12, value("scores", "n", 6))
    folder.mkdir(exist_ok=True)
    (folder / "model.onnx").write_bytes(field(1, 8) + field(7, graph) + field(8, field(1, "") + field(2, 18)))
    write_tags(folder / "selected_tags.csv")


def write_tags(path: Path) -> None:
    rows = [("red_hair", 0), ("blue_sky", 0), ("^_^", 0), ("someone", 4), ("red_dress", 0), ("banned_tag", 0)]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["tag_id", "name", "category", "count"])
        writer.writerows((index, name, category, 1) for index, (name, category) in enumerate(rows))


def test_the_tagger_captions_free_pictures(tmp_path: Path) -> None:
    tagger_model(tmp_path / "models")
    (tmp_path / "data").mkdir()
    Image.new("RGB", (64, 64), (255, 10, 0)).save(tmp_path / "data" / "holiday.png")
    Image.new("RGB", (64, 64), (0, 255, 255)).save(tmp_path / "data" / "sea.png")
    table = made(
        sources={"krnk": {**SOURCE, "captions": "tagger", "tags": ["red dress"]}},
        tagger_model="models/model.onnx",
        tag_blacklist=["banned tag"],
    )
    assert dataset_problems(make_layout(table, tmp_path), table, tmp_path) == []
    told: list[tuple[int, int]] = []
    build(table, tmp_path, tmp_path / "out", lambda done, total, _: told.append((done, total)))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]  # two captions, two pictures
    texts = {path.stem: path.read_text() for path in (tmp_path / "out").rglob("*.txt")}
    assert texts == {"holiday": "krnk, red dress, red hair\n", "sea": "krnk, red dress, ^_^, blue sky\n"}
    manifest = json.loads((tmp_path / "out" / "dataset.json").read_text("utf-8"))
    assert manifest["tags"] == {"krnk": 2, "red dress": 2, "red hair": 1, "^_^": 1, "blue sky": 1}


def test_what_the_tagger_says(tmp_path: Path) -> None:
    write_tags(tmp_path / "selected_tags.csv")
    tags = tagger.read_tags(tmp_path / "selected_tags.csv")
    assert tagger.chosen(tags, [0.5, 0.9, 0.35, 1.0, 0.34, 0.0], 0.35) == ["blue sky", "red hair", "^_^"]
    with pytest.raises(NotReady, match="cannot be read"):
        tagger.read_tags(tmp_path / "none.csv")
    (tmp_path / "selected_tags.csv").write_text("a,b\n1,2\n")
    with pytest.raises(NotReady, match="has no column"):
        tagger.read_tags(tmp_path / "selected_tags.csv")


def test_a_tagger_that_is_not_there_is_said_before_the_run(good: Path) -> None:
    table = made(sources={"krnk": {**SOURCE, "captions": "tagger"}}, tagger_model="models/model.onnx")
    problems = dataset_problems(make_layout(table, good), table, good)
    assert [problem.what.rpartition("/")[2] for problem in problems] == ["model.onnx", "selected_tags.csv"]
    with pytest.raises(RecipeError):
        build(table, good, good / "out", lambda *_: None)


@pytest.fixture
def run(project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Return a function that runs ``dataset …`` in a project of its own with the demo's recipes and pictures."""
    for name in ("recipes", "data/krnk", "data/others"):
        shutil.copytree(project / name, tmp_path / "project" / name)
    monkeypatch.setenv("KRNK_PROJECT", str(tmp_path / "project"))
    app = typer.Typer()
    dataset.register(app)
    app.callback()(lambda: None)
    return lambda *argv: CliRunner().invoke(app, ["dataset", *argv])


def test_the_verbs(run: Any, tmp_path: Path) -> None:
    checked = run("check", "krnk-locon", "--json", "--contact", str(tmp_path / "sheet" / "c.html"))
    assert checked.exit_code == 0, checked.output
    assert json.loads(checked.stdout)["batches_per_epoch"] == 210
    assert (tmp_path / "sheet" / "c.html").stat().st_size > 10_000
    shown = run("check", "krnk-locon")
    assert "num batches per epoch       210" in shown.stdout
    assert "num epochs                  5   for 1000 steps" in shown.stdout
    for expected in ("51 images", "51 images, nothing has changed"):
        built = run("build", "krnk-locon", "--profile", "demo")
        assert built.exit_code == 0, built.output
        assert built.stdout.strip().endswith(expected)
    assert (tmp_path / "project" / "build" / "datasets" / "krnk" / "dataset.toml").is_file()
    target = tmp_path / "parts" / "mine.toml"
    folder = str(tmp_path / "project" / "build" / "datasets" / "krnk" / "4_krnk")
    assert run("import", folder, "--output", str(target)).exit_code == 0
    assert tomllib.loads(target.read_text())["dataset"]["sources"]["krnk"]["images"] == "build/datasets/krnk/4_krnk"
    assert isinstance(run("import", folder, "--output", str(target)).exception, RecipeError)


def test_check_ends_with_3_when_something_would_stop_it(run: Any, tmp_path: Path) -> None:
    recipe = tmp_path / "project" / "mine.toml"
    recipe.write_text(
        'extends = ["_base/release-2023-03", "_algorithms/locon", "_subjects/krnk"]\nsummary = "s"\n'
        '[dataset.sources.krnk]\nimages = "no"\n'
    )
    result = run("check", str(recipe))
    assert result.exit_code == 3
    assert "no folder no" in result.stdout


def test_a_strangers_recipe_reads_no_folder_outside_the_project(run: Any, tmp_path: Path) -> None:
    (tmp_path / "private").mkdir()
    face(1).save(tmp_path / "private" / "f00.png")
    recipe = tmp_path / "project" / "mine.toml"
    recipe.write_text(
        'extends = ["_base/release-2023-03", "_algorithms/locon", "_subjects/krnk"]\nsummary = "s"\n'
        f'[dataset.sources.krnk]\nimages = "{tmp_path.as_posix()}/private"\n'
    )
    for verb in ("check", "build"):
        assert "outside the project" in str(run(verb, str(recipe)).exception)
