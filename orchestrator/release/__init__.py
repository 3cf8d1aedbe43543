"""Finished weights and pictures become what people download: bundles, cards, grids, checksums."""
