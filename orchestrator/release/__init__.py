"""Releases of finished weights and images: bundles, cards, grids, checksums."""
