"""Releases of weights and images, and the choice of the released step.

``__main__`` makes the release of one recipe (``recipe_release``) or of several (``collection``); ``verify``, ``diff`` and
``push`` read the bundle. ``variants`` draws grids of a training's variants; ``selection`` measures its saved steps and
proposes one.
"""
