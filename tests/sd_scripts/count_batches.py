"""Print sd-scripts' view of dataset TOML files as one JSON line.

Runs in its environment, with its checkout as cwd.

``python count_batches.py dataset.toml…``: num train images, num reg images, batches per epoch, buckets with their counts, and
for every image its file, caption, repeats, bucket, and the size it is resized to.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections import Counter
from pathlib import Path

from library import config_util, train_util


def counts(path: str) -> dict[str, object]:
    parser = argparse.ArgumentParser()
    train_util.add_dataset_arguments(parser, True, True, True)
    train_util.add_training_arguments(parser, True)
    args = parser.parse_args(["--output_dir", "unused", "--output_name", "unused"])
    sanitizer = config_util.ConfigSanitizer(True, True, False, True)
    blueprint = config_util.BlueprintGenerator(sanitizer).generate(config_util.load_user_config(path), args)
    group, _ = config_util.generate_dataset_group_by_blueprint(blueprint.dataset_group)
    buckets, pictures = [], []
    above = Path(path).parent / "out"
    for dataset in group.datasets:
        used = Counter(name for bucket in dataset.bucket_manager.buckets for name in bucket)
        pictures += [
            [
                Path(name).relative_to(above).as_posix(),
                info.caption,
                used[name],
                [int(side) for side in info.bucket_reso],
                [int(side) for side in info.resized_size],
            ]
            for name, info in dataset.image_data.items()
        ]
        manager = dataset.bucket_manager
        buckets += [
            [list(size), len(members)] for size, members in zip(manager.resos, manager.buckets, strict=True) if members
        ]
    return {
        "train": group.num_train_images,
        "reg": group.num_reg_images,
        "batches": len(group),
        "buckets": sorted(buckets),
        "pictures": sorted(pictures),
    }


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    print()
    print(json.dumps([counts(path) for path in sys.argv[1:]]))
