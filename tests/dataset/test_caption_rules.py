"""Rules of ``dataset check`` for captions and trigger words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dataset_cases import SOURCE, VIEWS, check, face, made, texts_of
from orchestrator.dataset import lint
from orchestrator.dataset.lint.findings import Level
from orchestrator.recipe import Training

if TYPE_CHECKING:
    from pathlib import Path


def test_captions(good: Path) -> None:
    texts = {"f00": "krnk, a cat", "f01": "a dog", "f10": "krnk, " + "word, " * 40}
    for name, text in texts.items():
        (good / "data" / f"{name}.txt").write_text(f"{text}\nsecond line\n" if name == "f00" else text)
    (good / "data" / "f07.txt").write_text("unused")
    findings = texts_of(check(good, source={"captions": "files"}))
    assert 'data/f01.png: its caption lacks the trigger word "krnk"' in findings
    assert "data/f00.txt: has several lines; only the first is trained" in findings
    assert "data/f07.txt: is a caption without an image of that name" in findings
    assert [text for text in findings if "data/f10.png" in text] == [
        f"data/f10.png: its caption has {2 + 80 + 1} tokens; those after the 75th are cut off"
    ]
    (good / "data" / "f01.txt").write_text("")
    broken = check(good, source={"captions": "files"})
    assert "data/f01.txt: has an empty first line, the only one that is read" in texts_of(broken, Level.ERROR)
    assert [text for text in texts_of(broken) if "without an image" in text] == [
        "data/f07.txt: is a caption without an image of that name"
    ]
    empty = check(good, source={"captions": "fixed", "trigger": "", "class_tokens": "girl"})
    assert texts_of(empty, Level.ERROR) == [f"data/{name}.png: has an empty caption" for name in ("f00", "f01", "f10")]


def test_two_captions_and_none_are_reported(good: Path) -> None:
    (good / "data" / "f00.txt").write_text("krnk, from the file")
    texts = {"f00": "krnk, from the recipe", "f01": "krnk, alone"}
    findings = texts_of(check(good, source={"captions": "files", "texts": texts}))
    both = 'has a caption in f00.txt and in dataset.sources.krnk.texts."f00"; the file is used'
    assert [text for text in findings if "f00" in text] == [f"data/f00.png: {both}"]
    assert not any("f01" in text for text in findings)
    assert 'data/f10.png: has no .txt; its caption is "krnk"' in findings


def test_kohya_images_without_captions_are_reported(tmp_path: Path) -> None:
    (tmp_path / "data" / "2_sks girl").mkdir(parents=True)
    face(1).save(tmp_path / "data" / "2_sks girl" / "a.png")
    findings = texts_of(check(tmp_path, source={"reading": "kohya", "captions": "files", "class_tokens": "", "trigger": ""}))
    assert 'data/2_sks girl/a.png: has no caption; the trainer uses "sks girl"' in findings


def test_trigger_words_that_collide_or_are_common(good: Path) -> None:
    table = {"a": {**SOURCE, "trigger": "cat"}, "b": {**SOURCE, "images": "more", "trigger": "catkin girl"}}
    (good / "more").mkdir()
    face(30).save(good / "more" / "f00.png")
    report = lint.check(made(sources=table, vocabulary=VIEWS), good)
    assert any(text.startswith('dataset.sources.a.trigger: "cat" is a single token of CLIP') for text in texts_of(report))
    notes = texts_of(report, Level.NOTE)
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
def test_tokens_of_a_trigger_word(good: Path, trigger: str, level: Level | None, expected: str) -> None:
    report = check(good, source={"trigger": trigger})
    findings = [finding for finding in report.findings if finding.where == "dataset.sources.krnk.trigger"]
    assert [(finding.level, finding.what) for finding in findings][:1] == ([(level, expected)] if level else [])


def test_the_token_limit_of_the_recipe_is_used(good: Path) -> None:
    for length, most in ((100, 150), (160, 225), (230, None)):
        table = made(sources={"krnk": {**SOURCE, "captions": "fixed", "tags": ["a"] * (length // 2)}}, vocabulary=VIEWS)
        for own in (75, 150, 225):
            training = Training(steps=1, optimizer="AdamW", seed=1, options={"max_token_length": own})
            findings = [finding for finding in lint.check(table, good, training).findings if "tokens" in finding.what]
            assert bool(findings) == (length + 1 > own)
            hint = f"training.options.max_token_length = {most} is long enough" if most else "225 is the limit"
            assert {finding.hint for finding in findings} <= {hint}
