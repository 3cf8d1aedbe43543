"""The engine sd-scripts: commands of its programs, and their output.

``engine`` satisfies the protocol. ``arguments`` and ``network_args`` write the training command, ``render_command`` the
drawing one. ``output_parser``, ``training_states`` and ``result_checks`` read the results.
"""
