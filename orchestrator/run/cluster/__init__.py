"""Run steps on a Ray cluster, by a shared runs folder or a storage.

``ray_pool`` offers the cluster's slots to ``runner.run_plan``; ``connect`` joins a cluster; ``node_checks`` checks every node
before anything runs. ``task`` describes a step for a node, ``node`` runs it there, ``events`` streams its events back.
``storage`` and ``states`` exchange files and training states with nodes that do not share the runs folder.
"""
