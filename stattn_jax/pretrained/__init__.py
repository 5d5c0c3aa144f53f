"""Saves trained networks as folders that others can open, and opens them: safetensors, JSON and a model card.

shared_folder.py defines the format, card.py writes the model card, and lookup.py finds a folder by its path or name.
The folders `demo` and `av_digits` hold the networks that are part of the package.
"""
