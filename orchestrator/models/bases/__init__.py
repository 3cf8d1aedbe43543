"""Architectures of base models, one module each.

``registry`` reads all of them.
"""
