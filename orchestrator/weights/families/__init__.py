"""Families of adapters: their modules, deltas, scales and ranks.

``adapter`` groups a file into modules, ``kinds`` recognizes each, ``deltas`` computes its delta, ``low_rank`` makes it up x
down.
"""
