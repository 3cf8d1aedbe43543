"""A small cartoon world of cat-eared characters: what it can show, with which captions, and a base model that knows it."""
