"""The rules of ``dataset check`` about words: captions and triggers. Each yields (level, where, what, hint)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.dataset import image_headers
from orchestrator.dataset.lint import clip_tokens

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.dataset.lint.findings import Inspected

Said = tuple[str, str, str, str]


def captions(seen: Inspected) -> Iterator[Said]:
    """Captions that are missing, lack the trigger, are cut, or belong to no picture."""
    for name in dict.fromkeys(folder.source for folder in seen.layout.folders):
        if seen.dataset.sources[name].captions == "files":
            yield from _orphans(seen, name)
    for folder, picture in seen.originals().values():
        where, source = seen.shown(picture.original), seen.dataset.sources[folder.source]
        if source.captions == "files":
            text = picture.original.with_suffix(source.caption_files)
            if (
                text.is_file()
                and len([line for line in text.read_text(encoding="utf-8-sig").splitlines() if line.strip()]) > 1
            ):
                yield "warning", seen.shown(text), "has several lines; only the first is trained", "join them with commas"
        if picture.caption is None:
            if not folder.tagger:
                what = f'has no caption; the trainer takes "{folder.class_tokens or folder.source}"'
                yield "warning", where, what, f"write a {source.caption_files} of its name beside it"
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
        length = clip_tokens.count(picture.caption)
        if length > seen.tokens:
            most = clip_tokens.limit(length)
            hint = f"training.options.max_token_length = {most} takes it" if most else f"{clip_tokens.LIMITS[-1]} is the most"
            yield (
                "warning",
                where,
                f"its caption takes {length} tokens; what follows the {seen.tokens}th is cut off",
                hint,
            )


def _orphans(seen: Inspected, source: str) -> Iterator[Said]:
    """Caption files beside the source's pictures whose picture is not there."""
    ending = seen.dataset.sources[source].caption_files
    for folder in sorted({picture.original.parent for place, picture in seen.originals().values() if place.source == source}):
        files = list(folder.iterdir())
        stems = {path.stem for path in files if path.suffix.lower() in image_headers.ENDINGS}
        for path in sorted(path for path in files if path.suffix == ending and path.stem not in stems):
            yield "warning", seen.shown(path), "is a caption without a picture of that name", "rename it, or move it away"


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
    pieces = {word: [piece.removesuffix(clip_tokens.END) for piece in clip_tokens.split(word)] for word in words}
    for word, source in words.items():
        where, own = f"dataset.sources.{source}.trigger", pieces[word]
        shown = "|".join(own)
        known = [piece for piece in own if clip_tokens.common(piece)]
        if len(own) == 1:
            hint = "letters without vowels are rarely words"
            yield "warning", where, f'"{word}" is a single token of CLIP: the base model may know it as something', hint
        elif not shown.isascii():
            hint = "write it in Latin letters"
            yield "note", where, f'"{word}" is {len(own)} tokens of single bytes: the base model cannot read its letters', hint
        elif known and known[-1] == own[-1]:
            before = "".join(f', after "{piece}"' for piece in known[:-1])
            yield "note", where, f'"{word}" reads {shown} and ends in the common word "{own[-1]}"{before}', ""
        elif known:
            yield "note", where, f'"{word}" reads {shown} and holds the common word "{known[0]}"', ""
        for other, parts in pieces.items():
            if other != word and parts == own:
                yield "warning", where, f'"{word}" and "{other}" are the same to CLIP, which reads no capitals', "rename one"
            elif other != word and parts[: len(own)] == own:
                yield "note", where, f'"{word}" ({shown}) is how "{other}" begins: each calls a little of the other', ""
