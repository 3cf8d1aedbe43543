"""Describe a dataset as JSON."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from orchestrator.dataset import contact_tiles
from orchestrator.dataset.coverage import coverage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.dataset.buckets import Bucket, BucketedImage, Prediction
    from orchestrator.dataset.layout import Layout
    from orchestrator.recipe import Dataset

JSON = dict[str, Any]

SCHEMA: Final = 3
"""Raise it when the same request gives other bytes."""


def describe(
    dataset: Dataset,
    layout: Layout,
    prediction: Prediction,
    captions: Mapping[str, str],
    tiles: Mapping[contact_tiles.Key, contact_tiles.Tile],
) -> JSON:
    """Return numbers, buckets, images, coverage and tags as JSON.

    Images are sorted by bucket, then by file.

    Args:
        dataset: the recipe's table.
        layout: its folders.
        prediction: the trainer's numbers for them.
        captions: role -> caption of a tagger, for images without one in the layout.
        tiles: positions of the images on a contact sheet.
    """
    held_out = [
        {"file": f"{folder.path}/{image.name}", "source": image.role, "size": list(image.size), "caption": image.caption}
        for folder in layout.held_out
        for image in folder.images
    ]
    return {
        "name": dataset.name,
        "images": prediction.images,
        "images_x_repeats": prediction.images_x_repeats,
        "regularization_x_repeats": prediction.regularization_x_repeats,
        "batches_per_epoch": prediction.batches_per_epoch,
        "buckets": [_bucket(bucket) for bucket in prediction.buckets],
        "pictures": [
            _image(bucket, image, captions, tiles.get(contact_tiles.key(image)))
            for bucket in prediction.buckets
            for image in contact_tiles.ordered(bucket)
        ],
        "coverage": [table.as_json() for table in coverage(layout, dataset)],
        "tags": dict(count_tags(prediction, captions).most_common()),
        **({"held_out": held_out} if held_out else {}),
    }


def count_tags(prediction: Prediction, captions: Mapping[str, str]) -> Counter[str]:
    """Return the number of trained images (with repeats) with each tag."""
    counter: Counter[str] = Counter()
    for bucket in prediction.buckets:
        for bucketed in bucket.images:
            caption = captions.get(bucketed.image.role, bucketed.image.caption) or ""
            for tag in dict.fromkeys(tag.strip() for tag in caption.split(",") if tag.strip()):
                counter[tag] += bucketed.repeats
    return counter


def _bucket(bucket: Bucket) -> JSON:
    return {
        "resolution": list(bucket.resolution),
        "size": list(bucket.size),
        "batch_size": bucket.batch_size,
        "pictures": len(bucket.images),
        "count": bucket.count,
        "batches": bucket.batches,
        "missing": bucket.missing,
    }


def _image(bucket: Bucket, bucketed: BucketedImage, captions: Mapping[str, str], tile: contact_tiles.Tile | None) -> JSON:
    return {
        "file": "/".join(contact_tiles.key(bucketed)),
        "source": bucketed.image.role,
        "original_size": list(bucketed.image.original_size),
        "size": list(bucketed.image.size),
        "caption": captions.get(bucketed.image.role, bucketed.image.caption),
        "caption_source": str(bucketed.image.caption_source),
        "class_tokens": bucketed.folder.class_tokens or bucketed.folder.source,
        "resolution": list(bucket.resolution),
        "bucket": list(bucket.size),
        "tile": tile.as_json() if tile else None,
        "resized": list(bucketed.fit.resized),
        "crop_loss": round(bucketed.fit.crop_loss, 6),
        "repeats": bucketed.repeats,
        "flip": bucketed.folder.flip,
        "regularization": bucketed.folder.regularization,
    }
