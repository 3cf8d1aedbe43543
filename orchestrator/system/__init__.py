"""The operating system as the program uses it. It knows no recipe.

``process`` starts a child under its ``supervisor``, ``child`` follows it, ``child_status`` reads how it stands. ``files``
writes, ``lock`` excludes other processes, ``digests`` hashes, ``gpu`` asks nvidia-smi, ``settings`` finds the folders of
the user.
"""
