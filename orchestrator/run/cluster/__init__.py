"""Where steps run when one machine is not enough: a Ray cluster whose nodes share the runs folder, or none.

``parcel`` says what a step needs and what came of it, by content digest; ``carrier`` brings content from here to there;
``node`` is what runs on a node, ``bring`` what it keeps there; ``joining`` joins a cluster, ``survey`` looks
at every node of it before anything runs; ``ray_executor`` offers the cluster's places to ``run.run_plan``.
"""
