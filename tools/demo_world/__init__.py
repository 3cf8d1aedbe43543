"""A cartoon world of cat-eared characters, and its small base model."""
