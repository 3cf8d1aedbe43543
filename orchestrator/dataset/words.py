"""The rules of ``dataset check`` about words: captions and triggers. Each yields (level, where, what, hint)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.dataset import tokens

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from orchestrator.dataset.lint import Inspected

Said = tuple[str, str, str, str]


def captions(seen: Inspected) -> Iterator[Said]:
    """Captions that are missing, lack the trigger, are cut, or belong to no picture."""
    texts: set[Path] = set()
    for folder, picture in seen.originals().values():
        where, source = seen.shown(picture.original), seen.dataset.sources[folder.source]
        if source.captions == "files":
            text = picture.original.with_suffix(source.caption_files)
            texts.add(text)
            if (
                text.is_file()
                and len([line for line in text.read_text(encoding="utf-8-sig").splitlines() if line.strip()]) > 1
            ):
                yield "warning", seen.shown(text), "has several lines; only the first is trained", "join them with commas"
        if picture.caption is None:
            if not folder.tagger:
                what = f'has no caption; the trainer takes "{folder.class_tokens or folder.source}"'
                yield "warning", where, what, f"write {picture.original.stem}{source.caption_files} beside it"
            continue
        if not picture.caption.strip():
            yield "error", where, "has an empty caption", f"dataset.sources.{folder.source}: trigger, tags, vocabulary"
        elif not folder.regularization and not _tags(folder.trigger) <= _words(picture.caption):
            yield (
                "warning",
                where,
                f'its caption lacks the trigger word "{folder.trigger}"',
                f"it says: {picture.caption[:80]}",
            )
        length = tokens.count(picture.caption)
        if length > tokens.LIMITS[0]:
            most = tokens.limit(length)
            hint = f"max_token_length = {most} takes it" if most else f"{tokens.LIMITS[-1]} are the most there can be"
            yield (
                "warning",
                where,
                f"its caption takes {length} tokens; what follows the {tokens.LIMITS[0]}th is cut off",
                hint,
            )
    for folder_path in {text.parent for text in texts}:
        endings = {text.suffix for text in texts if text.parent == folder_path}
        for path in sorted(folder_path.iterdir()):
            if path.suffix in endings and path not in texts:
                yield "warning", seen.shown(path), "is a caption without a picture of that name", ""


def _tags(words: str) -> set[str]:
    """Return what stands between the commas; a trigger may be several tags."""
    return {tag.strip() for tag in words.split(",") if tag.strip()}


def _words(caption: str) -> set[str]:
    """Return the tags of a caption, and their words."""
    tags = _tags(caption)
    return tags | {word for tag in tags for word in tag.split()}


def triggers(seen: Inspected) -> Iterator[Said]:
    """Trigger words as the text encoder reads them."""
    words = {
        word: folder.source
        for folder in seen.layout.folders
        if not folder.regularization
        for word in sorted(_tags(folder.trigger))
    }
    split = {word: tokens.split(word) for word in words}
    for word, source in words.items():
        where, pieces = f"dataset.sources.{source}.trigger", split[word]
        shown = "|".join(piece.removesuffix("</w>") for piece in pieces)
        if len(pieces) == 1:
            yield (
                "warning",
                where,
                f'"{word}" is a single token of CLIP: the base model may know it as something',
                "letters without vowels are rarely words",
            )
        else:
            known = [piece.removesuffix("</w>") for piece in pieces if tokens.common(piece)]
            if known:
                yield "note", where, f'"{word}" reads {shown} and ends in the common word "{known[-1]}"', ""
        for other, parts in split.items():
            start = [piece.removesuffix("</w>") for piece in pieces]
            if other != word and [piece.removesuffix("</w>") for piece in parts[: len(start)]] == start:
                yield "note", where, f'"{word}" ({shown}) is how "{other}" begins: each calls a little of the other', ""
