"""The embedded engine: a small trainer and a small renderer that take the same arguments as sd-scripts'
``train_network.py`` and ``gen_img.py``, on diffusers, transformers and lycoris-lora, on a CPU or a GPU.

``python -m orchestrator.embedded.train_network …`` and ``python -m orchestrator.embedded.gen_img …``. Both have
``main(argv) -> int``; importing them (and :mod:`orchestrator.embedded.warm`, which imports all they need) starts no
thread and does no arithmetic, so that a warm process can import once and fork for every step.
"""
