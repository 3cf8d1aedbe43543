"""Captions are counted by the tokenizers of the recipe's architecture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from dataset_cases import SOURCE, made, texts_of
from orchestrator.dataset import lint
from orchestrator.dataset.lint import token_limits
from orchestrator.models.registry import ARCHITECTURES, ArchitectureName
from orchestrator.recipe import Training

if TYPE_CHECKING:
    from pathlib import Path

CAPTION = "krnk, " + "word, " * 40  # 83 tokens of CLIP


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a checkout whose tokenizers make one token of each word."""
    tokenizers = pytest.importorskip("tokenizers")
    for name in ("qwen3_06b", "t5_old"):
        model = tokenizers.models.WordLevel({"word": 0, "[UNK]": 1}, unk_token="[UNK]")  # noqa: S106 - no password
        tokenizer = tokenizers.Tokenizer(model)
        tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
        folder = tmp_path / "sd-scripts" / "configs" / name
        folder.mkdir(parents=True)
        tokenizer.save(str(folder / "tokenizer.json"))
    monkeypatch.setenv("SD_SCRIPTS_DIR", str(tmp_path / "sd-scripts"))
    return tmp_path / "sd-scripts"


def cut(folder: Path, architecture: ArchitectureName, caption: str, **options: Any) -> list[str]:
    """Return the findings about captions that are cut off."""
    (folder / "data" / "f10.txt").write_text(caption, "utf-8")
    training = Training.model_validate(
        {"steps": 1, "optimizer": "AdamW", "learning_rate": 1e-4, "seed": 1, "options": options}
    )
    report = lint.check(made(sources={"krnk": {**SOURCE, "captions": "files"}}), folder, training, architecture=architecture)
    found = [f"{finding.what}; {finding.hint}" for finding in report.findings]
    return [text for text in found if "cut off" in text]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_75_tokens_of_clip_count_where_clip_reads_captions(good: Path, architecture: ArchitectureName) -> None:
    clip = architecture in {"sd1", "sd2", "sdxl"}
    assert bool(cut(good, architecture, CAPTION)) == clip
    assert token_limits.reads_clip(architecture) == clip


def test_a_trigger_word_known_to_clip_is_no_finding_elsewhere(good: Path) -> None:
    data = made(sources={"krnk": {**SOURCE, "captions": "fixed", "trigger": "cat"}})
    for architecture, found in (("sd1", True), ("anima", False)):
        report = lint.check(data, good, architecture=architecture)
        assert any("single token of CLIP" in text for text in texts_of(report)) == found


@pytest.mark.usefixtures("checkout")
@pytest.mark.parametrize(
    ("architecture", "words", "expected"),
    [
        ("flux", 512, []),
        ("flux", 513, ["its caption has 513 tokens of T5; those after the 512th are cut off"]),
        ("flux-schnell", 257, ["its caption has 257 tokens of T5; those after the 256th are cut off"]),
        ("sd3-medium", 257, ["its caption has 257 tokens of T5; those after the 256th are cut off"]),
        ("anima", 513, ["of Qwen3; those after the 512th", "of T5; those after the 512th"]),
        ("lumina", 999, []),
        ("hunyuan-image", 999, []),
    ],
)
def test_other_text_encoders_have_limits_of_their_own(
    good: Path, architecture: ArchitectureName, words: int, expected: list[str]
) -> None:
    found = cut(good, architecture, "word " * words)
    assert len(found) == len(expected)
    assert all(part in text for part, text in zip(expected, found, strict=True))


@pytest.mark.usefixtures("checkout")
def test_the_recipes_own_limit_counts(good: Path) -> None:
    assert cut(good, "flux", "word " * 513, t5xxl_max_token_length=600) == []
    (text,) = cut(good, "flux", "word " * 100, t5xxl_max_token_length=64)
    assert text == (
        "its caption has 100 tokens of T5; those after the 64th are cut off;"
        " shorten it, or set training.options.t5xxl_max_token_length = 100"
    )


def test_nothing_is_guessed_without_a_tokenizer(good: Path, checkout: Path) -> None:
    (checkout / "configs" / "t5_old" / "tokenizer.json").write_text("broken", "utf-8")
    token_limits._counter.cache_clear()
    assert cut(good, "flux", "word " * 999) == []
    ((what, _),) = token_limits.uncounted("flux")
    assert what == f"tokens of T5 are not counted: {checkout / 'configs' / 't5_old' / 'tokenizer.json'} cannot be read"
    (checkout / "configs" / "t5_old" / "tokenizer.json").unlink()
    token_limits._counter.cache_clear()
    assert cut(good, "flux", "word " * 999) == []
    ((what, hint),) = token_limits.uncounted("flux")
    assert what.endswith("tokenizer.json is not there")
    assert hint == "make setup  brings it; the trainer reads the first 512"
    assert list(token_limits.uncounted("sd1")) == []
