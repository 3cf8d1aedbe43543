"""The embedded engine's trainer and renderer, with the arguments of sd-scripts' train_network.py and gen_img.py.

They run on diffusers, transformers and lycoris-lora, on a CPU or a GPU. ``train_network`` and ``gen_img`` are run with
``python -m`` and have ``main(argv) -> int``. Importing them, or ``preload``, which imports all they need, starts no thread and
computes nothing, so that a fork server can import once and fork for every step.
"""
