"""Turn recipes into steps with keys. Nothing runs.

``planner`` makes a plan of each ``step``, ``inputs`` reads files and versions for it, ``estimate`` and ``promises`` predict
sizes.
"""
