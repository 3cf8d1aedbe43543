"""From folders of images to the training folders of sd-scripts.

Planning calls ``make_layout``, ``predict_batches``, ``epochs``, ``disk_bytes``, ``dataset_problems`` and ``source_files``,
which read headers and texts only. The step is ``python -m orchestrator.dataset build request.json``.
"""
