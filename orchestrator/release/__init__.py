"""Releases of weights and images: bundles, cards, grids, checksums."""
