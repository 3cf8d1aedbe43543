"""A small cartoon world of cat-eared characters: its drawings, their captions, and the base model trained on them."""
