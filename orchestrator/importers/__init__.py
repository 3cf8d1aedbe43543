"""Make recipes from other programs' settings and from images.

The verbs are ``import`` and ``new``.

Each reader (``reader.read`` chooses it by the file) returns ``ImportedSettings``: options as train_network.py names them, and
datasets as sd-scripts' dataset configuration has them. ``to_recipe`` makes a recipe of that. File contents are data and
untrusted.
"""
