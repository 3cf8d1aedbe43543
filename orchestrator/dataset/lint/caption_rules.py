"""Rules of ``dataset check`` for captions and trigger words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.dataset import image_headers
from orchestrator.dataset.captions import CaptionSource
from orchestrator.dataset.lint import clip_tokens
from orchestrator.dataset.lint.findings import Finding, Level
from orchestrator.errors import counted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.dataset.lint.findings import Inspected
    from orchestrator.dataset.training_folder import DatasetImage, TrainingFolder


def captions(inspected: Inspected) -> Iterator[Finding]:
    """Find captions that are missing, wrong, cut off or unused."""
    for name in dict.fromkeys(folder.source for folder in inspected.layout.folders):
        if inspected.dataset.sources[name].captions != "fixed":
            yield from _orphans(inspected, name)
    for folder, image in inspected.originals().values():
        where, source = inspected.display(image.original), inspected.dataset.sources[folder.source]
        yield from _origin(inspected, folder, image)
        if image.caption_source is CaptionSource.FILE:
            file = image.original.with_suffix(source.caption_files)
            if sum(bool(line.strip()) for line in file.read_text("utf-8-sig").splitlines()) > 1:
                what = "has several lines; only the first is trained"
                yield Finding(Level.WARNING, inspected.display(file), what, "join them with commas")
        if image.caption is None:
            if not folder.tagger:
                what = f'has no caption; the trainer uses "{folder.class_tokens or folder.source}"'
                yield Finding(Level.WARNING, where, what, f"write a {source.caption_files} of its name beside it")
            continue
        if not image.caption.strip():
            hint = f"dataset.sources.{folder.source}: trigger, tags, vocabulary"
            yield Finding(Level.ERROR, where, "has an empty caption", hint)
        elif not folder.regularization and not _tags(folder.trigger) <= _words(image.caption):
            what = f'its caption lacks the trigger word "{folder.trigger}"'
            yield Finding(Level.WARNING, where, what, f"the caption is: {image.caption[:80]}")
        for limit in inspected.limits:
            if (tokens := limit.count(image.caption)) > limit.tokens:
                of = f" of {limit.limit.title}" if limit.limit.folder else ""
                what = f"its caption has {counted(tokens, 'token')}{of}; those after the {limit.tokens}th are cut off"
                yield Finding(Level.WARNING, where, what, limit.remedy(tokens))


def _origin(inspected: Inspected, folder: TrainingFolder, image: DatasetImage) -> Iterator[Finding]:
    """Find images with two captions, or with the source's words alone."""
    source, where = inspected.dataset.sources[folder.source], inspected.display(image.original)
    stem = image.original.stem
    if image.caption_source is CaptionSource.FILE and stem in source.texts:
        what = f'has a caption in {stem}{source.caption_files} and in dataset.sources.{folder.source}.texts."{stem}"'
        yield Finding(Level.WARNING, where, f"{what}; the file is used", "remove one of them")
    if image.caption_source is CaptionSource.WORDS and source.captions not in ("fixed", "alike"):
        lack = f"{source.caption_files} and view in its name" if source.captions == "view" else source.caption_files
        what = f'has no {lack}; its caption is "{image.caption}"'
        yield Finding(Level.WARNING, where, what, f"write {stem}{source.caption_files} beside it")


def _orphans(inspected: Inspected, source: str) -> Iterator[Finding]:
    """Find caption files of a source without an image."""
    ending = inspected.dataset.sources[source].caption_files
    parents = {image.original.parent for folder, image in inspected.originals().values() if folder.source == source}
    for parent in sorted(parents):
        files = list(parent.iterdir())
        stems = {path.stem for path in files if path.suffix.lower() in image_headers.ENDINGS}
        for path in sorted(path for path in files if path.suffix == ending and path.stem not in stems):
            what = "is a caption without an image of that name"
            yield Finding(Level.WARNING, inspected.display(path), what, "rename it, or move it away")


def _tags(words: str) -> set[str]:
    """Return the words between commas."""
    return {tag.strip() for tag in words.split(",") if tag.strip()}


def _words(caption: str) -> set[str]:
    """Return the tags of a caption, and their words."""
    tags = _tags(caption)
    return tags | {word for tag in tags for word in tag.split()}


def triggers(inspected: Inspected) -> Iterator[Finding]:
    """Find trigger words that CLIP may confuse."""
    if not inspected.reads_clip:
        return
    words = {
        word: folder.source
        for folder in inspected.layout.folders
        if not folder.regularization
        for word in sorted(_tags(folder.trigger))
    }
    pieces = {word: [piece.removesuffix(clip_tokens.END) for piece in clip_tokens.split(word)] for word in words}
    for word, source in words.items():
        where, own = f"dataset.sources.{source}.trigger", pieces[word]
        split = "|".join(own)
        common = [piece for piece in own if clip_tokens.common(piece)]
        if len(own) == 1:
            what = f'"{word}" is a single token of CLIP: the base model may know it'
            yield Finding(Level.WARNING, where, what, "letters without vowels are rarely words")
        elif not split.isascii():
            what = f'"{word}" is {counted(len(own), "token")} of single bytes: the base model cannot read its letters'
            yield Finding(Level.NOTE, where, what, "write it in Latin letters")
        elif common and common[-1] == own[-1]:
            before = "".join(f', after "{piece}"' for piece in common[:-1])
            yield Finding(Level.NOTE, where, f'"{word}" reads {split} and ends in the common word "{own[-1]}"{before}')
        elif common:
            yield Finding(Level.NOTE, where, f'"{word}" reads {split} and contains the common word "{common[0]}"')
        for other, parts in pieces.items():
            if other != word and parts == own:
                what = f'"{word}" and "{other}" are the same to CLIP, which ignores capitals'
                yield Finding(Level.WARNING, where, what, "rename one")
            elif other != word and parts[: len(own)] == own:
                what = f'"{word}" ({split}) is the beginning of "{other}": each triggers the other a little'
                yield Finding(Level.NOTE, where, what)
