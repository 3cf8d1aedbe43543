"""Trainer and renderer with the arguments of sd-scripts' programs.

They use diffusers, transformers and lycoris-lora on a CPU or a GPU. ``train_network`` and ``gen_img`` are programs for
``python -m`` with a ``main(argv) -> int``. Importing them starts no thread and computes nothing, so a fork server can import
once and fork for every step. ``cli_options`` needs no torch, so the planner reads the options there.
"""
