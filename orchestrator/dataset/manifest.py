"""What a dataset says about itself, as plain JSON: the same for a check and for a built folder (dataset.json)."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from orchestrator.dataset import contact_tiles
from orchestrator.dataset.coverage import coverage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.dataset.buckets import Bucket, Placed, Prediction
    from orchestrator.dataset.layout import Layout
    from orchestrator.recipe import Dataset

JSON = dict[str, Any]

SCHEMA: Final = 3
"""Raise it when the same request gives other bytes."""


def described(
    dataset: Dataset,
    layout: Layout,
    prediction: Prediction,
    captions: Mapping[str, str],
    shown: Mapping[contact_tiles.Key, contact_tiles.Tile],
) -> JSON:
    """Return numbers, buckets, pictures (by bucket, then by file), coverage and tag frequencies.

    Args:
        dataset: the recipe's table.
        layout: its folders.
        prediction: the trainer's numbers for them.
        captions: role -> caption, where it is not in the layout: what a tagger wrote.
        shown: where a contact sheet shows which picture.
    """
    return {
        "name": dataset.name,
        "images": prediction.images,
        "images_x_repeats": prediction.images_x_repeats,
        "regularization_x_repeats": prediction.regularization_x_repeats,
        "batches_per_epoch": prediction.batches_per_epoch,
        "buckets": [_bucket(bucket) for bucket in prediction.buckets],
        "pictures": [
            _picture(bucket, one, captions, shown.get(contact_tiles.key(one)))
            for bucket in prediction.buckets
            for one in contact_tiles.ordered(bucket)
        ],
        "coverage": [one.as_json() for one in coverage(layout, dataset)],
        "tags": dict(tags(prediction, captions).most_common()),
    }


def tags(prediction: Prediction, captions: Mapping[str, str]) -> Counter[str]:
    """Return how many trained pictures (with repeats) carry each tag."""
    counter: Counter[str] = Counter()
    for bucket in prediction.buckets:
        for one in bucket.placed:
            caption = captions.get(one.picture.role, one.picture.caption) or ""
            for tag in dict.fromkeys(tag.strip() for tag in caption.split(",") if tag.strip()):
                counter[tag] += one.repeats
    return counter


def _bucket(bucket: Bucket) -> JSON:
    return {
        "resolution": list(bucket.resolution),
        "size": list(bucket.size),
        "batch_size": bucket.batch_size,
        "pictures": len(bucket.placed),
        "count": bucket.count,
        "batches": bucket.batches,
        "missing": bucket.missing,
    }


def _picture(bucket: Bucket, one: Placed, captions: Mapping[str, str], tile: contact_tiles.Tile | None) -> JSON:
    return {
        "file": "/".join(contact_tiles.key(one)),
        "source": one.picture.role,
        "original_size": list(one.picture.original_size),
        "size": list(one.picture.size),
        "caption": captions.get(one.picture.role, one.picture.caption),
        "class_tokens": one.folder.class_tokens or one.folder.source,
        "resolution": list(bucket.resolution),
        "bucket": list(bucket.size),
        "tile": tile.as_json() if tile else None,
        "resized": list(one.fit.resized),
        "crop_loss": round(one.fit.crop_loss, 6),
        "repeats": one.repeats,
        "flip": one.folder.flip,
        "regularization": one.folder.regularization,
    }
