"""Base models as data, without torch.

``bases`` has a module for each ``architecture``, and ``registry`` lists them. ``recognition`` finds the architecture of a
LoRA by its modules, ``conventions`` names modules as other programs do, ``block_weights`` reads the weights of blocks.
"""
