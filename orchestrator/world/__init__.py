"""A small cartoon world of cat-eared characters: what can be drawn, how, with which captions, and a base model that has learned it."""
