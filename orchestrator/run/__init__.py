"""Run the steps of a plan, and keep their results.

``session`` runs a selection of recipes: ``workspace`` loads and plans them, ``preflight`` checks the machine, ``runner``
gives steps to ``slots``, ``step_runner`` runs one of them, ``store`` keeps its result, ``due`` decides which ones run.
``paths`` names all files below ``runs/``.
"""
